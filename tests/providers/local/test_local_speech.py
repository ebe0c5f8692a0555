from __future__ import annotations

import re
import wave
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from duologue.audio import AudioFrame, Resampler, Samples
from duologue.errors import ConfigError
from duologue.weights import Store

pytest.importorskip("onnxruntime", reason="needs duologue[local]")

from duologue.providers.local import _evidence, _features, _stt, engine
from duologue.providers.local._inference import InferenceSession
from duologue.providers.local._turn import DANGLING_LIMIT, ends_dangling, is_within_number

SPEECH = Path(__file__).parents[2] / "data" / "speech"

TEXTS = {
    "austen-0880": "he was not an ill disposed young man",
    "austen-0930": "he might even have been made amiable himself",
    "jfk": (
        "and so my fellow americans ask not what your country can do for you "
        "ask what you can do for your country"
    ),
}


def clip(name: str) -> Samples:
    with wave.open(str(SPEECH / f"{name}.wav")) as file:
        assert file.getframerate() == 16000
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def words(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9' ]", "", text.lower()).split()


def word_errors(said: list[str], heard: list[str]) -> int:
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (word != other))
    return row[-1]


async def hear(recogniser: object, samples: Samples) -> str:
    assert isinstance(recogniser, _stt.Moonshine)
    stream = recogniser.stream()
    for at in range(0, len(samples), 320):
        stream.push(AudioFrame(samples[at : at + 320], 16000))
    text = await stream.text()
    await stream.close()
    return text


@pytest.mark.weights
async def test_word_error_rate_of_real_people(weights: Store) -> None:
    recogniser = engine.load_stt()
    errors = total = 0
    for name, text in TEXTS.items():
        errors += word_errors(words(text), words(await hear(recogniser, clip(name))))
        total += len(words(text))
    assert errors / total <= 0.05


@pytest.mark.weights
async def test_partial_texts_grow_and_long_speech_is_split_in_silence(weights: Store) -> None:
    recogniser = engine.load_stt()
    stream = recogniser.stream()
    assert await stream.text() == ""
    speech = np.concatenate([clip("jfk"), np.zeros(8000, np.int16)] * 3)
    partials = []
    for at in range(0, len(speech), 80000):
        stream.push(AudioFrame(speech[at : at + 80000], 16000))
        partials.append(await stream.text())
    assert [len(words(text)) for text in partials] == sorted(len(words(t)) for t in partials)
    assert word_errors(words(TEXTS["jfk"]) * 3, words(partials[-1])) <= 3
    await stream.close()
    assert len(speech) / 16000 > _stt.SEGMENT_SECONDS * 2


