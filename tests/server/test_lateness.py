"""The measure by which a server admits calls, without a clock."""

import pytest

from duologue.server._lateness import MIN_TICKS, WINDOW_S, LatenessMonitor

TICK_S = 0.02


def run(monitor: LatenessMonitor, late_ms: list[float], start: float = 0.0) -> float:
    """Record ticks that are as late; return when the last was due."""
    when = start
    for number, late in enumerate(late_ms):
        when = start + number * TICK_S
        monitor.record(when, when + late / 1000)
    return when


def test_it_knows_nothing_before_the_first_tick():
    assert LatenessMonitor().delay_ms(100.0) == 0


def test_a_few_late_ticks_prove_nothing():
    monitor = LatenessMonitor()
    last = run(monitor, [80] * (MIN_TICKS - 1))
    assert monitor.delay_ms(last) == 0
    monitor.record(last + TICK_S, last + TICK_S + 0.08)
    assert monitor.delay_ms(last + TICK_S) == pytest.approx(80)


def test_punctual_ticks_have_no_delay():
    monitor = LatenessMonitor()
    last = run(monitor, [0.3] * 200)
    assert monitor.delay_ms(last) == pytest.approx(0.3)


def test_a_tick_that_runs_early_is_not_counted_as_negative():
    monitor = LatenessMonitor()
    last = run(monitor, [-0.4] * 100)
    assert monitor.delay_ms(last) == 0


def test_the_delay_is_what_a_tenth_of_the_ticks_exceed():
    monitor = LatenessMonitor()
    last = run(monitor, [float(n % 100) for n in range(100)])
    assert monitor.delay_ms(last) == pytest.approx(90)


def test_one_stall_does_not_move_it():
    monitor = LatenessMonitor()
    last = run(monitor, [0] * 100 + [200, 180, 160, 140, 120, 100, 80, 60, 40, 20] + [0] * 40)
    assert monitor.delay_ms(last) < 1


def test_what_is_longer_ago_than_the_window_is_forgotten():
    monitor = LatenessMonitor()
    last = run(monitor, [100] * 150)
    assert monitor.delay_ms(last) == pytest.approx(100)
    last = run(monitor, [1] * 150, start=last + TICK_S)
    assert monitor.delay_ms(last) == pytest.approx(1)


def test_it_forgets_when_the_ticks_have_stopped():
    monitor = LatenessMonitor()
    last = run(monitor, [100] * 150)
    monitor.pause()
    assert monitor.delay_ms(last + 0.1) == pytest.approx(100)
    assert monitor.delay_ms(last + WINDOW_S) == 0


def test_skipped_ticks_are_as_late_as_the_tick_that_followed():
    monitor = LatenessMonitor()
    last = run(monitor, [0] * 100)
    # A second without any: the ticker skips what it cannot catch up with.
    monitor.record(last + 1.0, last + 1.0)
    # Of the 150 ticks in the window 49 were skipped, 980 to 20 ms late: the 15th of them.
    assert monitor.delay_ms(last + 1.0) == pytest.approx(680, abs=21)


def test_a_tick_that_has_not_run_yet_is_as_late_as_it_is_overdue():
    monitor = LatenessMonitor()
    last = run(monitor, [0] * 100)
    assert monitor.delay_ms(last + 0.02) == 0
    assert monitor.delay_ms(last + 1.0) == pytest.approx(680, abs=21)


def test_a_tick_that_is_not_due_yet_is_not_missing():
    monitor = LatenessMonitor()
    last = run(monitor, [0] * 100)
    assert monitor.delay_ms(last + 0.005) == 0


def test_a_stall_longer_than_the_window_counts_for_the_window_only():
    monitor = LatenessMonitor()
    last = run(monitor, [0] * 100)
    monitor.record(last + 3600.0, last + 3600.0)
    assert monitor.delay_ms(last + 3600.0) == pytest.approx(WINDOW_S * 900, rel=0.02)


def test_ticks_that_begin_again_have_missed_none():
    monitor = LatenessMonitor()
    last = run(monitor, [0] * 100)
    monitor.pause()
    last = run(monitor, [0] * 60, start=last + 60)
    assert monitor.delay_ms(last) == 0
