"""The jitter buffer: order, duplicates, counters, bounds and deadlines."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.rtc.jitter import (
    GAP_DEADLINE,
    MAX_CONCEALED,
    MAX_HELD,
    MAX_SILENCE,
    Conceal,
    Fec,
    JitterBuffer,
    Packet,
    Silence,
    Step,
)

SPAN = 960


def length(payload: bytes) -> int:
    return SPAN


def seq(i: int, base: int = 65500) -> int:
    return (base + i) & 0xFFFF


def stamp(i: int, base: int = 0xFFFFF000) -> int:
    return (base + i * SPAN) & 0xFFFFFFFF


def name(i: int) -> bytes:
    return i.to_bytes(4, "big")


def feed(buffer: JitterBuffer, i: int, now: float) -> list[Step]:
    return buffer.push(seq(i), stamp(i), name(i), now)


def given_out(steps: Sequence[Step]) -> list[int]:
    return [int.from_bytes(s.payload, "big") for s in steps if isinstance(s, Packet)]


def total(steps: Sequence[Step]) -> int:
    return sum(SPAN if isinstance(s, Packet) else s.samples for s in steps)


def test_no_packet_is_held_in_order_across_the_wraps() -> None:
    buffer = JitterBuffer(length)
    for i in range(200):
        assert given_out(feed(buffer, i, i * 0.02)) == [i]
        assert buffer.deadline is None
    assert buffer.lost == 0


def test_a_swapped_pair_is_released_in_order_at_once() -> None:
    buffer = JitterBuffer(length)
    feed(buffer, 0, 0.0)
    assert feed(buffer, 2, 0.02) == []
    assert buffer.deadline == pytest.approx(0.02 + GAP_DEADLINE)
    steps = feed(buffer, 1, 0.03)
    assert given_out(steps) == [1, 2]
    assert total(steps) == 2 * SPAN
    assert buffer.deadline is None


def test_one_lost_packet_is_recovered_from_the_next_after_the_deadline() -> None:
    buffer = JitterBuffer(length)
    feed(buffer, 0, 0.0)
    assert feed(buffer, 2, 0.02) == []
    assert buffer.poll(0.059) == []
    assert buffer.poll(0.0601) == [Fec(name(2), SPAN), Packet(seq(2), stamp(2), name(2))]
    assert (buffer.lost, buffer.fec) == (1, 1)
    assert feed(buffer, 1, 0.07) == []
    assert buffer.late == 1


def test_a_burst_of_losses_is_concealed_and_the_last_one_recovered() -> None:
    buffer = JitterBuffer(length)
    feed(buffer, 0, 0.0)
    feed(buffer, 4, 0.08)
    steps = buffer.poll(0.2)
    assert steps[:3] == [Conceal(SPAN), Conceal(SPAN), Fec(name(4), SPAN)]
    assert buffer.lost == 3


def test_a_long_gap_ends_in_bounded_silence() -> None:
    buffer = JitterBuffer(length)
    feed(buffer, 0, 0.0)
    feed(buffer, 1000, 20.0)
    steps = buffer.poll(20.1)
    assert sum(isinstance(s, Conceal) for s in steps) == MAX_CONCEALED
    assert [s.samples for s in steps if isinstance(s, Silence)] == [MAX_SILENCE]
    assert given_out(steps) == [1000]
    assert buffer.skipped + total(steps) == 1000 * SPAN


def test_a_pause_without_loss_becomes_silence_of_its_length() -> None:
    buffer = JitterBuffer(length)
    feed(buffer, 0, 0.0)
    steps = buffer.push(seq(1), stamp(21), name(1), 0.42)
    assert steps == [Silence(20 * SPAN), Packet(seq(1), stamp(21), name(1))]
    long = buffer.push(seq(2), stamp(22 + 500), name(2), 10.5)
    assert long[0] == Silence(MAX_SILENCE)
    assert buffer.skipped == 500 * SPAN - MAX_SILENCE


def test_a_new_time_base_inserts_nothing() -> None:
    buffer = JitterBuffer(length)
    feed(buffer, 0, 0.0)
    steps = buffer.push(seq(1), stamp(1) + 100 * 48000 & 0xFFFFFFFF, name(1), 0.02)
    assert [type(s) for s in steps] == [Packet]
    steps = buffer.push(seq(2), stamp(-5), name(2), 0.04)
    assert [type(s) for s in steps] == [Packet]


def test_a_far_jump_needs_two_consecutive_packets() -> None:
    buffer = JitterBuffer(length)
    feed(buffer, 0, 0.0)
    assert feed(buffer, 20000, 0.02) == []
    assert given_out(feed(buffer, 1, 0.03)) == [1]
    assert feed(buffer, 30000, 0.04) == []
    assert buffer.strays == 1
    assert given_out(feed(buffer, 30001, 0.06)) == [30000, 30001]
    assert buffer.resyncs == 1
    assert given_out(feed(buffer, 30002, 0.08)) == [30002]


def test_a_new_source_releases_held_packets_and_restarts() -> None:
    buffer = JitterBuffer(length)
    feed(buffer, 0, 0.0)
    feed(buffer, 2, 0.02)
    assert given_out(buffer.resync()) == [2]
    assert given_out(buffer.push(7, 1, name(9), 0.03)) == [9]
    assert buffer.resyncs == 1


def test_a_full_buffer_gives_up_the_gap_and_drops_nothing() -> None:
    buffer = JitterBuffer(length)
    steps = feed(buffer, 0, 0.0)
    for i in range(2, MAX_HELD + 3):
        steps += feed(buffer, i, 0.001)
        assert len(buffer) <= MAX_HELD
    assert given_out(steps) == [0, *range(2, MAX_HELD + 3)]


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 0.15)), min_size=1, max_size=120),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
)
def test_order_counts_bounds_and_deadlines_hold_under_any_loss_delay_and_duplication(
    fates: list[tuple[bool, bool, float]], first: int, base: int
) -> None:
    arrived: list[tuple[float, int]] = []
    for i, (is_lost, twice, delay) in enumerate(fates):
        if not is_lost:
            arrived.append((i * 0.02 + delay, i))
            if twice:
                arrived.append((i * 0.02 + delay * 2, i))
    arrived.sort()
    buffer = JitterBuffer(length)
    out: list[int] = []
    steps: list[Step] = []
    arrival: dict[int, float] = {}

    def take(new: list[Step], now: float) -> None:
        for i in given_out(new):
            out.append(i)
            # A packet is held no longer than its deadline if `poll` is called in time.
            assert now - arrival[i] <= GAP_DEADLINE + 1e-9
        steps.extend(new)

    for now, i in arrived:
        while (deadline := buffer.deadline) is not None and deadline <= now:
            take(buffer.poll(deadline), deadline)
        arrival.setdefault(i, now)
        take(buffer.push(seq(i, first), stamp(i, base), name(i), now), now)
        assert len(buffer) <= MAX_HELD
    while (deadline := buffer.deadline) is not None:
        take(buffer.poll(deadline), deadline)

    assert out == sorted(set(out))
    assert len(out) == buffer.packets
    assert len(arrived) == buffer.packets + buffer.late + buffer.duplicates + buffer.strays
    if out:
        # Filled and released audio form one unbroken timeline.
        assert total(steps) + buffer.skipped == (out[-1] - out[0] + 1) * SPAN
        assert buffer.lost == out[-1] - out[0] + 1 - len(out)
        last_seen = -1
        for step in steps:
            if isinstance(step, Fec):
                last_seen = int.from_bytes(step.payload, "big")
            elif last_seen >= 0:
                assert isinstance(step, Packet)
                assert given_out([step]) == [last_seen]
                last_seen = -1


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)), max_size=200))
def test_arbitrary_packets_are_survived_and_counted(packets: list[tuple[int, int]]) -> None:
    buffer = JitterBuffer()
    steps: list[Step] = []
    for n, (sequence, timestamp) in enumerate(packets):
        steps += buffer.push(sequence, timestamp, bytes([n & 255, 1]), n * 0.001)
        assert len(buffer) <= MAX_HELD
    steps += buffer.resync()
    given = sum(isinstance(s, Packet) for s in steps)
    assert given == buffer.packets
    assert len(packets) == given + buffer.late + buffer.duplicates + buffer.strays
    assert all(s.samples <= MAX_SILENCE for s in steps if not isinstance(s, Packet))