@pytest.mark.weights
@pytest.mark.parametrize("name", list(TEXTS))
async def test_partial_transcripts_leave_the_text_as_it_is_and_save_runs(
    weights: Store, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser = engine.load_stt()
    assert isinstance(recogniser, _stt.Moonshine)
    samples = clip(name)
    decoder = _CountedSession(recogniser._decoder)
    monkeypatch.setattr(recogniser, "_decoder", decoder)
    alone = await hear(recogniser, samples)
    runs_alone, decoder.runs = decoder.runs, 0
    stream = recogniser.stream()
    for at in range(0, len(samples), 6400):
        decoder.runs = 0
        stream.push(AudioFrame(samples[at : at + 6400], 16000))
        text = await stream.text()
    assert text == alone
    assert decoder.runs <= runs_alone / 2


class _CountedSession:
    def __init__(self, session: InferenceSession) -> None:
        self._session = session
        self.runs = 0

    def run(self, names: None, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        self.runs += 1
        return self._session.run(names, feeds)


@pytest.mark.weights
async def test_noise_and_silence_have_no_transcript(weights: Store) -> None:
    recogniser = engine.load_stt()
    assert await hear(recogniser, np.zeros(800, np.int16)) == ""
    assert await hear(recogniser, np.zeros(16000, np.int16)) == ""
    with pytest.raises(ValueError, match="16000 Hz, not 8000"):
        recogniser.stream().push(AudioFrame.silence(0.1, 8000))


@pytest.mark.weights
@pytest.mark.parametrize("seed", range(4))
async def test_a_cough_has_no_transcript(weights: Store, seed: int) -> None:
    rng = np.random.default_rng(seed)
    burst = rng.standard_normal(5000) * np.exp(-np.arange(5000) / 1250) * 9000
    burst = np.convolve(burst, np.ones(6) / 6, "same")
    hiss = rng.integers(-10, 10, 4000)
    cough = np.concatenate([hiss, burst, hiss]).astype(np.int16)
    assert await hear(engine.load_stt(), cough) == ""


@pytest.mark.weights
async def test_a_short_word_is_transcribed(weights: Store) -> None:
    voice, recogniser = engine.load_tts(), engine.load_stt()
    for word in ("Yes.", "No.", "Stop.", "Thank you."):
        resampler = Resampler(24000, 16000)
        audio = [resampler.push(frame.samples) async for frame in voice.synthesize(word)]
        heard = await hear(recogniser, np.concatenate([*audio, resampler.flush()]))
        assert words(heard) == words(word)


def tones(frequencies: list[float], seconds: float) -> Samples:
    at = np.arange(int(seconds * 16000)) / 16000
    tone = sum((np.sin(2 * np.pi * each * at) for each in frequencies), np.zeros(len(at)))
    return (2500 * tone * (0.6 + 0.4 * np.sin(4 * np.pi * at))).astype(np.int16)


def hiss(seconds: float, level: float, low: float = 0, high: float = 8000) -> Samples:
    rng = np.random.default_rng(7)
    noise = np.fft.rfft(rng.standard_normal(int(seconds * 16000)))
    frequencies = np.fft.rfftfreq(int(seconds * 16000), 1 / 16000)
    noise[(frequencies < low) | (frequencies > high)] = 0
    audio = np.fft.irfft(noise)
    return (audio / audio.std() * level).astype(np.int16)


def breath(seconds: float) -> Samples:
    audio = hiss(seconds, 2500, 300, 4000)
    swell = np.sin(np.pi * np.arange(len(audio)) / len(audio)) ** 1.5
    return (audio * swell).astype(np.int16)


NOISES = {
    "a chord": tones([220, 277.2, 329.6, 440], 6),
    "a short chord": tones([220, 261.6, 329.6], 2),
    "one tone": tones([1000], 1),
    "the dialling tone": tones([350, 440], 2),
    "a hum": tones([50, 100, 150], 2),
    "a breath": breath(0.5),
    "a long breath": breath(1.5),
    "hiss": hiss(1.5, 2000),
    "a rumble": hiss(3, 2000, 40, 300),
}


@pytest.mark.weights
@pytest.mark.parametrize("name", NOISES)
async def test_audio_without_speech_has_no_transcript(weights: Store, name: str) -> None:
    silence = np.zeros(5000, np.int16)
    audio = np.concatenate([silence, NOISES[name], silence])
    assert await hear(engine.load_stt(), audio) == ""


@pytest.mark.weights
async def test_short_words_are_transcribed_in_noise(weights: Store) -> None:
    voice, recogniser = engine.load_tts(), engine.load_stt()
    for said in ("Yes.", "No.", "Stop.", "Wait.", "Okay.", "Right.", "Thank you.", "Hello."):
        resampler = Resampler(24000, 16000)
        frames = [resampler.push(frame.samples) async for frame in voice.synthesize(said)]
        audio = np.concatenate([*frames, resampler.flush()])
        noisy = audio + hiss(len(audio) / 16000 + 0.01, 250)[: len(audio)]
        assert words(await hear(recogniser, noisy.astype(np.int16))), said


def token(text: str, probability: float) -> _evidence.Token:
    return _evidence.Token(text.encode(), probability)


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        # What the recogniser makes of "my number is 555-123", in part and as a whole.
        ([("is", 1), ("5", 1), ("5", 0.9), ("5", 1), (".", 0.7)], 5),
        ([("5", 1), ("5", 1), ("5", 1), ("-", 0.7), ("0", 0.25), ("0", 0.9), (".", 0.5)], 4),
        (
            [(each, 0.95) for each in "555-123"]
            + [("-", 0.5), ("1", 0.55), ("2", 0.9), ("3", 0.9), ("-", 0.6)],
            8,
        ),
        ([(each, 0.95) for each in "555-123-4567"], 12),
        ([(each, 0.5) for each in "9043"], 4),
        ([(" J", 0.9), ("-", 1), ("O", 1), ("-", 1), ("H", 1), ("-", 0.6), ("J", 0.2)], 6),
        ([(" Nine", 0.1), (" lives", 0.1)], 2),
        ([], 0),
    ],
)
def test_invented_digits_are_dropped(tokens: list[tuple[str, float]], kept: int) -> None:
    written = [token(text, probability) for text, probability in tokens]
    assert _evidence.drop_invented_digits(written) == written[:kept]


