"""Decide how a session continues on its next connection.

What to request again, what to report, and where to insert a turn whose transcript came late.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Literal
from uuid import uuid4

from duologue.events.events import RealtimeConnectedEvent, RealtimeReconnectedEvent
from duologue.items import Item
from duologue.realtime._session.connections import ActiveConnection
from duologue.realtime._session.reply_scheduler import Reply
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.commands import AddItem, DeleteItem, RequestReply, Say

CONTINUE_PROMPT = (
    "The connection broke while you were speaking. The person has heard you up to where your last "
    "message ends. Go on from there, without repeating anything and without mentioning it."
)
"""Instructions for a model whose reply broke off because a connection was lost."""

STALE_EPOCH = -1
"""Epoch of a second reply to a replayed turn: older than all others, and so cancelled."""


def retry_command(reply: Reply, spoken: str | None) -> RequestReply | Say | None:
    """Return what to request for the rest of a reply after ``spoken``; None if nothing is left."""
    request_id = uuid4().hex
    command = None if reply.request is None else reply.request.command
    match command:
        case Say(text=text, interruptible=interruptible):
            rest = text[len(spoken or "") :].strip() if text.startswith(spoken or "") else text
            return Say(request_id, rest, interruptible) if rest else None
        case RequestReply(instructions=instructions) if spoken is None:
            return RequestReply(request_id, instructions)
        case RequestReply(instructions=str(instructions)) if instructions.endswith(CONTINUE_PROMPT):
            return RequestReply(request_id, instructions)
        case RequestReply(instructions=str(instructions)):
            return RequestReply(request_id, f"{instructions}\n\n{CONTINUE_PROMPT}")
        case _:
            return RequestReply(request_id, None if spoken is None else CONTINUE_PROMPT)


def connected_event(
    connection: ActiveConnection, session_id: str, capabilities: Capabilities
) -> RealtimeConnectedEvent:
    """Return the event that reports the first connection."""
    config = {} if connection.started is None else dict(connection.started.config)
    return RealtimeConnectedEvent(session_id, config, asdict(capabilities))


class Outage:
    """The time between two connections, and how much input audio was lost in it."""

    __slots__ = ("_began", "_lost_samples")

    def __init__(self) -> None:
        self._began = 0.0
        self._lost_samples = 0

    def begin(self, lost: int, now: float) -> None:
        """Record that there is no connection; ``lost`` samples of input audio were lost before."""
        self._began, self._lost_samples = now, lost

    def end(
        self, connection: ActiveConnection, capabilities: Capabilities, lost: int, now: float
    ) -> RealtimeReconnectedEvent:
        """Return the event that reports the next connection; ``lost`` counts samples so far."""
        outcome: Literal["restored", "replayed", "fresh"]
        if connection.started is not None and connection.started.restored:
            outcome = "restored"
        else:
            outcome = (
                "replayed"
                if capabilities.accepts_history or not connection.setup.history
                else "fresh"
            )
        lost_ms = (lost - self._lost_samples) * 1000 // capabilities.input_rate
        return RealtimeReconnectedEvent(outcome, lost_ms, int((now - self._began) * 1000))


def reinsert_turn(
    item_id: str, replayed_id: str, history: Sequence[Item], initial_items: Collection[str]
) -> list[AddItem | DeleteItem]:
    """Return commands that move a turn whose transcript came late to its place in the history.

    A connection to which the turn was replayed knows it as ``replayed_id``, behind the reply to it;
    in ``history`` it is ``item_id``, at its right place. Nothing has to be moved if none of
    ``initial_items``, which the connection began with, follows the turn.
    """
    ids = [item.id for item in history]
    if item_id not in ids:
        return []
    at = ids.index(item_id)
    before = tuple(one for one in ids[at + 1 :] if one in initial_items)
    return [DeleteItem(replayed_id), AddItem(history[at], before)] if before else []
