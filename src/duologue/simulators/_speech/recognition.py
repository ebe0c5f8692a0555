"""What the sessions of simulated recognisers share: audio comes in, and turns are found in it."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from duologue.clock import Clock
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.recognizers import Recognizer
from duologue.simulators._speech.sessions import SpeechSession
from duologue.simulators._speech.turns import (
    AudioTurns,
    TurnBegan,
    TurnDone,
    TurnGrew,
    TurnPaused,
    TurnSignal,
)

ENDLESS_S = 3600.0
"""Silence that ends a turn where only the client does."""


class RecognizerSession(SpeechSession):
    """One connection to a recogniser.

    Args:
        channel: Carries the messages to the client.
        clock: Tells the time.
        recognizer: Makes the transcripts.
        turns: Finds the turns, at the rate of the audio.
        idle_s: Seconds without a message of the client after which `idle` is called.

    Attributes:
        turns: The transcripts of the turns that are over.
        samples: Samples of audio received.
    """

    def __init__(
        self,
        channel: EventChannel,
        clock: Clock,
        recognizer: Recognizer,
        turns: AudioTurns,
        *,
        idle_s: float | None = None,
    ) -> None:
        super().__init__(channel, clock, idle_s=idle_s)
        self._recognizer = recognizer
        self._detector = turns
        self._rate = turns.rate
        self._start = 0.0
        """Where the turn began, in seconds of the audio."""
        self.turns: list[str] = []
        self.samples = 0

    def binary(self, data: bytes) -> None:
        """Take audio: 16-bit PCM."""
        samples = np.frombuffer(data[: len(data) & ~1], "<i2")
        self.samples += len(samples)
        for signal in self._detector.push(samples):
            self.do(self._handle(signal))

    def end_turn(self) -> bool:
        """End the turn that is open, because the client says so; return False if there is none."""
        signals = self._detector.end()
        for signal in signals:
            self.do(self._handle(signal))
        return bool(signals)

    @abstractmethod
    def turn_signal(self, signal: TurnSignal, text: str) -> None:
        """Tell the client of a turn; ``text`` is its transcript so far, where there is audio."""

    def timed(self, text: str, at: float) -> list[tuple[str, float, float]]:
        """Return the words of the turn that ends ``at`` seconds, with their seconds."""
        words = text.split()
        step = max(0.0, at - self._start) / max(1, len(words))
        begins = [round(self._start + index * step, 3) for index in range(len(words) + 1)]
        return [*zip(words, begins, begins[1:], strict=False)]

    async def _handle(self, signal: TurnSignal) -> None:
        text = ""
        match signal:
            case TurnBegan(at=at):
                self._start = at
            case TurnGrew(turn=turn, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=False)
            case TurnPaused(turn=turn, samples=samples) | TurnDone(turn=turn, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=True)
                if isinstance(signal, TurnDone):
                    self.turns.append(text)
            case _:
                pass  # It has no audio.
        self.turn_signal(signal, text)
