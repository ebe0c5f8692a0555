"""Where a supervisor sends connections, and who may admit a call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.server._fleet import (
    FIRST_DELAY_S,
    HEALTHY_S,
    MAX_DELAY_S,
    SILENT_S,
    Fleet,
    RestartDelay,
)


class Time:
    """A clock that stands still."""

    now = 100.0


def fleet(workers: int = 3, *, limit: int = 10, bound: float | None = 20.0) -> Fleet:
    made = Fleet(limit, bound, lambda: Time.now)
    for number in range(1, workers + 1):
        made.add(number, 1000 + number, number)
        made.workers[number].ready = True
    return made


def report(**changes: float) -> dict:
    return {"received": 0, "connections": 0, "tick_delay_ms": 0.0, "refused": 0} | changes


def hand_over(made: Fleet) -> int:
    number = made.choose()
    assert number is not None
    made.workers[number].handed_over += 1
    return number


def test_connections_are_spread_before_a_worker_has_reported_any():
    made = fleet()
    assert sorted(hand_over(made) for _ in range(6)) == [1, 1, 2, 2, 3, 3]


def test_a_connection_goes_to_the_worker_with_the_fewest():
    made = fleet()
    for _ in range(9):
        hand_over(made)
    made.report(1, report(received=3, connections=3))
    made.report(2, report(received=3, connections=1))
    made.report(3, report(received=3, connections=3))
    assert [hand_over(made), hand_over(made)] == [2, 2]


def test_a_call_without_a_connection_counts():
    made = fleet(2)
    made.admit(1, 7)
    assert hand_over(made) == 2


def test_a_worker_whose_ticks_are_late_comes_last():
    made = fleet(2)
    made.report(1, report(tick_delay_ms=30))
    made.workers[2].handed_over = 5
    assert made.choose() == 2
    made.report(2, report(tick_delay_ms=25, received=5))
    made.workers[2].handed_over = 6
    assert made.choose() == 1
    assert fleet(2, bound=None).choose() == 1


def test_a_worker_that_has_fallen_silent_comes_last(monkeypatch):
    made = fleet(2)
    for number in (1, 2):
        made.report(number, report(connections=number))
    assert made.choose() == 1
    monkeypatch.setattr(Time, "now", 100 + SILENT_S + 0.1)
    made.report(2, report(connections=2))
    assert made.choose() == 2
    assert not made.health()["late"]
    unbounded = fleet(2, bound=None)
    unbounded.report(1, report())
    monkeypatch.setattr(Time, "now", 1000.0)
    assert unbounded.choose() == 1


def test_a_caller_whom_a_late_worker_refuses_is_sent_to_one_that_is_on_time():
    made = fleet(2, limit=2)
    made.report(1, report(tick_delay_ms=50))
    assert made.is_elsewhere(1)
    assert not made.is_elsewhere(2)
    made.admit(1, 1)
    made.admit(1, 2)
    assert not made.is_elsewhere(1)
    made.free(1, 1)
    made.report(2, report(tick_delay_ms=50))
    assert not made.is_elsewhere(1)
    assert made.health()["late"] is True


def test_metrics_name_a_worker_by_its_slot():
    made = fleet(2)
    made.admit(2, 1)
    made.report(2, report(tick_delay_ms=4.5))
    made.remove(1)
    made.add(3, 1003, 1)
    made.workers[3].ready = True
    lines = [line for line in made.metrics().splitlines() if not line.startswith("#")]
    assert lines == [
        "duologue_workers 2",
        "duologue_workers_ended_total 1",
        'duologue_worker_calls{worker="1"} 0',
        'duologue_worker_calls{worker="2"} 1',
        'duologue_worker_tick_delay_seconds{worker="1"} 0',
        'duologue_worker_tick_delay_seconds{worker="2"} 0.0045',
    ]


def test_nobody_gets_a_connection_before_it_is_ready():
    made = Fleet(10, 20.0, lambda: Time.now)
    made.add(1, 1001, 1)
    assert made.choose() is None
    made.workers[1].ready = True
    assert made.choose() == 1
    assert made.choose(frozenset({1})) is None


def test_places_are_shared():
    made = fleet(2, limit=3)
    assert [made.admit(1, 1), made.admit(2, 1), made.admit(1, 2), made.admit(2, 2)] == [
        True,
        True,
        True,
        False,
    ]
    made.free(1, 1)
    made.free(1, 1)  # such as after an answer that came too late
    made.free(9, 1)
    assert made.calls == 2
    assert made.admit(2, 2)


def test_a_dead_worker_gives_its_places_back():
    made = fleet(2, limit=2)
    made.admit(1, 1)
    made.admit(1, 2)
    made.report(1, report(refused=4))
    assert not made.admit(2, 1)
    assert made.remove(1) == 2
    assert made.admit(2, 1)
    assert not made.admit(1, 3)
    made.report(1, report())
    assert made.health()["refused"] == 4


def test_no_place_is_given_while_draining():
    made = fleet(1)
    made.draining = True
    assert not made.admit(1, 1)
    assert made.health()["status"] == "draining"


def test_health_has_the_sums_and_the_ready_workers():
    made = fleet(2)
    made.add(3, 1003, 3)
    made.admit(1, 1)
    made.report(1, report(tick_delay_ms=4.5, refused=1))
    made.report(2, report(tick_delay_ms=1, refused=2))
    made.report(2, {"received": "x"})
    assert made.health() == {
        "status": "ok",
        "sessions": 1,
        "limit": 10,
        "tick_delay_ms": 4.5,
        "refused": 3,
        "late": False,
        "workers": [
            {"pid": 1001, "sessions": 1, "tick_delay_ms": 4.5},
            {"pid": 1002, "sessions": 0, "tick_delay_ms": 1.0},
        ],
    }


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9), st.booleans())))
def test_there_are_never_more_calls_than_places(steps):
    made = fleet(3, limit=4)
    for number, place, taken in steps:
        if taken:
            made.admit(number, place)
        else:
            made.free(number, place)
        assert 0 <= made.calls <= 4


@pytest.mark.parametrize("lived", [0.0, HEALTHY_S - 1])
def test_a_worker_that_dies_young_waits_longer_each_time(lived):
    delay = RestartDelay()
    waits = [delay.after(lived) for _ in range(10)]
    assert waits[:3] == [FIRST_DELAY_S, 2 * FIRST_DELAY_S, 4 * FIRST_DELAY_S]
    assert waits[-1] == MAX_DELAY_S
    assert delay.after(HEALTHY_S) == FIRST_DELAY_S
