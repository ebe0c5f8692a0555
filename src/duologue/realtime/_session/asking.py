"""Carry out what the reply scheduler decides, and poll it when a deadline passes."""

from __future__ import annotations

from collections.abc import Callable

from duologue.clock import Clock, Timer
from duologue.errors import ReplyRefusedError
from duologue.realtime._session.reply_scheduler import Effects, ReplyScheduler
from duologue.realtime.commands import Command
from duologue.realtime.observer import SessionObserver


class EffectRunner:
    """Transmits commands, reports requests that get no reply, and keeps the timer.

    Args:
        scheduler: decides which reply is made when.
        clock: sets the timer.
        transmit: sends a command to the model.
        observer: returns the observer of the session, which is set after this object is made.
        on_timer: called after each poll, because other waits may be over as well.
    """

    def __init__(
        self,
        scheduler: ReplyScheduler,
        clock: Clock,
        *,
        transmit: Callable[[Command], None],
        observer: Callable[[], SessionObserver],
        on_timer: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._transmit = transmit
        self._observer = observer
        self._on_timer = on_timer
        self._timer: Timer | None = None
        self.is_open = False
        """Whether there is a session to transmit to."""

    def apply(self, effects: Effects) -> None:
        """Carry out the effects of one step."""
        for command in effects.commands:
            if self.is_open:
                self._transmit(command)
        for request_id in effects.dropped:
            self._observer().reply_ended(request_id, None)
        for refusal in effects.refused:
            error = ReplyRefusedError(refusal.message, code=refusal.code)
            self._observer().reply_ended(refusal.request_id, error)
        for epoch in effects.missing:
            self._observer().reply_skipped(epoch)
        self.arm()

    def arm(self) -> None:
        """Set the timer to the next deadline."""
        self._stop()
        deadline = self._scheduler.deadline
        if deadline is not None and self.is_open:
            self._timer = self._clock.call_at(deadline, self._poll)

    def close(self) -> None:
        """Stop the timer, because the session is over."""
        self.is_open = False
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        self.apply(self._scheduler.poll(self._clock.now()))
        self._on_timer()
