"""Sixty short sounds that a person makes during the agent's speech: 41 without words, 19 words.

Recordings are read from the files of Debian's package ``hedgewars-data`` (people who cough and
laugh; GFDL 1.3, so they are not stored here), or from the folder that ``DUOLOGUE_BENCH_SOUNDS``
names, such as one that the package was unpacked to. If they are missing, synthetic ones replace
them, and the figures say how many were real. Words are spoken by espeak-ng (English, Hindi,
Mandarin). Everything else is synthesised below, from noise with a fixed seed.
"""

from __future__ import annotations

import io
import os
import subprocess
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.corpus import trim
from duologue.audio import Resampler, Samples

RATE = 16000
PEAK = 9000
FOLDER = Path(
    os.environ.get("DUOLOGUE_BENCH_SOUNDS", "/usr/share/games/hedgewars/Data/Sounds/voices")
)
COUGHS = ("Default", "Default_es", "Default_pl", "Default_ru", "HillBilly")
"""All coughs, each once."""
LAUGHS = ("British", "Classic", "HillBilly", "Mobster")
"""The first four laughs by name that are no translation of another."""
SPOKEN = (
    ("British/Hello", "hello"),
    ("British/Hurry", "hurry"),
    ("British/Nooo", "no"),
    ("British/Watchit", "watch it"),
)
WORDS = (
    ("en-us", ("stop", "no", "wait")),
    ("hi", ("रुको", "नहीं", "बस", "सुनो", "चुप", "एक मिनट")),
    ("cmn", ("停", "不", "好", "喂", "等一下", "别说了")),
)


@dataclass(frozen=True, slots=True)
class Clip:
    """One sound at 16 kHz; ``words`` is empty if it has none."""

    kind: str
    samples: Samples
    words: str = ""
    real: bool = False


def clips() -> list[Clip]:
    """Return all sixty.

    Raises:
        FileNotFoundError: espeak-ng is not installed.
    """
    rng = np.random.default_rng(60)
    return [
        *_coughs(rng),
        *(Clip("clap", _clap(rng, number)) for number in range(6)),
        *(Clip("breath", _breath(rng, 0.35 + 0.12 * number)) for number in range(6)),
        *(Clip("door", _door(rng, number)) for number in range(6)),
        *(Clip("keyboard", _keyboard(rng, 3 + number)) for number in range(6)),
        *_laughs(rng),
        *(Clip("mm-hm", _mm_hm(100.0 + 30 * number)) for number in range(4)),
        *_words(),
    ]


def _real(name: str) -> Samples | None:
    path = FOLDER / f"{name}.ogg"
    if not path.exists():
        return None
    import soundfile

    found, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return _whole(found.mean(axis=1), rate)


def _coughs(rng: np.random.Generator) -> Iterator[Clip]:
    for number, name in enumerate(COUGHS):
        found = _real(f"{name}/PoisonCough")
        made = found is None
        yield Clip("cough", _cough(rng, number) if found is None else found, real=not made)
    for number in range(5, 9):
        yield Clip("cough", _cough(rng, number))


def _laughs(rng: np.random.Generator) -> Iterator[Clip]:
    for number, name in enumerate(LAUGHS):
        found = _real(f"{name}/Laugh")
        made = found is None
        yield Clip("laughter", _laugh(rng, number) if found is None else found, real=not made)


def _words() -> Iterator[Clip]:
    for name, words in SPOKEN:
        found = _real(name)
        samples = _spoken("en-gb", words) if found is None else found
        yield Clip("en", samples, words, real=found is not None)
    for voice, all_words in WORDS:
        for words in all_words:
            yield Clip(voice[:3].rstrip("-"), _spoken(voice, words), words)


def _spoken(voice: str, words: str) -> Samples:
    command = ["espeak-ng", "-v", voice, "--stdout", words]
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    with wave.open(io.BytesIO(out)) as file:
        rate = file.getframerate()
        data = np.frombuffer(out[44:], "<i2")
    return _whole(data.astype(np.float32), rate)


def _whole(sound: np.ndarray, rate: int) -> Samples:
    """Return a sound at 16 kHz, at the level of all others, without silence around it."""
    loudest = float(np.abs(sound).max()) or 1.0
    samples = (sound * (PEAK / loudest)).astype(np.int16)
    if rate != RATE:
        resampler = Resampler(rate, RATE)
        samples = np.concatenate((resampler.push(samples), resampler.flush()))
    return trim(samples)


