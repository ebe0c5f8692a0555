"""The output clock does not drift, catches up within a bound, and isolates a failing subscriber."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.clock import LoopClock
from duologue.ticker import MAX_CATCH_UP, PERIOD_S, Ticker, ticker_for


class _Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class HandClock:
    """Moves only when told to; fires due timers once per move, as a loop does after a stall."""

    def __init__(self) -> None:
        self.time = 100.0
        self._heap: list[tuple[float, int, _Timer]] = []
        self._count = itertools.count()

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def call_at(self, when: float, callback: Callable[[], None]) -> _Timer:
        timer = _Timer(callback)
        heapq.heappush(self._heap, (when, next(self._count), timer))
        return timer

    @property
    def pending(self) -> int:
        return sum(timer.callback is not None for _, _, timer in self._heap)

    def advance(self, seconds: float) -> None:
        self.time += seconds
        due = []
        while self._heap and self._heap[0][0] <= self.time + 1e-9:
            due.append(heapq.heappop(self._heap)[2])
        for timer in due:
            if timer.callback is not None:
                timer.callback()


def test_ticks_lie_on_a_grid_and_lateness_never_adds_up() -> None:
    clock = HandClock()
    times: list[float] = []
    Ticker(clock).subscribe(times.append)
    for _ in range(200):
        clock.advance(0.021)  # every wake-up is late
    assert times == pytest.approx([100 + PERIOD_S * (i + 1) for i in range(210)], abs=1e-6)


def test_a_stall_is_caught_up_with_by_a_few_ticks_and_the_grid_is_kept() -> None:
    clock = HandClock()
    times: list[float] = []
    ticker = Ticker(clock)
    ticker.subscribe(times.append)
    clock.advance(0.02)
    clock.advance(1.0)
    assert len(times) == 1 + 1 + MAX_CATCH_UP
    assert ticker.skipped == 50 - 1 - MAX_CATCH_UP
    clock.advance(0.02)
    assert times[-1] == pytest.approx(101.04)


@given(st.lists(st.floats(0.001, 0.5), max_size=60))
def test_every_tick_is_called_or_counted_as_skipped(moves: list[float]) -> None:
    clock = HandClock()
    times: list[float] = []
    ticker = Ticker(clock)
    ticker.subscribe(times.append)
    for move in moves:
        before = len(times)
        clock.advance(move)
        assert len(times) - before <= MAX_CATCH_UP + 1
    assert times == sorted(set(times))
    assert abs(len(times) + ticker.skipped - (clock.time - 100) / PERIOD_S) <= 1
    assert clock.pending == 1


def test_a_tick_of_many_subscribers_lets_others_run_and_still_calls_each_once() -> None:
    clock = HandClock()
    ticker = Ticker(clock)
    called: list[tuple[int, float]] = []

    def busy(n: int) -> Callable[[float], None]:
        def callback(when: float) -> None:
            called.append((n, when))
            clock.time += 0.0011

        return callback

    subscriptions = [ticker.subscribe(busy(n)) for n in range(10)]
    clock.advance(0.02)
    assert len(called) == 3
    subscriptions[9].cancel()
    for _ in range(10):
        clock.advance(0)
    assert [n for n, _ in called] == list(range(9))
    assert {when for _, when in called} == {100.02}
    clock.advance(0.04 - 0.0099 - 0.02)
    clock.advance(0)
    clock.advance(0)
    assert [n for n, _ in called[9:]] == list(range(9))
    assert clock.pending == 1
    assert ticker.skipped == 0


def test_a_failing_subscriber_is_logged_once_and_affects_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = HandClock()
    ticker = Ticker(clock)
    times: list[float] = []

    def fail(_: float) -> None:
        raise ValueError("broken")

    bad = ticker.subscribe(fail)
    ticker.subscribe(times.append)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            clock.advance(0.02)
    assert len(times) == 5
    assert bad.failures == 5
    assert len(caplog.records) == 1


def test_cancelling_during_a_tick_works_at_once_and_the_last_one_stops_the_timer() -> None:
    clock = HandClock()
    ticker = Ticker(clock)
    called: list[str] = []

    def first(_: float) -> None:
        called.append("first")
        second.cancel()

    one = ticker.subscribe(first)
    second = ticker.subscribe(lambda _: called.append("second"))
    clock.advance(0.02)
    assert called == ["first"]
    assert not second.active
    one.cancel()
    one.cancel()
    assert len(ticker) == 0
    assert clock.pending == 0
    clock.advance(1)
    assert called == ["first"]


def test_subscribing_again_from_inside_the_last_tick_continues_the_ticks() -> None:
    clock = HandClock()
    ticker = Ticker(clock)
    times: list[float] = []

    def swap(_: float) -> None:
        old.cancel()
        ticker.subscribe(times.append)

    old = ticker.subscribe(swap)
    for _ in range(10):
        clock.advance(0.02)
    assert len(times) == 9
    assert clock.pending == 1


async def test_all_loop_clocks_share_one_ticker_on_a_loop() -> None:
    ticker = ticker_for(LoopClock())
    assert ticker_for(LoopClock()) is ticker
    hand = HandClock()
    assert ticker_for(hand) is ticker_for(hand)
    assert ticker_for(hand) is not ticker
    times: list[float] = []
    subscription = ticker_for(LoopClock()).subscribe(times.append)
    await asyncio.sleep(0.11)
    subscription.cancel()
    assert 4 <= len(times) <= 6
