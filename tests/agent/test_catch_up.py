"""What is late is made good only as far as it waits, and only from a source at speech's pace."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from duologue.agent._catch_up import CatchUp, SourcePace


def arrive(pace, pieces, *, start=0.0, total=0.0, lead_s=0.0):
    """Let pieces of (interval, seconds) arrive; return when, and how much in all."""
    now = start
    for interval, seconds in pieces:
        now += interval
        total += seconds
        pace.received(now, seconds, total, lead_s)
    return now, total


def observe(catch_up, start, seconds, waiting_s, piece_s=0.02):
    """Observe what waits at every tick of some seconds."""
    now = start
    while now < start + seconds:
        now += 0.02
        catch_up.observe(now, waiting_s, piece_s)
    return now


@pytest.mark.parametrize(("interval", "seconds"), [(0.02, 0.02), (0.1, 0.1), (0.5, 0.5)])
def test_audio_at_the_pace_of_speech_is_steady_after_two_seconds(interval, seconds):
    pace = SourcePace()
    now, total = arrive(pace, [(interval, seconds)] * int(1.9 / interval))
    assert not pace.steady
    arrive(pace, [(interval, seconds)] * round(1 / interval), start=now, total=total)
    assert pace.steady
    assert pace.max_piece_s == seconds


@pytest.mark.parametrize("speed", [1.1, 1.5, 4, 50])
def test_faster_audio_never_is(speed):
    pace = SourcePace()
    now = total = 0.0
    for _ in range(1500):
        now, total = arrive(pace, [(0.02 / speed, 0.02)], start=now, total=total)
        assert not pace.steady


def test_bursts_with_pauses_between_never_are():
    pace = SourcePace()
    now = total = 0.0
    for _ in range(20):
        for i in range(100):
            total += 0.1
            now += 0.01
            pace.received(now, 0.1, total, i * 0.09)
            assert not pace.steady
        now += 9.0


def test_a_stall_does_not_change_the_pace():
    pace = SourcePace()
    now, total = arrive(pace, [(0.02, 0.02)] * 200)
    assert pace.steady
    now, total = arrive(pace, [(0.5, 0.02)] + [(0.0, 0.02)] * 24, start=now, total=total)
    assert pace.steady
    arrive(pace, [(0.02, 0.02)] * 100, start=now, total=total)
    assert pace.steady


def test_a_source_that_turns_into_a_burst_is_one():
    pace = SourcePace()
    now, total = arrive(pace, [(0.02, 0.02)] * 200)
    assert pace.steady
    arrive(pace, [(0.0, 0.02)] * 10, start=now, total=total)
    assert not pace.steady


def test_a_gap_is_made_good_as_far_as_audio_waits():
    catch_up = CatchUp()
    catch_up.gap(10.0, 0.5)
    assert (catch_up.late_s, catch_up.allowed_s) == (0.5, 0.0)
    now = observe(catch_up, 10.0, 0.2, 0.5)
    assert catch_up.allowed_s == 0.0
    now = observe(catch_up, now, 0.2, 0.5)
    assert catch_up.allowed_s == pytest.approx(0.49)
    catch_up.caught_up(0.1)
    assert catch_up.late_s == pytest.approx(0.4)
    assert catch_up.allowed_s == pytest.approx(0.39)
    now = observe(catch_up, now, 0.5, 0.25)  # less waits, because audio comes later now
    assert catch_up.allowed_s == pytest.approx(0.24)
    catch_up.caught_up(0.235)
    assert catch_up.allowed_s == 0.0


def test_a_lead_of_the_source_is_not_used_up():
    catch_up = CatchUp()
    catch_up.gap(10.0, 0.2)
    now = observe(catch_up, 10.0, 1.0, 3.0)
    assert catch_up.allowed_s == pytest.approx(0.2)
    catch_up.caught_up(0.2)
    observe(catch_up, now, 10.0, 2.8)
    assert catch_up.allowed_s == 0.0


def test_the_least_of_a_whole_piece_counts():
    catch_up = CatchUp()
    catch_up.gap(10.0, 1.0)
    now = 10.0
    for _ in range(4):  # a piece of a second every second, with nothing to spare
        for i in range(50):
            now += 0.02
            catch_up.observe(now, 1.0 - i * 0.02, 1.0)
            assert catch_up.allowed_s == 0.0


def test_jitter_is_not_caught_up_with():
    catch_up = CatchUp()
    catch_up.gap(10.0, 0.02)
    observe(catch_up, 10.0, 3.0, 0.5)
    assert catch_up.allowed_s == 0.0


def test_a_pause_of_the_source_is_forgotten():
    catch_up = CatchUp()
    catch_up.gap(10.0, 2.0)
    now = observe(catch_up, 10.0, 4.5, 0.02)
    assert catch_up.late_s == 2.0
    now = observe(catch_up, now, 1.0, 0.02)
    assert catch_up.late_s == pytest.approx(0.01)
    observe(catch_up, now, 5.0, 1.0)
    assert catch_up.allowed_s == 0.0


def test_a_source_that_stalls_often_is_left_alone_more_and_more():
    catch_up = CatchUp()

    def wait_after_gap(now):
        catch_up.gap(now, 0.3)
        waited = 0.0
        while not catch_up.allowed_s:
            observe(catch_up, now + waited, 0.01, 0.3)
            waited += 0.02
        return waited

    first = wait_after_gap(10.0)
    waits = [wait_after_gap(13.0 + 3 * i) for i in range(3)]
    assert first < waits[0] < waits[1] < waits[2]
    catch_up.gap(19.2, 0.1)  # the same stall, in two steps
    assert wait_after_gap(40.0) == pytest.approx(first, abs=0.021)


def test_nothing_is_late_when_nothing_plays():
    catch_up = CatchUp()
    catch_up.gap(10.0, 0.5)
    observe(catch_up, 10.0, 1.0, 0.5)
    catch_up.reset()
    assert (catch_up.late_s, catch_up.allowed_s) == (0.0, 0.0)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["gap", "wait", "skip", "back"]), st.floats(0, 2)), max_size=40
    )
)
def test_never_more_is_allowed_than_is_late_and_waits(steps):
    catch_up = CatchUp()
    now = gaps = saved = 0.0
    for kind, amount in steps:
        if kind == "gap":
            now += amount
            gaps += amount
            catch_up.gap(now, amount)
        elif kind == "wait":
            now = observe(catch_up, now, 0.6, amount)
        elif kind == "skip":
            skipped = min(0.015, catch_up.allowed_s)
            saved += skipped
            catch_up.caught_up(skipped)
        elif saved:
            catch_up.caught_up(-saved / 2)
            saved /= 2
        assert 0.0 <= catch_up.allowed_s <= catch_up.late_s + 1e-9
        assert catch_up.late_s <= gaps - saved + 1e-6