def _band(rng: np.random.Generator, seconds: float, low: float, high: float) -> np.ndarray:
    """Return noise between two frequencies."""
    size = round(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(size))
    hz = np.fft.rfftfreq(size, 1 / RATE)
    spectrum[(hz < low) | (hz > high)] = 0
    return np.fft.irfft(spectrum, size)


def _fade(size: int, attack_s: float, decay_s: float) -> np.ndarray:
    at = np.arange(size) / RATE
    return np.minimum(1.0, at / attack_s) * np.exp(-at / decay_s)


def _hum(seconds: float, hz: float, partials: int = 12) -> np.ndarray:
    at = np.arange(round(seconds * RATE)) / RATE
    return np.sum([np.sin(2 * np.pi * hz * n * at) / n for n in range(1, partials + 1)], axis=0)


def _cough(rng: np.random.Generator, number: int) -> Samples:
    """Coughs: a burst, breath that dies away, in every other a short voiced end; some twice."""
    burst = _band(rng, 0.25, 300, 5000)
    sound = burst * _fade(len(burst), 0.004, 0.05 + 0.006 * number)
    if number % 2:
        end = _hum(0.06, 140 + 10 * number) * np.hanning(round(0.06 * RATE)) * 0.1
        sound[-len(end) :] += end * sound.std()
    if number >= 7:
        sound = np.concatenate((sound, np.zeros(round(0.2 * RATE)), sound))
    return _whole(sound, RATE)


def _clap(rng: np.random.Generator, number: int) -> Samples:
    """One to three claps, in rooms with more and less echo."""
    one = _band(rng, 0.25, 700 + 100 * number, 3500)
    one = one * _fade(len(one), 0.001, 0.012 + 0.008 * number)
    pause = np.zeros(round(0.15 * RATE))
    return _whole(
        np.concatenate([part for _ in range(1 + number // 2) for part in (one, pause)]), RATE
    )


def _breath(rng: np.random.Generator, seconds: float) -> Samples:
    sound = _band(rng, seconds, 300, 4500)
    return (_whole(sound * np.hanning(len(sound)), RATE) * 0.3).astype(np.int16)


def _door(rng: np.random.Generator, number: int) -> Samples:
    """Doors: a latch that clicks, and a leaf that falls shut."""
    latch = _band(rng, 0.05, 1500, 5000)
    latch *= _fade(len(latch), 0.001, 0.008)
    thud = _band(rng, 0.35, 40, 250 + 60 * number)
    thud *= _fade(len(thud), 0.003, 0.05 + 0.01 * number)
    pause = np.zeros(round((0.04 + 0.03 * number) * RATE))
    parts = (latch / latch.std() * 0.4, pause, thud / thud.std())
    return _whole(np.concatenate(parts), RATE)


def _keyboard(rng: np.random.Generator, keys: int) -> Samples:
    parts = []
    for _ in range(keys):
        key = _band(rng, 0.03, 1500, 6500)
        parts += [
            key * _fade(len(key), 0.0005, 0.006),
            np.zeros(round(rng.uniform(0.06, 0.2) * RATE)),
        ]
    return (_whole(np.concatenate(parts), RATE) * 0.4).astype(np.int16)


def _laugh(rng: np.random.Generator, number: int) -> Samples:
    """Laughs: voiced bursts, five a second, each with breath before it."""
    parts = []
    for burst in range(4 + number):
        breath = _band(rng, 0.07, 600, 4000) * 0.3
        voice = _hum(0.09, (190 + 20 * number) * 0.97**burst)
        voice = voice / np.abs(voice).max() * np.hanning(len(voice))
        parts += [breath * np.hanning(len(breath)), voice, np.zeros(round(0.04 * RATE))]
    return _whole(np.concatenate(parts), RATE)


def _mm_hm(hz: float) -> Samples:
    """Two hums, the second one higher, 0.27 s together."""
    first, second = _hum(0.11, hz, 4), _hum(0.11, hz * 1.2, 4)
    shape = np.hanning(len(first)) ** 0.5
    return _whole(
        np.concatenate((first * shape, np.zeros(round(0.05 * RATE)), second * shape)), RATE
    )
