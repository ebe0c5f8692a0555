"""Collect the keys that a person presses on their telephone."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from duologue.clock import Clock
from duologue.errors import ConfigError

MAX_WAITING = 64
"""Most unread keys; the oldest is dropped."""

TYPE_AHEAD_S = 10.0
"""Seconds that an unread key stays valid before `DigitBuffer.collect` is called."""

KEYS = frozenset("0123456789*#ABCD")


class DigitBuffer:
    """The unread keys that the person has pressed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[float, str]] = deque(maxlen=MAX_WAITING)
        self._wake: Callable[[], None] | None = None

    def push(self, digit: str) -> None:
        """Add a key."""
        self._waiting.append((self._clock.now(), digit))
        if self._wake is not None:
            self._wake()

    async def collect(self, max_digits: int, end: str, within: float) -> str:
        """Return the keys up to one of ``end``, which is not included.

        Stop after ``max_digits`` keys, or when no key came for ``within`` seconds.

        Raises:
            ConfigError: An argument can't work, or another call is collecting.
        """
        if not 1 <= max_digits <= MAX_WAITING:
            raise ConfigError(f"max must be from 1 to {MAX_WAITING}, not {max_digits}")
        if set(end) - KEYS:
            raise ConfigError(f"end must be keys such as #, not {end!r:.20}")
        if not 0 < within <= 3600:
            raise ConfigError(f"within must be above 0 and at most 3600 s, not {within:g}")
        if self._wake is not None:
            raise ConfigError("digits() is waiting already: let one call of it end first")
        oldest = self._clock.now() - TYPE_AHEAD_S
        while self._waiting and self._waiting[0][0] < oldest:
            self._waiting.popleft()
        digits = ""
        while len(digits) < max_digits:
            if not self._waiting and not await self._wait(within):
                break
            digit = self._waiting.popleft()[1]
            if digit in end:
                break
            digits += digit
        return digits

    async def _wait(self, seconds: float) -> bool:
        """Wait for the next key; return False after ``seconds`` without one."""
        pressed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not pressed.done():
                pressed.set_result(None)

        timer = self._clock.call_at(self._clock.now() + seconds, wake)
        self._wake = wake
        try:
            await pressed
        finally:
            self._wake = None
            timer.cancel()
        return bool(self._waiting)
