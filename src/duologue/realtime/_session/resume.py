"""From one connection to the next: what is asked again, what is told, what is put in order."""

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
"""Said to a model whose reply was broken off by the loss of a connection."""

CONTINUE_AFTER_NOISE_PROMPT = (
    "You stopped because of a sound that was no speech, such as a cough. The person has heard your "
    "last message up to where it ends. Go on from there, without repeating anything and without "
    "mentioning it."
)
"""Instructions for a model that stopped its reply at a noise which did not interrupt the agent."""

STALE_EPOCH = -1
"""Epoch of a reply to a turn that was answered before: older than all, and so cancelled."""


def retry_command(reply: Reply, spoken: str | None) -> RequestReply | Say | None:
    """What to ask for when a reply broke off having ``said`` that; None if nothing is left."""
    request_id = uuid4().hex
    asked = None if reply.request is None else reply.request.command
    match asked:
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
    connection: ActiveConnection, session_id: str, profile: Capabilities
) -> RealtimeConnectedEvent:
    """What is told when the first connection is live."""
    config = {} if connection.started is None else dict(connection.started.config)
    return RealtimeConnectedEvent(session_id, config, asdict(profile))


class Outage:
    """The time between two connections, and what of the person's sound it has cost."""

    __slots__ = ("_began", "_lost_samples")

    def __init__(self) -> None:
        self._began = 0.0
        self._lost_samples = 0

    def begin(self, lost: int, now: float) -> None:
        """There is no connection any more; so many samples were ``lost`` before."""
        self._began, self._lost_samples = now, lost

    def end(
        self, connection: ActiveConnection, profile: Capabilities, lost: int, now: float
    ) -> RealtimeReconnectedEvent:
        """What is told when there is one again, and so many samples were ``lost`` in all."""
        outcome: Literal["restored", "replayed", "fresh"]
        if connection.started is not None and connection.started.restored:
            outcome = "restored"
        else:
            outcome = (
                "replayed" if profile.accepts_history or not connection.setup.history else "fresh"
            )
        lost_ms = (lost - self._lost_samples) * 1000 // profile.input_rate
        return RealtimeReconnectedEvent(outcome, lost_ms, int((now - self._began) * 1000))


def reinsert_turn(
    item_id: str, replayed_id: str, history: Sequence[Item], initial_items: Collection[str]
) -> list[AddItem | DeleteItem]:
    """Bring a turn whose words came late to where it was said.

    A connection to which the turn was replayed knows it as ``again_id``, after the reply to it; in
    ``history`` it is ``item_id``, at its right place. ``given`` are the items that the connection
    was given at its start: if none of them follows the turn, nothing has to be moved.
    """
    ids = [item.id for item in history]
    if item_id not in ids:
        return []
    at = ids.index(item_id)
    before = tuple(one for one in ids[at + 1 :] if one in initial_items)
    return [DeleteItem(replayed_id), AddItem(history[at], before)] if before else []