def test_steady_audio_is_not_speech() -> None:
    assert _evidence.steadiness(tones([220, 330], 1)) > _evidence.MAX_STEADINESS
    for name in TEXTS:
        assert _evidence.steadiness(clip(name)) < _evidence.MAX_STEADINESS
    assert _evidence.steadiness(np.zeros(100, np.int16)) == 0
    assert _evidence.steadiness(np.zeros(16000, np.int16)) <= 1


@given(st.integers(16000, 16000 * 15), st.integers(0, 10**9))
@settings(max_examples=30, deadline=None)
def test_audio_is_split_at_the_quiet_point(length: int, where: int) -> None:
    first = max(0, length - _stt.SEARCH_SECONDS * 16000)
    quiet = first + where % (length - first - 6400)
    audio = np.full(length, 1000, np.int16)
    audio[quiet : quiet + 6400] = 0
    assert quiet <= _stt.find_quiet_point(audio) <= quiet + 6400


def test_tokens_have_lengths_of_one_or_two_bytes(tmp_path: Path) -> None:
    long = b"x" * 300
    file = tmp_path / "tokenizer.bin"
    file.write_bytes(b"\x02ab\x00" + bytes((300 % 128 + 128, 300 // 128)) + long)
    assert _stt.read_tokens(file) == [b"ab", b"", long]


def test_the_vad_tells_speech_from_silence() -> None:
    vad = engine.load_vad()
    for name in TEXTS:
        stream = vad.stream()
        speech = clip(name)
        frames = [speech[at : at + 256] for at in range(0, len(speech) - 255, 256)]
        chances = [stream.push(frame) for frame in frames]
        assert 0.5 < np.mean(np.array(chances) > 0.5) <= 1
        silence = [stream.push(np.zeros(256, np.int16)) for _ in range(60)]
        assert max(silence[20:]) < 0.5


def test_streams_of_the_vad_are_independent() -> None:
    vad = engine.load_vad()
    speech = clip("jfk")
    one, other = vad.stream(), vad.stream()
    alone = [one.push(speech[at : at + 256]) for at in range(0, 64000, 256)]
    one = vad.stream()
    mixed = []
    for at in range(0, 64000, 256):
        mixed.append(one.push(speech[at : at + 256]))
        other.push(np.zeros(256, np.int16))
    assert mixed == alone


@pytest.mark.parametrize("rate", [440.0, 1000.0, 3000.0])
def test_a_tone_peaks_in_its_own_mel_band(rate: float) -> None:
    tone = np.sin(2 * np.pi * rate * np.arange(128000) / 16000).astype(np.float32)
    mels = _features.log_mel(tone)
    assert mels.shape == (80, 800)
    assert mels.dtype == np.float32
    assert mels.max() - mels.min() <= 2.0 + 1e-5  # 8 decades, divided by 4
    peak = int(_features.mel_filters()[round(rate / 40)].argmax())
    assert np.all(np.abs(mels[:, 10:-10].argmax(axis=0) - peak) <= 1)


@pytest.mark.parametrize(
    "text",
    [
        *("Book a table for.", "I want to, um...", "and", "That\u2019s what I\u2019m", "It is"),
        *("What time is", "Could you please", "What would you like to", "Is there a?", "Yes, and"),
        "What I need is",
        "I wonder whether the price is",
    ],
)
def test_dangling(text: str) -> None:
    assert ends_dangling(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "Hello.", "What is the format?", "It is in the hat.", "I think so.", "Yes, it is."),
        *(
            "Could you repeat that, please?",
            "What are you looking for?",
            "Who is it with?",
            "please?",
        ),
        *("My number is 5551234.", "Why?", "Who am I speaking to?", "I do.", "No, I can't. I did."),
        "Could you explain what a black hole is?",
        "Do you know what time it is?",
        "Tell me where the keys were.",
    ],
)
def test_not_dangling(text: str) -> None:
    assert not ends_dangling(text)


@pytest.mark.parametrize(
    ("text", "within"),
    [
        ("My number is 555.", True),
        ("My phone number's 555-123", True),
        ("Call me at 555", True),
        ("My number is 555-123-4567.", False),
        ("My room number is 412.", False),
        ("We are 4.", False),
        ("It is 0199.", False),
        ("", False),
    ],
)
def test_a_number_spoken_in_groups_continues(text: str, within: bool) -> None:
    assert is_within_number(text) is within


def heard(text: str) -> Callable[[], Awaitable[str]]:
    async def words() -> str:
        return text

    return words


@pytest.mark.weights
async def test_a_sentence_is_complete_and_half_of_one_is_not(weights: Store) -> None:
    turn = engine.load_turn_detector()
    speech = np.concatenate([clip("jfk"), np.zeros(3200, np.int16)])
    assert await turn.end_of_turn(speech, heard(TEXTS["jfk"])) > 0.5
    assert await turn.end_of_turn(speech, heard("ask what you can do for")) <= DANGLING_LIMIT
    assert await turn.end_of_turn(speech, heard("ask what you can do,")) < 0.5
    half = np.concatenate([clip("jfk")[: 16000 * 8], np.zeros(3200, np.int16)])
    assert await turn.end_of_turn(half, heard("")) < 0.5
    assert 0 <= await turn.end_of_turn(np.zeros(0, np.int16), heard("")) <= 1


@pytest.mark.weights
async def test_the_recogniser_understands_the_voice(weights: Store) -> None:
    voice, recogniser = engine.load_tts(), engine.load_stt()
    said = "Good morning. The train to London leaves at nine."
    frames = [frame async for frame in voice.synthesize(said)]
    assert {frame.rate for frame in frames} == {voice.rate}
    assert max(frame.duration for frame in frames) <= 0.04
    resampler = Resampler(24000, 16000)
    audio = [resampler.push(frame.samples) for frame in frames]
    heard = await hear(recogniser, np.concatenate([*audio, resampler.flush()]))
    assert word_errors(words(said), words(heard.replace("9", "nine"))) <= 1
    again = [frame async for frame in voice.synthesize(said)]
    assert np.array_equal(
        np.concatenate([frame.samples for frame in frames]),
        np.concatenate([frame.samples for frame in again]),
    )


async def test_markup_is_not_spoken() -> None:
    voice = engine.load_tts()

    async def audio(text: str) -> list[bytes]:
        return [frame.to_bytes() async for frame in voice.synthesize(text)]

    assert await audio("**Hello** `there`.") == await audio("Hello there.")
    assert await audio("") == []
    assert await audio("***") == []


def test_an_unknown_voice_or_speed_is_refused() -> None:
    from duologue.providers.local._tts import Hibari

    with pytest.raises(ConfigError, match="there is no voice 'bob'; there are: heart"):
        engine.load_tts("bob")
    with pytest.raises(ConfigError, match=r"0\.5 to 2"):
        Hibari(speed=9)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("\"'Hi, what time is breakfast?'\"", "Hi, what time is breakfast?"),
        ("“Could you help me?”", "Could you help me?"),
        ("\"'Hi, what time is it?", "Hi, what time is it?"),
        ("'cause I said so.", "'cause I said so."),
        ("It's the dogs'", "It's the dogs'"),
        ('"', ""),
    ],
)
def test_quotation_marks_around_a_sentence_are_removed(written, said):
    assert _stt.without_quotes(written) == said
