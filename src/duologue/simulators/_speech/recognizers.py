"""What simulated recognisers recognise: the transcripts of a list, or the words themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from duologue.audio import AudioFrame, Resampler, Samples

WORDS_PER_S = 4.0
"""How fast a scripted transcript grows while its turn is open."""
DEFAULT_TRANSCRIPT = "hello there"
"""What is recognised when the list of transcripts is empty."""


class Recognizer(Protocol):
    """Recognises turns."""

    async def text(self, turn: int, samples: Samples, rate: int, *, whole: bool) -> str:
        """Return the transcript of a turn so far; ``whole``: the person has paused."""
        ...


class ScriptedRecognizer:
    """Recognises the next text of a list in each turn, and the last one ever after."""

    def __init__(self, transcripts: Sequence[str]) -> None:
        self._transcripts = tuple(transcripts) or (DEFAULT_TRANSCRIPT,)

    async def text(self, turn: int, samples: Samples, rate: int, *, whole: bool) -> str:
        """Return the transcript, or its first words while the turn is open."""
        text = self._transcripts[min(turn, len(self._transcripts) - 1)]
        if whole:
            return text
        words = text.split(" ")
        return " ".join(words[: int(len(samples) / rate * WORDS_PER_S)])


class LocalRecognizer:
    """Recognises English words by the built-in engine."""

    async def text(self, turn: int, samples: Samples, rate: int, *, whole: bool) -> str:
        """Return the words in the audio."""
        del turn, whole
        from duologue.testing.speech import transcribe

        resampler = Resampler(rate, 16000)
        heard = np.concatenate((resampler.push(samples), resampler.flush()))
        return await transcribe(AudioFrame(heard, 16000))
