"""`StereoTimeline` alone: where samples land, whatever the order and time of arrival."""

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.observe._stereo_timeline import StereoTimeline

RATE = 24000


def frame(level, seconds=0.02, rate=RATE):
    return AudioFrame(np.full(round(seconds * rate), level, np.int16), rate)


def onsets(track, threshold=500):
    """Return when the track becomes loud, in seconds."""
    is_loud = np.abs(track.astype(int)) > threshold
    return np.flatnonzero(is_loud & ~np.concatenate(([False], is_loud[:-1]))) / RATE


def test_late_frames_that_come_in_a_burst_are_not_torn_apart():
    timeline = StereoTimeline(RATE, 0.0)
    now = 0.0
    for index in range(100):
        now = (index + 1) * 0.02
        # Frames 30 to 44 arrive together, 0.3 s late.
        arrives = 0.9 if 30 <= index < 45 else now
        timeline.add_person(frame(1000 if index >= 30 else 0), arrives)
    both = timeline.take(now)
    assert onsets(both[:, 0]) == pytest.approx([0.6], abs=0.001)
    assert len(both) == 2 * RATE


def test_audio_that_is_missing_becomes_silence_within_a_second():
    timeline = StereoTimeline(RATE, 0.0)
    for index in range(300):
        if not 100 <= index < 125:  # half a second is lost
            timeline.add_person(frame(1000 if index == 290 else 0), (index + 1) * 0.02)
    assert onsets(timeline.take(6.0)[:, 0]) == pytest.approx([5.8], abs=0.02)


def test_a_fast_clock_of_the_person_does_not_add_up():
    timeline = StereoTimeline(RATE, 0.0)
    for index in range(3000):
        # Ten frames in a thousand more than there should be: 1 %.
        timeline.add_person(frame(1000 if index == 2990 else 0), (index + 1) * 0.0198)
    assert onsets(timeline.take(60.0)[:, 0]) == pytest.approx([2990 * 0.0198], abs=0.04)


def test_the_person_may_begin_late_and_change_the_rate():
    timeline = StereoTimeline(RATE, 10.0)
    timeline.add_person(frame(1000, 0.1, 16000), 12.1)
    timeline.add_person(frame(1000, 0.1, 8000), 12.2)
    person = timeline.take(13.0)[:, 0]
    assert onsets(person)[0] == pytest.approx(2.0, abs=0.002)
    assert np.count_nonzero(np.abs(person) > 500) == pytest.approx(0.2 * RATE, rel=0.05)


def test_the_agent_lies_where_it_is_played_and_gaps_stay():
    timeline = StereoTimeline(RATE, 0.0)
    timeline.add_agent(frame(1000, 0.5, 48000), 1.0)
    timeline.add_agent(frame(1000, 0.5, 48000), 1.5)
    timeline.add_agent(frame(1000, 0.5, 48000), 3.0)
    agent = timeline.take(4.0)[:, 1]
    assert onsets(agent) == pytest.approx([1.0, 3.0], abs=0.005)


def test_cleared_audio_is_not_recorded_but_what_was_taken_stays():
    timeline = StereoTimeline(RATE, 0.0)
    timeline.add_agent(frame(1000, 2.0), 1.0)
    first = timeline.take(1.5)
    timeline.clear_agent(1.2)  # too late for what was taken
    assert np.count_nonzero(first[:, 1]) == 0.5 * RATE
    assert not np.any(timeline.take(3.0))


def test_muted_is_silence_of_the_same_length():
    timeline = StereoTimeline(RATE, 0.0)
    timeline.muted = True
    timeline.add_person(frame(1000, 1.0), 1.0)
    timeline.add_agent(frame(1000, 1.0), 0.0)
    timeline.muted = False
    timeline.add_person(frame(1000, 1.0), 2.0)
    both = timeline.take(2.0)
    assert onsets(both[:, 0]) == pytest.approx([1.0], abs=0.001)
    assert not np.any(both[:, 1])


def test_nothing_is_taken_twice():
    timeline = StereoTimeline(RATE, 0.0)
    assert timeline.take(1.0).shape == (RATE, 2)
    assert timeline.take(0.5).shape == (0, 2)
    timeline.add_person(frame(1000, 0.5), 1.0)  # late, so it comes after what was taken
    assert onsets(timeline.take(2.0)[:, 0]) == pytest.approx([0.0])
