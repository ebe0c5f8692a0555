import wave
from pathlib import Path

import numpy as np
import pytest

from duologue.vad.earshot import EarshotVAD
from duologue.vad.energy import EnergyVAD
from duologue.vad.voice_meter import GAP_S, VoiceMeter

RATE = 16000
SPEECH = Path(__file__).parent.parent / "data" / "speech"


def tone(seconds, hz=200.0, level=8000, rate=RATE):
    at = np.arange(round(seconds * rate))
    return (level * np.sin(2 * np.pi * hz / rate * at)).astype(np.int16)


def silence(seconds, rate=RATE):
    return np.zeros(round(seconds * rate), np.int16)


def noise(seconds, level=6000):
    rng = np.random.default_rng(1)
    return (level * rng.standard_normal(round(seconds * RATE))).clip(-32000, 32000).astype(np.int16)


def heard(*parts, vad=None, rate=RATE, watch=None):
    meter = VoiceMeter(vad or EnergyVAD(), rate)
    audio = np.concatenate(parts)
    step = rate // 50
    for begin in range(0, len(audio), step):
        meter.push(audio[begin : begin + step], (begin + step) / rate)
        if watch is not None:
            watch(meter, (begin + step) / rate)
    return meter


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.6])
def test_stretch_is_as_long_as_the_voice(seconds, rate):
    meter = heard(silence(0.5, rate), tone(seconds, rate=rate), silence(0.2, rate), rate=rate)
    assert meter.stretch_count == 1
    assert meter.seconds == pytest.approx(seconds, abs=0.021)
    assert meter.started_at == pytest.approx(0.5, abs=0.025)
    assert meter.is_open
    assert not meter.active


def test_stretch_continues_over_a_gap_in_a_word_and_ends_in_a_pause():
    word = (tone(0.15), silence(0.15), tone(0.15))
    meter = heard(*word, silence(0.2))
    assert meter.stretch_count == 1
    assert meter.seconds == pytest.approx(0.3, abs=0.04)
    assert heard(*word, silence(GAP_S + 0.1), tone(0.1)).stretch_count == 2
    assert not heard(*word, silence(GAP_S + 0.02)).is_open


def test_decaying_audio_does_not_count():
    at = np.arange(round(0.6 * RATE))
    dying = (tone(0.6, level=20000) * np.exp(-at / RATE / 0.06)).astype(np.int16)
    loud = float(np.sqrt(np.mean(np.square(dying[6400:6656], dtype=np.float32))))
    assert heard(dying, vad=EnergyVAD(level=loud / 100)).seconds < 0.2


def test_click_starts_no_stretch():
    assert (
        heard(silence(0.2), tone(0.02), silence(0.2), tone(0.01), silence(0.2)).stretch_count == 0
    )


def test_only_audio_with_a_pitch_is_speech():
    assert heard(tone(0.4)).is_speech()
    assert not heard(noise(0.4)).is_speech()
    assert not heard(tone(0.08)).is_speech()


def test_speech_is_found_piece_by_piece():
    found = []
    heard(tone(0.4), watch=lambda meter, now: found.append((now, meter.is_speech())))
    first = next(now for now, is_speech in found if is_speech)
    assert 0.1 < first < 0.2
    assert all(is_speech for now, is_speech in found if now >= first)


def test_real_voice_is_speech_within_half_a_second_and_a_hiss_never():
    with wave.open(str(SPEECH / "austen-0880.wav")) as file:
        voice = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    found = []

    def watch(meter, now):
        if meter.seconds >= 0.33 and meter.is_speech():
            found.append(now - meter.started_at)

    heard(silence(0.5), voice, vad=EarshotVAD(), watch=watch)
    assert found[0] < 0.55
    assert not heard(silence(0.5), noise(0.5), vad=EarshotVAD()).is_speech()


def test_frames_nobody_asks_about_are_not_kept_forever():
    meter = heard(tone(60.0))
    assert len(meter._frames) <= 64
    assert meter.is_speech()


