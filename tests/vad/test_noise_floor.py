import numpy as np

from duologue.vad._noise_floor import NoiseFloor

FRAME_S = 0.02


def verdicts(floor, peaks):
    return [floor.is_noise(int(peak), FRAME_S) for peak in peaks]


def noise_peaks(seconds, level):
    rng = np.random.default_rng(3)
    return (level * rng.standard_normal((round(seconds / FRAME_S), 480))).max(axis=1)


def test_silence_is_noise_from_the_first_frame():
    assert all(verdicts(NoiseFloor(), [0, -1, 32, 5, 32]))


def test_steady_noise_becomes_known_within_seconds():
    floor = NoiseFloor()
    known = verdicts(floor, noise_peaks(20.0, 60.0))
    assert not known[0]
    assert np.mean(known[500:]) > 0.99


def test_a_voice_stands_out_from_the_noise_around_it():
    floor = NoiseFloor()
    verdicts(floor, noise_peaks(20.0, 60.0))
    assert not floor.is_noise(600, FRAME_S)
    assert floor.is_noise(200, FRAME_S)


def test_speech_with_gaps_never_passes_for_noise():
    floor = NoiseFloor()
    syllables = [*[4000] * 12, *[60] * 3] * 100
    passed = [
        peak
        for peak, noise in zip(syllables, verdicts(floor, syllables), strict=True)
        if noise and peak == 4000
    ]
    assert passed == []


def test_the_level_falls_at_once_and_rises_slowly():
    floor = NoiseFloor()
    verdicts(floor, [1000] * 1000)
    assert floor.is_noise(1900, FRAME_S)
    assert floor.is_noise(100, FRAME_S)
    assert not floor.is_noise(300, FRAME_S)
    assert not any(verdicts(floor, [1000] * 100))


def test_the_length_of_frames_does_not_matter():
    short, long = NoiseFloor(), NoiseFloor()
    for _ in range(100):
        assert not short.is_noise(5000, 0.01)
    for _ in range(50):
        assert not long.is_noise(5000, 0.02)
    for peak in range(40, 300, 20):
        assert short.is_noise(peak, 0.0) is long.is_noise(peak, 0.0)
