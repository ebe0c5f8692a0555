import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue import AudioFrame
from duologue.vad.preroll import Preroll

RATE = 16000


def joined(frames):
    return np.concatenate([f.samples for f in frames]) if frames else np.zeros(0, np.int16)


@given(
    sizes=st.lists(st.integers(1, 900), max_size=60),
    kept=st.floats(0.0, 1.0),
    taken=st.floats(0.0, 1.0),
)
def test_take_returns_the_newest_audio_to_the_sample(sizes, kept, taken):
    audio = np.arange(sum(sizes)).astype(np.int16)
    preroll = Preroll(kept)
    at = 0
    for size in sizes:
        preroll.push(AudioFrame(audio[at : at + size], RATE))
        at += size
    got = joined(preroll.take(min(taken, kept)))
    wanted = min(len(audio), round(min(taken, kept) * RATE))
    assert np.array_equal(got, audio[len(audio) - wanted :])
    assert preroll.take(1.0) == []


@pytest.mark.parametrize("size", [1, 320, 5000])
def test_preroll_keeps_no_more_than_it_needs(size):
    preroll = Preroll(0.5)
    for _ in range(10 * RATE // size):
        preroll.push(AudioFrame(np.zeros(size, np.int16), RATE))
    assert 8000 <= len(joined(preroll.take(100.0))) < 8000 + size