class CountingVAD(EnergyVAD):
    """Counts the frames that its streams take, and keeps them."""

    def __init__(self, level=300.0):
        super().__init__(level=level)
        self.frames = []

    def stream(self):
        stream = super().stream()
        frames = self.frames

        class Stream:
            def push(self, samples):
                frames.append(samples.copy())
                return stream.push(samples)

        return Stream()


def soft_noise(seconds, level):
    rng = np.random.default_rng(5)
    return (level * rng.standard_normal(round(seconds * RATE))).astype(np.int16)


def test_the_vad_sleeps_while_there_is_only_noise():
    vad = CountingVAD()
    heard(silence(5.0), vad=vad)
    assert vad.frames == []
    heard(soft_noise(20.0, 40.0), vad=vad)
    assert len(vad.frames) < 0.3 * 20.0 / 0.016


def test_a_voice_wakes_the_vad_which_is_given_the_noise_before_it():
    vad = CountingVAD()
    noise = soft_noise(10.0, 40.0)
    meter = heard(noise, vad=vad)
    before = len(vad.frames)
    voice = tone(0.2)
    for begin in range(0, len(voice), RATE // 50):
        end = begin + RATE // 50
        meter.push(voice[begin:end], 10.0 + end / RATE)
    given = np.concatenate(vad.frames[before:])
    expected = np.concatenate((noise[-3 * RATE // 50 :], voice))
    padding = np.flatnonzero(given)[0]
    assert padding < 256
    given = given[padding:]
    np.testing.assert_array_equal(given, expected[: len(given)])
    assert len(expected) - len(given) < 256
    assert meter.started_at == pytest.approx(10.0, abs=0.02)


def test_silence_is_not_kept_for_the_vad():
    vad = CountingVAD()
    heard(silence(1.0), tone(0.064), vad=vad)
    assert len(vad.frames) in (4, 5)


def test_every_stretch_of_noise_has_its_length_and_probability_0():
    meter = VoiceMeter(EnergyVAD(), RATE)
    assert meter.push(silence(0.02), 1.0) == [(0.0, 0.02, 1.0)]
    assert meter.push(silence(0.05), 1.05) == [(0.0, 0.05, 1.05)]
    assert meter.push(tone(0.016), 1.066) == [(1.0, 0.016, 1.066)]


def test_frames_of_a_stretch_are_forgotten_when_the_vad_sleeps():
    meter = heard(tone(0.4), silence(GAP_S + 0.2))
    assert not meter._frames


@pytest.mark.parametrize("level", [0.0, 6.0, 60.0])
def test_sleep_changes_nothing_of_what_is_found_in_real_speech(level, monkeypatch):
    def stretches():
        found = []
        with wave.open(str(SPEECH / "austen-0880.wav")) as file:
            voice = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        pause = silence(1.5)
        audio = np.concatenate((pause, pause, voice, pause, voice, pause))
        audio = audio + soft_noise(len(audio) / RATE, level)

        def watch(meter, now):
            if meter.is_open and (not found or found[-1][0] != meter.stretch_count):
                found.append([meter.stretch_count, now, 0.0])
            if found:
                found[-1][2] = meter.seconds

        heard(audio, vad=EarshotVAD(), watch=watch)
        return np.array(found)

    asleep = stretches()
    monkeypatch.setattr("duologue.vad._noise_floor.MARGIN", 0.0)
    awake = stretches()
    assert len(asleep) == len(awake)
    np.testing.assert_allclose(asleep[:, :2], awake[:, :2], atol=0.021)
    np.testing.assert_allclose(asleep[:, 2], awake[:, 2], atol=0.065)


@pytest.mark.parametrize("wait", range(20, 340, 20))
def test_a_voice_is_found_as_soon_as_if_the_vad_had_never_slept(wait):
    """A frame of the VAD is shorter than one of the edge, and must not begin with the voice."""
    meter = VoiceMeter(EnergyVAD(), RATE)
    now = wait / 1000
    meter.push(silence(now), now)
    while not meter.is_open:
        now += 0.02
        meter.push(tone(0.02), now)
    never_slept = (wait + 40) // 16 - -(-(wait - 15) // 16) >= 3
    assert round(now * 1000) - wait == (40 if never_slept else 60)
