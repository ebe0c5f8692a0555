"""Who hears a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from duologue.events.events import (
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    RealtimeReconnectedEvent,
    RealtimeReconnectingEvent,
)
from duologue.items import Item
from duologue.realtime.commands import DeleteItem, Truncate
from duologue.realtime.outputs import Output, ReplyText


class SessionObserver(Protocol):
    """Who hears the session: the agent. Every call is synchronous, in order, on the loop."""

    def history(self) -> Sequence[Item]:
        """What was said and heard so far, for a connection that has to know it."""
        ...

    def connected(self, event: RealtimeConnectedEvent) -> None:
        """The session is live."""

    def reconnecting(self, event: RealtimeReconnectingEvent) -> None:
        """The connection is lost or about to end; the next one is being made."""

    def reconnected(self, event: RealtimeReconnectedEvent) -> None:
        """The session goes on."""

    def disconnected(self, event: RealtimeDisconnectedEvent) -> None:
        """The session is over; called exactly once."""

    def output(self, output: Output, epoch: int) -> None:
        """What the model told, with the epoch it was made in; stale sound and words never come.

        A stale `ToolCall` does come, with its old epoch: it must be answered, not run.
        """

    def late_transcript(self, words: ReplyText) -> None:
        """What the model takes itself to have said, in a reply that was cut before it told so."""

    def on_interrupt(self, epoch: int) -> Sequence[Truncate | DeleteItem]:
        """Shut the gate now; returns how the model's history is to be cut."""
        ...

    def reply_ended(self, request_id: str, error: Exception | None) -> None:
        """A request has ended without a reply: refused with ``error``, or interrupted (None)."""

    def reply_skipped(self, epoch: int) -> None:
        """A reply of that epoch was expected that is not coming: the model says nothing more."""

    def spoken_text(self, reply_id: str) -> str | None:
        """The words of a reply whose sound has come so far; None when no sound has."""
        ...

    def reply_lost(self, reply_id: str, request_id: str | None) -> None:
        """A reply ended with its connection; the reply to ``request_id``, if any, goes on with it.

        None: nothing was asked for, because an answer will come by itself.
        """

    def turns_replayed(self, item_ids: Sequence[str]) -> None:
        """These turns of the person, not known as words yet, will come again under other ids."""
