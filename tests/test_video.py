from io import BytesIO
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from duologue.video import FrameSampler, SceneChangeDetector, VideoFrame, encode_jpeg


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
def test_a_frame_refuses_all_but_rgb(pixels):
    with pytest.raises(ValueError, match="uint8 RGB"):
        VideoFrame(pixels, 0.0)


@given(
    st.sampled_from([0.5, 1.0, 2.0, 10.0]),
    st.lists(st.floats(0.001, 3.0), min_size=1, max_size=200),
)
def test_no_more_images_than_wanted(fps, gaps):
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
def test_a_steady_camera_gives_steady_images(camera):
    sampler = FrameSampler(2)
    times = [i / camera for i in range(int(20 * camera)) if sampler.wants(i / camera)]
    assert len(times) == pytest.approx(40, abs=1)
    assert max(np.diff(times)) <= 0.5 + 1 / camera + 1e-9


def test_the_first_image_is_taken_and_the_second_waits():
    sampler = FrameSampler(1)
    assert sampler.wants(10.0)
    assert not sampler.wants(10.6)
    assert sampler.wants(11.0)


@pytest.mark.parametrize("fps", [0, -1])
def test_a_rate_of_zero_is_refused(fps):
    with pytest.raises(ValueError, match="above 0"):
        FrameSampler(fps)


# Scene changes


def picture(light, size=(72, 128)):
    return VideoFrame(np.full((*size, 3), light, np.uint8), 0.0)


def test_the_first_image_is_new_and_the_same_again_is_not():
    scene = SceneChangeDetector()
    assert scene.has_changed(picture(90), 0.0)
    assert not scene.has_changed(picture(90), 1.0)
    scene.reset()
    assert scene.has_changed(picture(90), 2.0)


def test_after_ten_seconds_any_image_is_new():
    scene = SceneChangeDetector()
    times = [at for at in range(35) if scene.has_changed(picture(90), float(at))]
    assert times == [0, 10, 20, 30]
    scene = SceneChangeDetector(key_every_s=3.0)
    times = [at / 10 for at in range(100) if scene.has_changed(picture(90), at / 10)]
    assert times == [0.0, 3.0, 6.0, 9.0]


def test_a_new_image_postpones_the_next_key_image():
    scene = SceneChangeDetector()
    news = [at for at in range(25) if scene.has_changed(picture(90 if at < 6 else 200), float(at))]
    assert news == [0, 6, 16]


@pytest.mark.parametrize(("step", "news"), [(1.9, False), (2.1, True)])
def test_the_whole_image_may_grow_a_little_lighter(step, news):
    scene = SceneChangeDetector()
    pixels = np.full((64, 64, 3), 90, np.uint8)
    scene.has_changed(VideoFrame(pixels, 0.0), 0.0)
    # Some points by ten, so that the mean of all grows by the threshold.
    flat = pixels.copy()
    chosen = np.random.default_rng(1).permutation(64 * 64)[: round(64 * 64 * step / 10)]
    flat.reshape(-1, 3)[chosen] += 10
    assert scene.has_changed(VideoFrame(flat, 1.0), 1.0) is news


@pytest.mark.parametrize(("light", "news"), [(100, False), (104, True), (76, True)])
def test_a_hand_in_the_corner_is_new_where_it_can_be_seen(light, news):
    scene = SceneChangeDetector()
    pixels = np.full((640, 640, 3), 90, np.uint8)
    scene.has_changed(VideoFrame(pixels, 0.0), 0.0)
    pixels = pixels.copy()
    pixels[:40, :40] = light  # One field of 256.
    assert scene.has_changed(VideoFrame(pixels, 1.0), 1.0) is news


def test_an_image_is_compared_with_the_last_new_one():
    """A slow change adds up."""
    scene = SceneChangeDetector()
    news = [light for light in range(90, 110) if scene.has_changed(picture(light), 0.0)]
    assert news == [90, 92, 94, 96, 98, 100, 102, 104, 106, 108]


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255), (0, 40, 0)])
def test_a_light_that_goes_out_is_new(colour):
    scene = SceneChangeDetector()
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:] = colour
    scene.has_changed(VideoFrame(pixels, 0.0), 0.0)
    assert scene.has_changed(picture(0, (64, 64)), 1.0)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (16, 16), (17, 31), (1080, 1920)])
def test_images_of_any_size_are_compared(size):
    scene = SceneChangeDetector()
    assert scene.has_changed(picture(90, size), 0.0)
    assert not scene.has_changed(picture(91, size), 1.0)
    assert scene.has_changed(picture(120, size), 2.0)


def test_a_camera_that_is_turned_shows_something_new():
    scene = SceneChangeDetector()
    scene.has_changed(picture(90, (720, 1280)), 0.0)
    assert scene.has_changed(picture(90, (8, 1280)), 1.0)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255), st.integers(0, 255))
@example(1, 2, 213, 215)  # Their difference in float32 is 1.99998.
def test_images_of_one_colour_differ_by_their_brightness(height, width, first, second):
    scene = SceneChangeDetector()
    scene.has_changed(picture(first, (height, width)), 0.0)
    assert scene.has_changed(picture(second, (height, width)), 1.0) is (abs(first - second) >= 2)


def test_a_jpeg_is_not_larger_than_asked_and_never_enlarged():
    image = pytest.importorskip("PIL.Image", reason="needs duologue[video]")
    frame = VideoFrame(np.zeros((300, 600, 3), np.uint8), 0.0)
    for max_side, size in ((200, (200, 100)), (4000, (600, 300))):
        with image.open(BytesIO(encode_jpeg(frame, max_side=max_side))) as made:
            assert (made.format, made.size) == ("JPEG", size)
