from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from duologue.video import FrameSampler, VideoFrame


def test_a_frame_knows_its_size():
    frame = VideoFrame(np.zeros((480, 640, 3), np.uint8), 1.5)
    assert (frame.width, frame.height, frame.at) == (640, 480, 1.5)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
    ],
)
def test_a_frame_refuses_what_is_not_rgb(pixels):
    with pytest.raises(ValueError, match="uint8 RGB"):
        VideoFrame(pixels, 0.0)


@given(
    st.sampled_from([0.5, 1.0, 2.0, 10.0]),
    st.lists(st.floats(0.001, 3.0), min_size=1, max_size=200),
)
def test_no_more_pictures_than_wanted(fps, gaps):
    sampler, times, now = FrameSampler(fps), [], 0.0
    for gap in gaps:
        now += gap
        if sampler.wants(now):
            times.append(now)
    assert sampler.passed == len(times)
    assert sampler.skipped == len(gaps) - len(times)
    assert len(times) <= (now - gaps[0]) * fps + 1.0001 + 0.5
    assert all(b - a >= 0.499 / fps for a, b in pairwise(times))


@pytest.mark.parametrize("camera", [30, 29.97, 15, 7])
def test_a_steady_camera_gives_steady_pictures(camera):
    sampler = FrameSampler(2)
    times = [i / camera for i in range(int(20 * camera)) if sampler.wants(i / camera)]
    assert len(times) == pytest.approx(40, abs=1)
    assert max(np.diff(times)) <= 0.5 + 1 / camera + 1e-9


def test_the_first_picture_is_taken_and_the_second_waits():
    sampler = FrameSampler(1)
    assert sampler.wants(10.0)
    assert not sampler.wants(10.6)
    assert sampler.wants(11.0)


@pytest.mark.parametrize("fps", [0, -1])
def test_a_rate_of_nothing_is_refused(fps):
    with pytest.raises(ValueError, match="above 0"):
        FrameSampler(fps)
