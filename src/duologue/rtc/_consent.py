"""Whether the far side is still there (RFC 7675), found out in seconds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from duologue.clock import Clock

CHECK_INTERVAL = 0.7
"""Seconds between an answer and the next question; an answer is waited for 0.5 s."""

RETRY_INTERVAL = 0.5
"""The same once an answer is missing."""


class ConsentMonitor:
    """Asks the far side once a second and says when it has fallen silent, and when for good.

    RFC 7675 lets consent last 30 s; a conversation must notice a dead line long before.
    ``interrupted_after`` and ``failed_after`` in s; ``last_packet`` gives the clock time of the
    last sound that came, which is a sign of life too. ``on_change`` gets True when the line is
    back and False when it is silent; `run` returns the seconds of silence when it is lost.
    """

    __slots__ = (
        "_clock",
        "_failed_after",
        "_interrupted_after",
        "_last_packet",
        "_on_change",
        "_silent",
    )

    def __init__(
        self,
        clock: Clock,
        *,
        interrupted_after: float,
        failed_after: float,
        last_packet: Callable[[], float],
        on_change: Callable[[bool], None],
    ) -> None:
        self._clock = clock
        # One question and its wait may pass before silence can be seen.
        self._interrupted_after = interrupted_after - CHECK_INTERVAL - 0.5
        self._failed_after = failed_after
        self._last_packet = last_packet
        self._on_change = on_change
        self._silent = False

    async def run(self, check: Callable[[], Awaitable[bool]], is_open: Callable[[], bool]) -> float:
        """Watch while ``going``; ``ask`` says within 0.5 s whether the far side answered."""
        clock = self._clock
        heard = clock.now()
        silent = 0.0
        while is_open() and silent < self._failed_after:
            await clock.sleep(RETRY_INTERVAL if self._silent else CHECK_INTERVAL)
            if await check():
                heard = clock.now()
            silent = clock.now() - max(heard, self._last_packet())
            if (silent >= self._interrupted_after) != self._silent:
                self._silent = not self._silent
                self._on_change(not self._silent)
        return silent
