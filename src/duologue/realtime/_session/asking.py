"""Puts into effect what `Replies` decides, and looks again when it is time to."""

from __future__ import annotations

from collections.abc import Callable

from duologue.clock import Clock, Timer
from duologue.errors import ReplyRefusedError
from duologue.realtime._session.reply_scheduler import Effects, ReplyScheduler
from duologue.realtime.commands import Command
from duologue.realtime.observer import SessionObserver


class EffectRunner:
    """Transmits commands, tells who asked for a reply that is not coming, and keeps the timer.

    ``looked`` is called when some time has passed and something may have changed by it.
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
        """There is a session to transmit to."""

    def apply(self, effects: Effects) -> None:
        """Do what follows from a step."""
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
        """Set the timer to what is due next."""
        self._stop()
        deadline = self._scheduler.deadline
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
        self.apply(self._scheduler.poll(self._clock.now()))
        self._on_timer()
