"""The voices of simulated services: a tone whose words have exact times, or the built-in voice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import regex

from duologue._word_timing import weight
from duologue.audio import Resampler, Samples

CHAR_S = 0.06
"""Seconds that the tone takes for a character of the Latin script."""
GAP_S = 0.06
"""Seconds of silence behind each word of the tone."""
PAUSE_S = 0.25
"""Seconds of silence behind a word with punctuation."""
_AMPLITUDE = 6000
_WORD = regex.compile(r"[\p{Ideographic}\p{Hiragana}\p{Katakana}]\p{P}*|[^\s\p{Ideographic}]+")
_PUNCTUATION = regex.compile(r"\p{P}$")


@dataclass(frozen=True, slots=True)
class SpokenPiece:
    """The next audio of a text, and the words in it: text, start and end in seconds of it."""

    samples: Samples
    words: tuple[tuple[str, float, float], ...]


class Voice(Protocol):
    """Speaks texts."""

    rate: int

    def speak(self, text: str) -> AsyncGenerator[SpokenPiece]:
        """Stream the audio of a text."""
        ...


class ToneVoice:
    """Speaks a tone for each word, at ``rate`` Hz; the times are known to the sample."""

    def __init__(self, rate: int) -> None:
        self.rate = rate

    async def speak(self, text: str) -> AsyncGenerator[SpokenPiece]:
        """Stream the audio of a text, a word a piece."""
        for match in _WORD.finditer(text):
            word = match.group()
            length = int(weight(word) * CHAR_S * self.rate)
            pause = PAUSE_S if _PUNCTUATION.search(word) else GAP_S
            at = np.arange(length) / self.rate
            tone = _AMPLITUDE * np.sin(2 * np.pi * (200 + 7 * len(word)) * at)
            samples = np.concatenate((tone, np.zeros(int(pause * self.rate)))).astype(np.int16)
            yield SpokenPiece(samples, ((word, 0.0, length / self.rate),))


class LocalVoice:
    """Speaks by the built-in engine, at ``rate`` Hz; words are spread evenly over a text."""

    def __init__(self, rate: int) -> None:
        self.rate = rate

    async def speak(self, text: str) -> AsyncGenerator[SpokenPiece]:
        """Stream the audio of a text, all of it in one piece."""
        from duologue.providers.local import engine

        tts = await asyncio.to_thread(engine.load_tts)
        resampler = Resampler(tts.rate, self.rate)
        parts = [resampler.push(frame.samples) async for frame in tts.synthesize(text)]
        samples = np.concatenate([*parts, resampler.flush()])
        words = _WORD.findall(text)
        total = sum(map(weight, words)) or 1.0
        seconds, at = len(samples) / self.rate, 0.0
        timed = []
        for word in words:
            end = at + weight(word) / total * seconds
            timed.append((word, at, end))
            at = end
        yield SpokenPiece(samples, tuple(timed))


def make_voice(kind: str, rate: int) -> Voice:
    """Return the voice of a ``backend``: ``local``, or a tone for any other."""
    return LocalVoice(rate) if kind == "local" else ToneVoice(rate)
