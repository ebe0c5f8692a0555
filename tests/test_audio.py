import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from duologue.audio import AudioFrame, Framer, PcmDecoder, Resampler, loudness

PAIRS = [
    (48000, 24000),
    (24000, 48000),
    (24000, 16000),
    (16000, 24000),
    (48000, 16000),
    (16000, 48000),
    (8000, 16000),
    (16000, 8000),
    (8000, 24000),
    (24000, 8000),
]


def tone(hz, rate, seconds=1.0, level=16000):
    at = np.arange(round(seconds * rate))
    return np.round(level * np.sin(2 * np.pi * hz * at / rate)).astype(np.int16)


def chunks(samples, size):
    return [samples[i : i + size] for i in range(0, len(samples), size)]


def resample(samples, in_rate, out_rate, sizes=None):
    resampler = Resampler(in_rate, out_rate)
    size = in_rate // 50
    parts = chunks(samples, size) if sizes is None else cut(samples, sizes)
    return np.concatenate([*(resampler.push(part) for part in parts), resampler.flush()])


def cut(samples, sizes):
    parts, at = [], 0
    for size in sizes:
        parts.append(samples[at : at + size])
        at += size
    return [*parts, samples[at:]]


def fit(samples, hz, rate):
    """Return the power of the tone in the audio, and of the audio without it."""
    at = np.arange(len(samples)) * (2 * np.pi * hz / rate)
    basis = np.stack([np.sin(at), np.cos(at)], axis=1)
    factors, *_ = np.linalg.lstsq(basis, samples, rcond=None)
    wave = basis @ factors
    return np.mean(wave**2), np.mean((samples - wave) ** 2)


@pytest.mark.parametrize(
    ("in_rate", "out_rate", "hz"),
    [(*pair, hz) for pair in PAIRS for hz in (300, 1000, 3000, 6000) if hz < 0.4 * min(pair)],
)
def test_resampling_keeps_a_tone_clean(in_rate, out_rate, hz):
    out = resample(tone(hz, in_rate), in_rate, out_rate).astype(float)
    middle = out[out_rate // 5 : -out_rate // 5]
    signal, noise = fit(middle, hz, out_rate)
    assert 10 * np.log10(signal / noise) >= 80
    assert np.sqrt(2 * signal) == pytest.approx(16000, rel=0.01)


@pytest.mark.parametrize("in_rate", [24000, 48000])
def test_frequencies_above_the_band_do_not_leak_into_it(in_rate):
    out = resample(tone(10000, in_rate, level=30000), in_rate, 16000).astype(float)
    middle = out[3200:-3200]
    leak = np.sqrt(np.mean(middle**2)) / (30000 / np.sqrt(2))
    assert 20 * np.log10(max(leak, 1e-9)) <= -80


@pytest.mark.parametrize(("in_rate", "out_rate"), PAIRS)
def test_resampling_holds_back_at_most_7_ms(in_rate, out_rate):
    resampler = Resampler(in_rate, out_rate)
    sent = received = 0
    for part in chunks(tone(440, in_rate), in_rate // 50):
        sent += len(part) / in_rate
        received += len(resampler.push(part)) / out_rate
        assert sent - received <= 0.007


@given(
    pair=st.sampled_from(PAIRS),
    sizes=st.lists(st.integers(0, 3000), max_size=20),
    seed=st.integers(0, 2**16),
)
@settings(deadline=None, max_examples=40)
def test_chunk_borders_lose_and_double_nothing(pair, sizes, seed):
    in_rate, out_rate = pair
    samples = np.random.default_rng(seed).integers(-20000, 20000, 6000).astype(np.int16)
    whole = resample(samples, in_rate, out_rate, [])
    parts = resample(samples, in_rate, out_rate, sizes)
    assert len(whole) == pytest.approx(len(samples) * out_rate / in_rate, abs=2)
    assert len(parts) == len(whole)
    assert np.abs(parts.astype(int) - whole).max() <= 1


def test_flush_drains_the_tail_and_starts_a_new_stream():
    resampler = Resampler(16000, 48000)
    first = np.concatenate([resampler.push(tone(440, 16000, 0.1)), resampler.flush()])
    again = np.concatenate([resampler.push(tone(440, 16000, 0.1)), resampler.flush()])
    assert len(first) == 4800
    assert np.array_equal(first, again)


def test_equal_rates_pass_through_unchanged():
    resampler = Resampler(24000, 24000)
    samples = tone(440, 24000, 0.02)
    assert resampler.push(samples) is samples
    assert len(resampler.flush()) == 0


@pytest.mark.parametrize("rates", [(0, 16000), (16000, -1)])
def test_resampler_refuses_an_impossible_rate(rates):
    with pytest.raises(ValueError, match="above 0"):
        Resampler(*rates)


def test_a_frame_is_a_view():
    samples = tone(440, 16000, 0.02)
    assert AudioFrame(samples, 16000).samples is samples
    pcm = bytearray(samples.astype("<i2").tobytes())
    frame = AudioFrame.from_bytes(pcm, 16000)
    pcm[0:2] = (1234).to_bytes(2, "little")
    assert frame.samples[0] == 1234


def test_a_frame_knows_its_length():
    frame = AudioFrame.silence(0.25, 24000)
    assert len(frame) == 6000
    assert frame.duration == 0.25
    assert not frame.samples.any()


@given(st.lists(st.integers(-32768, 32767)))
def test_a_frame_goes_to_bytes_and_back(values):
    frame = AudioFrame(np.array(values, np.int16), 16000)
    assert np.array_equal(AudioFrame.from_bytes(frame.to_bytes(), 16000).samples, values)


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        (np.zeros(4, np.float32), 16000),
        (np.zeros((4, 2), np.int16), 16000),
        (np.zeros(4, np.int16), 0),
    ],
)
def test_a_frame_refuses_all_but_mono_int16(samples, rate):
    with pytest.raises(ValueError, match=r"AudioFrame: (samples|rate) must be"):
        AudioFrame(samples, rate)


