"""Time, injected: the core asks a `Clock` and never the system (contract C9)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A callback that was asked for and may be cancelled."""

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run."""


class Clock(Protocol):
    """Monotonic seconds, waiting, and callbacks at a time."""

    def now(self) -> float:
        """Seconds, monotonic; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` from the event loop once `now` has reached ``when``."""
        ...


class LoopClock:
    """The running event loop's own time; virtual when the loop's time is."""

    __slots__ = ()

    def now(self) -> float:
        """Seconds of the running loop."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds of loop time."""
        await asyncio.sleep(seconds)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back at that loop time."""
        return asyncio.get_running_loop().call_at(when, callback)
