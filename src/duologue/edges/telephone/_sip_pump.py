"""Look at the audio of all calls every 10 ms."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager

from duologue.clock import Clock, LoopClock, Timer

logger = logging.getLogger(__name__)

PERIOD_S = 0.01
"""Seconds between two looks: half a packet."""


class SipPump:
    """Calls a function of each call every 10 ms; runs only while there are any.

    After a stall it looks once: nothing is gained by looking at the past.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock: Clock = clock or LoopClock()
        self._looks: dict[object, Callable[[], None]] = {}
        self._timer: Timer | None = None
        self._due = 0.0

    @contextmanager
    def watch(self, look: Callable[[], None]) -> Generator[None]:
        """Call ``look`` every 10 ms during the block."""
        key = object()
        self._looks[key] = look
        if self._timer is None:
            self._due = self._clock.now()
            self._arm()
        try:
            yield
        finally:
            del self._looks[key]
            if not self._looks and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _arm(self) -> None:
        self._due = max(self._due + PERIOD_S, self._clock.now())
        self._timer = self._clock.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self._timer = None
        for look in list(self._looks.values()):
            try:
                look()
            except Exception:
                logger.exception("the audio of a call over SIP could not be handled")
        if self._looks and self._timer is None:
            self._arm()
