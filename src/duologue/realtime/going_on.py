"""From one connection to the next: what is asked again, what is told, what is put in order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Literal
from uuid import uuid4

from duologue.events import RealtimeConnectedEvent, RealtimeReconnectedEvent
from duologue.items import Item
from duologue.realtime.commands import AddItem, DeleteItem, RequestReply, Say
from duologue.realtime.life import Link
from duologue.realtime.profile import Profile
from duologue.realtime.replies import Reply

GO_ON = (
    "The connection broke while you were speaking. The person has heard you up to where your last "
    "message ends. Go on from there, without repeating anything and without mentioning it."
)
"""Said to a model whose reply was broken off by the loss of a connection."""

GO_ON_AFTER_SOUND = (
    "You stopped because of a sound that was no speech, such as a cough. The person has heard your "
    "last message up to where it ends. Go on from there, without repeating anything and without "
    "mentioning it."
)
"""Instructions for a model that stopped its reply at a noise which did not interrupt the agent."""

ANSWERED = -1
"""Epoch of a reply to a turn that was answered before: older than all, and so cancelled."""


def asked_again(reply: Reply, said: str | None) -> RequestReply | Say | None:
    """What to ask for when a reply broke off having ``said`` that; None if nothing is left."""
    request_id = uuid4().hex
    asked = None if reply.request is None else reply.request.command
    match asked:
        case Say(text=text, interruptible=interruptible):
            rest = text[len(said or "") :].strip() if text.startswith(said or "") else text
            return Say(request_id, rest, interruptible) if rest else None
        case RequestReply(instructions=instructions) if said is None:
            return RequestReply(request_id, instructions)
        case RequestReply(instructions=str(instructions)) if instructions.endswith(GO_ON):
            return RequestReply(request_id, instructions)
        case RequestReply(instructions=str(instructions)):
            return RequestReply(request_id, f"{instructions}\n\n{GO_ON}")
        case _:
            return RequestReply(request_id, None if said is None else GO_ON)


def connected(link: Link, session_id: str, profile: Profile) -> RealtimeConnectedEvent:
    """What is told when the first connection is live."""
    config = {} if link.started is None else dict(link.started.config)
    return RealtimeConnectedEvent(session_id, config, asdict(profile))


class Gap:
    """The time between two connections, and what of the person's sound it has cost."""

    __slots__ = ("_began", "_lost")

    def __init__(self) -> None:
        self._began = 0.0
        self._lost = 0

    def begin(self, lost: int, now: float) -> None:
        """There is no connection any more; so many samples were ``lost`` before."""
        self._began, self._lost = now, lost

    def end(self, link: Link, profile: Profile, lost: int, now: float) -> RealtimeReconnectedEvent:
        """What is told when there is one again, and so many samples were ``lost`` in all."""
        outcome: Literal["restored", "replayed", "fresh"]
        if link.started is not None and link.started.restored:
            outcome = "restored"
        else:
            outcome = "replayed" if profile.replays or not link.setup.history else "fresh"
        lost_ms = (lost - self._lost) * 1000 // profile.input_rate
        return RealtimeReconnectedEvent(outcome, lost_ms, int((now - self._began) * 1000))


def put_before(
    item_id: str, again_id: str, history: Sequence[Item], given: Collection[str]
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
    before = tuple(one for one in ids[at + 1 :] if one in given)
    return [DeleteItem(again_id), AddItem(history[at], before)] if before else []
