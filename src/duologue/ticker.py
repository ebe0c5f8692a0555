"""The one output clock: all audio for a person leaves on its 20 ms ticks."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

from duologue.audio import FRAME_MS
from duologue.clock import Clock, LoopClock, Timer

logger = logging.getLogger(__name__)

PERIOD_S = FRAME_MS / 1000
"""Time between two ticks, in seconds."""

MAX_CATCH_UP = 5
"""Missed ticks that follow at once after a stall; the others of a longer stall are skipped."""

SLICE_S = 0.003
"""Seconds after which a tick lets the event loop do other work before its next subscriber."""

# Seconds by which a loop may fire a timer early: its clock's resolution.
_EARLY_S = 0.0005


class Subscription:
    """One place on a `Ticker`, until `cancel`."""

    __slots__ = ("_callback", "_ticker", "failures")

    def __init__(self, ticker: Ticker, callback: Callable[[float], None]) -> None:
        self._ticker: Ticker | None = ticker
        self._callback = callback
        self.failures = 0

    @property
    def active(self) -> bool:
        """Whether it is still called."""
        return self._ticker is not None

    def cancel(self) -> None:
        """End it: it is not called again, not even by a running tick. Idempotent."""
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker._remove(self)

    def _call(self, when: float) -> None:
        if self._ticker is None:
            return
        try:
            self._callback(when)
        except Exception:
            self.failures += 1
            if self.failures == 1:
                logger.exception("an output clock subscriber failed; it is still called")


class Ticker:
    """Calls its subscribers every 20 ms, in the order of subscription; runs only while it has any.

    Ticks lie on a grid that starts with the first subscriber, so lateness never adds up. After a
    stall at most `MAX_CATCH_UP` missed ticks follow at once, each with its own time; ``skipped``
    counts the others. A tick of many subscribers is cut into slices of `SLICE_S`, so that the loop
    stays free. The first error of a subscriber is logged, all are counted in its ``failures``, and
    none affects another subscriber.
    """

    __slots__ = (
        "_clock",
        "_index",
        "_last",
        "_next_index",
        "_remaining",
        "_start",
        "_subscribers",
        "_ticking",
        "_timer",
        "_when",
        "skipped",
        "ticks",
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._subscribers: tuple[Subscription, ...] = ()
        self._timer: Timer | None = None
        self._start = 0.0
        self._index = 0
        self._last = 0
        self._next_index = 0
        self._when = 0.0
        self._remaining: list[Subscription] = []
        self._ticking = False
        self.ticks = 0
        self.skipped = 0

    def __len__(self) -> int:
        """Return the number of subscribers."""
        return len(self._subscribers)

    def subscribe(self, callback: Callable[[float], None]) -> Subscription:
        """Call ``callback`` at every tick with the time of that tick, in clock seconds.

        The first tick comes within 20 ms. Must be called on the event loop.
        """
        subscription = Subscription(self, callback)
        self._subscribers = (*self._subscribers, subscription)
        if self._timer is None and not self._ticking:
            self._start = self._clock.now()
            self._index = 1
            self._arm()
        return subscription

    def _remove(self, subscription: Subscription) -> None:
        self._subscribers = tuple(s for s in self._subscribers if s is not subscription)
        if not self._subscribers and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._remaining.clear()

    def _arm(self) -> None:
        self._timer = self._clock.call_at(self._start + self._index * PERIOD_S, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._ticking = True
        begin = self._clock.now()
        if not self._remaining:
            due = math.floor((begin - self._start + _EARLY_S) / PERIOD_S)
            self._last = min(due, self._index + MAX_CATCH_UP)
            self.skipped += max(0, due - self._last)
            self._next_index = due + 1
        while True:
            while self._remaining:
                self._remaining.pop()._call(self._when)
                if self._remaining and self._clock.now() - begin > SLICE_S:
                    self._ticking = False
                    self._timer = self._clock.call_at(begin, self._wake)
                    return
            if self._index > self._last or not self._subscribers:
                break
            self._when = self._start + self._index * PERIOD_S
            self._index += 1
            self.ticks += 1
            self._remaining = list(reversed(self._subscribers))
        self._index = max(self._index, self._next_index)
        self._ticking = False
        if self._subscribers:
            self._arm()


_tickers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, Ticker]] = WeakKeyDictionary()


def ticker_for(clock: Clock) -> Ticker:
    """Return the ticker of that clock on the running event loop; every `LoopClock` shares one.

    Raises:
        RuntimeError: no event loop is running.
    """
    tickers = _tickers.setdefault(asyncio.get_running_loop(), {})
    key: object = LoopClock if isinstance(clock, LoopClock) else id(clock)
    ticker = tickers.get(key)
    if ticker is None:
        # Drop idle tickers of other clocks, so that short-lived clocks do not pile up.
        for idle in [k for k, t in tickers.items() if not len(t)]:
            del tickers[idle]
        ticker = tickers[key] = Ticker(clock)
    return ticker
