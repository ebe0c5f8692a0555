"""Text to speech with hibari: 24 kHz, an American voice, first audio after about 15 ms."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from functools import partial
from typing import Protocol

import numpy as np

from duologue._optional import import_optional
from duologue.audio import AudioFrame, Samples
from duologue.errors import ConfigError
from duologue.providers.local._inference import Floats, run_in_thread
from duologue.providers.local._speakable import speakable

RATE = 24000
FRAME_MS = 40
_FRAME_SAMPLES = RATE * FRAME_MS // 1000

SILENCE_LEVEL = 50
"""Samples up to this value (of 32767) are silence."""
LEAD_SAMPLES = RATE * 5 // 1000
"""Samples of silence kept before a sentence."""
TAIL_SAMPLES = RATE * 180 // 1000
"""Samples of silence kept after a sentence."""
OPEN_TAIL_SAMPLES = RATE * 30 // 1000
"""Samples of silence kept after text that continues in the next piece."""


class _Synthesiser(Protocol):
    def phonemize(self, text: str) -> list[str]: ...

    def from_phonemes(self, phonemes: str, speed: float, seed: int) -> Floats: ...


class Hibari:
    """English text to speech, a `TTS` at 24 kHz, in a thread; 180 times faster than real time.

    Args:
        voice: A name that hibari knows (``heart`` is in its package, it fetches others).
        speed: 0.5 to 2.

    Raises:
        ConfigError: the voice is unknown, or the speed is out of range.
    """

    rate = RATE

    def __init__(self, voice: str = "heart", speed: float = 1.0) -> None:
        hibari = import_optional("hibari", "local")
        voices = import_optional("hibari.voices", "local").VOICES
        if voice not in voices:
            raise ConfigError(f"there is no voice {voice!r}; there are: {', '.join(voices)}")
        if not 0.5 <= speed <= 2.0:
            raise ConfigError(f"speed must be 0.5 to 2, not {speed}")
        self._speed = speed
        self._hibari: _Synthesiser = hibari.Hibari(voice=voice)
        # The first sentence loads the dictionary and warms up the model.
        self._speak(self._phonemes("Ready.")[0])

    async def synthesize(self, text: str) -> AsyncGenerator[AudioFrame]:
        """Stream the audio of ``text`` in frames of at most 40 ms, sentence by sentence."""
        tail = (
            TAIL_SAMPLES
            if text.rstrip().endswith((".", "!", "?", ",", ";", ":"))
            else OPEN_TAIL_SAMPLES
        )
        for phonemes in await run_in_thread(partial(self._phonemes, text)):
            samples = await run_in_thread(partial(self._speak, phonemes, tail))
            for frame in _split_frames(samples):
                yield frame

    def _phonemes(self, text: str) -> list[str]:
        return self._hibari.phonemize(speakable(text))

    def _speak(self, phonemes: str, tail: int = TAIL_SAMPLES) -> Samples:
        # A fixed seed, so that the same text always sounds the same.
        floats = self._hibari.from_phonemes(phonemes, self._speed, seed=0)
        samples: Samples = (np.clip(floats, -1.0, 1.0) * 32767.0).astype(np.int16)
        return _trim_silence(samples, tail)


def _trim_silence(samples: Samples, tail: int) -> Samples:
    """Remove most of the silence around the samples: hibari puts 0.3 s before every sentence.

    A person would wait for it after each turn, and 0.4 s after each clause is no natural pause.
    """
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > SILENCE_LEVEL)
    if not len(loud):
        return samples
    return samples[max(0, int(loud[0]) - LEAD_SAMPLES) : int(loud[-1]) + tail]


def _split_frames(samples: Samples) -> Iterator[AudioFrame]:
    for at in range(0, len(samples), _FRAME_SAMPLES):
        yield AudioFrame(samples[at : at + _FRAME_SAMPLES], RATE)
