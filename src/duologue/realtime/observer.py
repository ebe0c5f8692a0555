"""Define who a session reports to."""

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
    """The agent's side of a session. Every call is synchronous, in order, on the event loop."""

    def history(self) -> Sequence[Item]:
        """Return the conversation so far, for a connection that has to know it."""
        ...

    def connected(self, event: RealtimeConnectedEvent) -> None:
        """The session is live."""

    def reconnecting(self, event: RealtimeReconnectingEvent) -> None:
        """The connection is lost or about to end, and the next one is being made."""

    def reconnected(self, event: RealtimeReconnectedEvent) -> None:
        """The session continues on another connection."""

    def disconnected(self, event: RealtimeDisconnectedEvent) -> None:
        """The session is over; called exactly once."""

    def output(self, output: Output, epoch: int) -> None:
        """The model sent an output, with the epoch it was made in; never stale audio or text.

        A stale `ToolCall` is passed on, with its old epoch: it needs a result, but must not be run.
        """

    def late_transcript(self, words: ReplyText) -> None:
        """A late transcript of a reply that has already been truncated."""

    def on_interrupt(self, epoch: int) -> Sequence[Truncate | DeleteItem]:
        """Close the gate now; return how the model's history has to be truncated."""
        ...

    def reply_ended(self, request_id: str, error: Exception | None) -> None:
        """A request ended without a reply: refused with ``error``, or interrupted (None)."""

    def reply_skipped(self, epoch: int) -> None:
        """The reply of that epoch that was expected is not coming; the model says nothing more."""

    def spoken_text(self, reply_id: str) -> str | None:
        """Return the text of a reply as far as its audio has arrived; None if none has."""
        ...

    def reply_lost(self, reply_id: str, request_id: str | None) -> None:
        """A reply ended with its connection; the reply to ``request_id`` continues it.

        None: nothing was requested, because a reply will come by itself.
        """

    def turns_replayed(self, item_ids: Sequence[str]) -> None:
        """User turns that have no transcript yet will come again, under other ids."""