def test_half_a_sample_is_refused():
    with pytest.raises(ValueError):
        AudioFrame.from_bytes(b"abc", 16000)


@given(st.lists(st.integers(0, 1500), max_size=30), st.sampled_from([10, 20]))
def test_framer_keeps_every_sample_in_order(sizes, ms):
    framer = Framer(16000, ms)
    samples = np.arange(sum(sizes)).astype(np.int16)
    frames = []
    for part in cut(samples, sizes):
        frames += framer.push(part)
        assert len(framer) < framer.size
    assert all(len(frame) == 16 * ms for frame in frames)
    assert np.array_equal(np.concatenate([*frames, framer.flush()]), samples)
    assert len(framer) == 0


@pytest.mark.parametrize(("rate", "ms"), [(11025, 1), (0, 20), (16000, 0)])
def test_framer_refuses_frames_that_are_not_whole_samples(rate, ms):
    with pytest.raises(ValueError, match="whole number"):
        Framer(rate, ms)


@pytest.mark.parametrize(("in_rate", "out_rate"), [(44100, 16000), (11025, 48000), (8001, 16000)])
def test_odd_rates_are_resampled_too(in_rate, out_rate):
    out = resample(tone(440, in_rate), in_rate, out_rate).astype(float)
    assert len(out) == pytest.approx(out_rate, abs=1)
    signal, noise = fit(out[out_rate // 5 : -out_rate // 5], 440, out_rate)
    assert 10 * np.log10(signal / noise) >= 80
    again = Resampler(in_rate, out_rate)
    first = np.concatenate([again.push(tone(440, in_rate)), again.flush()])
    assert np.abs(np.concatenate([again.push(tone(440, in_rate)), again.flush()]) - first).max() < 3


@pytest.mark.parametrize("rate", [0, -1, 16000.0, 44100.5, float("nan"), "16000", None, True])
def test_a_frame_refuses_a_rate_that_is_no_whole_number(rate):
    with pytest.raises(ValueError, match="a whole number of Hz above 0"):
        AudioFrame(np.zeros(3, np.int16), rate)


def test_a_numpy_integer_is_a_rate():
    frame = AudioFrame(np.zeros(3, np.int16), np.int64(16000))
    assert type(frame.rate) is int


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_pcm_decoder_joins_samples_that_are_split(size):
    samples = np.arange(-25, 25, dtype=np.int16)
    pcm = samples.astype("<i2").tobytes()
    decoder = PcmDecoder()
    decoded = [decoder.push(pcm[at : at + size]) for at in range(0, len(pcm), size)]
    assert np.array_equal(np.concatenate(decoded), samples)


def test_loudness_is_the_rms():
    assert loudness(np.full(100, -300, np.int16)) == pytest.approx(300)
    assert loudness(np.zeros(0, np.int16)) == 0.0
