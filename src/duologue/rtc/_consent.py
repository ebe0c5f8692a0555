"""Notice within seconds that the far side is gone (RFC 7675)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from duologue.clock import Clock

CHECK_INTERVAL = 0.7
"""Seconds from a response to the next check; a response is waited for 0.5 s."""

RETRY_INTERVAL = 0.5
"""Seconds to the next check after a response is missing."""


class ConsentMonitor:
    """Checks once a second whether the far side answers, and reports when it stops and resumes.

    RFC 7675 lets consent last 30 s, but a conversation must notice a dead connection much earlier.

    Args:
        clock: Clock of the monitor.
        interrupted_after: Seconds of silence after which the connection counts as interrupted.
        failed_after: Seconds of silence after which `run` gives up.
        last_packet: Returns the clock time of the last audio packet, which also shows that the far
            side is alive.
        on_change: Called with False when the connection becomes silent and with True when it is
            back.
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
        # One check and its timeout may pass before silence can be noticed.
        self._interrupted_after = interrupted_after - CHECK_INTERVAL - 0.5
        self._failed_after = failed_after
        self._last_packet = last_packet
        self._on_change = on_change
        self._silent = False

    async def run(self, check: Callable[[], Awaitable[bool]], is_open: Callable[[], bool]) -> float:
        """Monitor the connection while ``is_open`` returns True.

        Args:
            check: Sends one check; returns within 0.5 s whether the far side answered.
            is_open: Whether to continue.

        Returns:
            Seconds of silence at the end.
        """
        clock = self._clock
        answered_at = clock.now()
        silent = 0.0
        while is_open() and silent < self._failed_after:
            await clock.sleep(RETRY_INTERVAL if self._silent else CHECK_INTERVAL)
            if await check():
                answered_at = clock.now()
            silent = clock.now() - max(answered_at, self._last_packet())
            if (silent >= self._interrupted_after) != self._silent:
                self._silent = not self._silent
                self._on_change(not self._silent)
        return silent
