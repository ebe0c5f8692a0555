"""The caller's audio is put in order, filled and paced."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from duologue.audio import AudioFrame
from duologue.edges._arrivals import MAX_BACKLOG_S, Arrivals, Pacer


def chunk(number, size=160):
    return np.full(size, number, np.int16)


def push(arrivals, *numbers, times=True):
    out = []
    for number in numbers:
        at = (number - 1) * 20 if times else None
        out += arrivals.push(chunk(number), 8000, number, at)
    return [int(frame.samples[0]) for frame in out]


def test_chunks_in_order_pass_at_once():
    assert push(Arrivals(3), 1, 2, 3) == [1, 2, 3]
    assert push(Arrivals(), 1, 2, 3, times=False) == [1, 2, 3]


def test_chunks_out_of_order_wait_for_the_one_before():
    arrivals = Arrivals(3)
    assert push(arrivals, 1, 3) == [1]
    assert push(arrivals, 4) == []
    assert push(arrivals, 2) == [2, 3, 4]
    assert (arrivals.lost, arrivals.late) == (0, 0)


def test_a_lost_chunk_becomes_silence_when_three_have_passed_it():
    arrivals = Arrivals(3)
    assert push(arrivals, 1, 3, 4, 5) == [1]
    assert push(arrivals, 6) == [0, 3, 4, 5, 6]
    assert push(arrivals, 2, 6) == []
    assert (arrivals.lost, arrivals.late) == (1, 2)


def test_without_reordering_numbers_do_not_matter():
    assert push(Arrivals(), 2, 1, times=False) == [2, 1]
    [frame] = Arrivals(3).push(chunk(1), 8000, None, None)
    assert len(frame) == 160


def test_a_gap_is_filled_and_a_pause_is_not():
    arrivals = Arrivals()
    arrivals.push(chunk(1), 8000, 1, 0)
    silence, frame = arrivals.push(chunk(2), 8000, 2, 100)
    assert (len(silence), len(frame), arrivals.lost) == (640, 160, 4)
    assert len(arrivals.push(chunk(3), 8000, 3, 5000)) == 1
    assert len(arrivals.push(chunk(4), 8000, 4, 4000)) == 1
    assert arrivals.lost == 4


@given(st.permutations(range(2, 12)))
def test_whatever_the_order_nothing_comes_twice_or_backwards(numbers):
    passed = push(Arrivals(3), 1, *numbers, *range(12, 20), times=False)
    assert passed == sorted(set(passed))


def frames(count):
    return [AudioFrame(chunk(number), 8000) for number in range(count)]


def test_audio_on_time_passes_at_once():
    pacer = Pacer()
    for tick, frame in enumerate(frames(100)):
        pacer.push(frame)
        assert pacer.take(tick * 0.02) == [frame]
    assert pacer.next_at is None


def test_a_burst_is_passed_on_at_four_times_the_speed_of_speech():
    pacer = Pacer()
    for frame in frames(100):  # two seconds at once
        pacer.push(frame)
    now, passed = 10.0, len(pacer.take(10.0))
    assert passed <= 8
    while (due := pacer.next_at) is not None:
        now = due
        passed += len(pacer.take(now))
    assert passed == 100
    assert 0.4 < now - 10.0 < 0.55


def test_the_backlog_is_bounded():
    pacer = Pacer()
    for frame in frames(600):
        pacer.push(frame)
    assert round(pacer.dropped_s, 3) == 600 * 0.02 - MAX_BACKLOG_S
    assert int(pacer.take(0.0)[0].samples[0]) == 100


def test_many_tiny_frames_do_not_keep_the_agent_busy():
    pacer, passed = Pacer(), 0
    for tick in range(100):
        for _ in range(1000):
            pacer.push(AudioFrame(np.zeros(1, np.int16), 16000))
        passed += len(pacer.take(tick / 100))
    assert passed < 850
    waiting = 0
    while (due := pacer.next_at) is not None:
        waiting += len(pacer.take(due))
    assert waiting <= 2000


def test_frames_of_any_usual_length_pass_as_they_come():
    for samples in (40, 128, 160, 320, 3200):
        pacer = Pacer()
        for number in range(100):
            pacer.push(AudioFrame(np.zeros(samples, np.int16), 16000))
            assert len(pacer.take(number * samples / 16000)) == 1
