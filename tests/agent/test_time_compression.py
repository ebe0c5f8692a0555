"""Audio that is played in less time keeps its words, its pitch and its order, without a click."""

import wave
from itertools import pairwise
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from duologue.agent._time_compression import MAX_SPEED_UP, CompressedFrame, TimeCompressor
from duologue.audio import Resampler

SPEECH = Path(__file__).parents[1] / "data" / "speech"


def speech(rate, name="jfk"):
    with wave.open(str(SPEECH / f"{name}.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    resampler = Resampler(16000, rate)
    return np.concatenate((resampler.push(samples), resampler.flush()))


def tone(frequency, seconds, rate, level=8000):
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(
        np.int16
    )


def shorten(samples, rate, max_skip=10**9):
    """Return the compressed samples, and the frames that were changed."""
    compressor = TimeCompressor(rate)
    out, changed, at = [], [], 0
    while at < len(samples):
        original = samples[at : at + compressor.reach]
        frame = compressor.compress(original, max_skip)
        if frame is None:
            out.append(original[: compressor.size])
            at += compressor.size
        else:
            out.append(frame.samples)
            changed.append(frame)
            at += len(frame.samples) + frame.skipped
    return np.concatenate(out), changed


def loud_share_above(samples, rate, frequency):
    """Return the energy above a frequency as a part of all, for the worst 20 ms."""
    size = rate // 50
    blocks = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 4].astype(float)
    power = np.abs(np.fft.rfft(blocks * np.hanning(size))) ** 2
    high = power[:, np.fft.rfftfreq(size, 1 / rate) > frequency].sum(axis=1)
    return high.max() / power.sum(axis=1).max()


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
@pytest.mark.parametrize("name", ["jfk", "austen-0880", "austen-0930"])
def test_speech_becomes_an_eighth_faster(rate, name):
    samples = speech(rate, name)
    out, changed = shorten(samples, rate)
    assert 1 + MAX_SPEED_UP - 0.01 <= len(samples) / len(out) <= 1 + MAX_SPEED_UP + 0.02
    assert len(samples) == len(out) + sum(frame.skipped for frame in changed)


@pytest.mark.parametrize("name", ["jfk", "austen-0880", "austen-0930"])
def test_no_splice_clicks(name):
    # Speech of 8 kHz has nothing above 4 kHz, and each click would have.
    samples = speech(8000, name)
    up = Resampler(8000, 24000)
    samples = np.concatenate((up.push(samples), up.flush()))
    out, changed = shorten(samples, 24000)
    assert len(changed) > 20
    before = loud_share_above(samples, 24000, 4500)
    assert loud_share_above(out, 24000, 4500) <= 2 * before + 1e-6
    assert np.abs(np.diff(out.astype(int))).max() <= np.abs(np.diff(samples.astype(int))).max()


def test_clicks_would_be_found():
    samples = tone(300, 1, 24000)
    cut = np.concatenate((samples[:12000], samples[12020:]))
    assert loud_share_above(cut, 24000, 4500) > 100 * loud_share_above(samples, 24000, 4500)


@pytest.mark.parametrize("frequency", [90, 133, 210, 395])
def test_pitch_stays(frequency):
    rate = 24000
    out, changed = shorten(tone(frequency, 3, rate), rate)
    assert changed
    spectrum = np.abs(np.fft.rfft(out * np.hanning(len(out))))
    assert np.argmax(spectrum) * rate / len(out) == pytest.approx(frequency, abs=0.5)
    # Whole periods were skipped, so it is still one tone of even loudness.
    loudness = [np.abs(out[i : i + 600]).max() for i in range(0, len(out) - 600, 600)]
    assert min(loudness) > 0.9 * max(loudness)


def test_pauses_are_shortened_more_than_speech_and_keep_their_beginning():
    rate = 16000
    pause = np.random.default_rng(1).integers(-12, 12, rate).astype(np.int16)
    samples = np.concatenate((speech(rate)[:rate], pause, speech(rate)[:rate]))
    out, _ = shorten(samples, rate)
    rest = len(samples) - len(shorten(speech(rate)[:rate], rate)[0]) * 2 - len(pause)
    shortened = len(samples) - len(out) - rest
    assert 0.35 * rate < shortened < 0.5 * rate
    short = np.concatenate((tone(150, 1, rate), np.zeros(rate * 6 // 100, np.int16)))
    silent = shorten(short, rate)[0]
    assert np.count_nonzero(silent[-rate * 6 // 100 :]) == 0


def test_no_more_is_skipped_than_allowed():
    samples = speech(24000)
    _, changed = shorten(samples, 24000, max_skip=100)
    assert changed
    assert max(frame.skipped for frame in changed) <= 100
    assert not shorten(samples, 24000, max_skip=59)[1]  # less than the period of any voice


@settings(deadline=None)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 900),
    max_skip=st.integers(-10, 400),
    loud=st.sampled_from([0, 5, 3000, 32000]),
)
def test_a_frame_says_which_part_of_the_original_it_stands_for(seed, count, max_skip, loud):
    rate = 24000
    noise = np.random.default_rng(seed).integers(-loud, loud + 1, 2 * rate).astype(np.int16)
    compressor = TimeCompressor(rate)
    for start in range(0, 20 * 480, 480):  # so that it has credit, or is in a pause
        compressor.compress(noise[start : start + compressor.reach], 0)
    original = noise[rate : rate + min(count, compressor.reach)]
    frame = compressor.compress(original, max_skip)
    if frame is None:
        return
    assert 60 <= frame.skipped <= max_skip
    assert len(frame.samples) == min(compressor.size, len(original) - frame.skipped)
    places = [frame.original(n) for n in range(len(frame.samples) + 1)]
    assert places[0] == 0
    assert places[-1] == len(frame.samples) + frame.skipped <= len(original)
    assert all(a < b for a, b in pairwise(places))
    fade, skip = frame.fade, frame.skipped
    assert np.array_equal(frame.samples[fade:], original[fade + skip : places[-1]])
    early, late = original[:fade].astype(int), original[skip : skip + fade].astype(int)
    mixed = frame.samples[:fade]
    assert np.all(mixed >= np.minimum(early, late))
    assert np.all(mixed <= np.maximum(early, late))


def test_places_within_a_fade_move_evenly():
    frame = CompressedFrame(np.zeros(160, np.int16), fade=80, skipped=40)
    assert [frame.original(n) for n in (0, 40, 80, 160)] == [0, 60, 120, 200]
