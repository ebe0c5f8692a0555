"""Time comes from a `Clock` that is passed in, never from the system (contract C9)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A scheduled callback."""

    def cancel(self) -> None:
        """Drop the callback; harmless after it has run."""


class Clock(Protocol):
    """Monotonic time, waiting, and callbacks at a given time."""

    def now(self) -> float:
        """Return monotonic seconds; only differences of them are meaningful."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` from the event loop once `now` has reached ``when``."""
        ...


class LoopClock:
    """The running event loop's own time; virtual if the loop's time is."""

    __slots__ = ()

    def now(self) -> float:
        """Return the seconds of the running loop."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds of loop time."""
        await asyncio.sleep(seconds)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` at that loop time."""
        return asyncio.get_running_loop().call_at(when, callback)
