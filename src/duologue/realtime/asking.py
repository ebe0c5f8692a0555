"""Puts into effect what `Replies` decides, and looks again when it is time to."""

from __future__ import annotations

from collections.abc import Callable

from duologue.clock import Clock, Timer
from duologue.realtime.commands import Command
from duologue.realtime.errors import ReplyRefusedError
from duologue.realtime.listener import Listener
from duologue.realtime.replies import Changes, Replies


class Asking:
    """Transmits commands, tells who asked for a reply that is not coming, and keeps the timer.

    ``looked`` is called when some time has passed and something may have changed by it.
    """

    def __init__(
        self,
        replies: Replies,
        clock: Clock,
        *,
        transmit: Callable[[Command], None],
        told: Callable[[], Listener],
        looked: Callable[[], None],
    ) -> None:
        self._replies = replies
        self._clock = clock
        self._transmit = transmit
        self._told = told
        self._looked = looked
        self._timer: Timer | None = None
        self.is_open = False
        """There is a session to transmit to."""

    def apply(self, changes: Changes) -> None:
        """Do what follows from a step."""
        for command in changes.commands:
            if self.is_open:
                self._transmit(command)
        for request_id in changes.dropped:
            self._told().reply_ended(request_id, None)
        for refusal in changes.refused:
            error = ReplyRefusedError(refusal.message, code=refusal.code)
            self._told().reply_ended(refusal.request_id, error)
        for epoch in changes.missing:
            self._told().nothing_follows(epoch)
        self.arm()

    def arm(self) -> None:
        """Set the timer to what is due next."""
        self._stop()
        deadline = self._replies.deadline
        if deadline is not None and self.is_open:
            self._timer = self._clock.call_at(deadline, self._poll)

    def close(self) -> None:
        """The session is over."""
        self.is_open = False
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        self.apply(self._replies.poll(self._clock.now()))
        self._looked()
