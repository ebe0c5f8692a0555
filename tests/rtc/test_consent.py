"""Monitoring a silent connection, in virtual time."""

from __future__ import annotations

import pytest

from duologue.clock import LoopClock
from duologue.rtc._consent import ConsentMonitor
from duologue.testing import run_virtual


@pytest.mark.parametrize("phase", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
def test_silence_is_noticed_within_three_seconds_and_fails_after_ten(phase: float) -> None:
    changes: list[tuple[float, bool]] = []

    async def scene() -> None:
        clock = LoopClock()
        start = clock.now()
        dies = start + 5 + phase

        async def check() -> bool:
            if clock.now() < dies:
                return True
            await clock.sleep(0.5)
            return False

        monitor = ConsentMonitor(
            clock,
            interrupted_after=3.0,
            failed_after=10.0,
            last_packet=lambda: min(clock.now(), dies),
            on_change=lambda there: changes.append((clock.now() - dies, there)),
        )
        silent = await monitor.run(check, lambda: True)
        assert 10 <= silent <= 11.1

    run_virtual(scene())
    assert [there for _, there in changes] == [False]
    assert 1.7 < changes[0][0] <= 3.0


def test_a_connection_with_single_missing_responses_is_not_silent() -> None:
    changes: list[bool] = []

    async def scene() -> None:
        clock = LoopClock()
        start = clock.now()
        checks = 0

        async def check() -> bool:
            nonlocal checks
            checks += 1
            if checks % 2:
                return True
            await clock.sleep(0.5)
            return False

        monitor = ConsentMonitor(
            clock,
            interrupted_after=3.0,
            failed_after=10.0,
            last_packet=lambda: float("-inf"),
            on_change=changes.append,
        )
        await monitor.run(check, lambda: clock.now() - start < 60)

    run_virtual(scene())
    assert changes == []
