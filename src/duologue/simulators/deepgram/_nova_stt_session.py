"""Deepgram's recogniser Nova, ``/v1/listen``, as the service behaves."""

from __future__ import annotations

from uuid import uuid4

import numpy as np

from duologue.clock import Clock
from duologue.json_types import JsonObject
from duologue.simulators import faults
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
    TurnWentOn,
)

IDLE_S = 10.0
"""Seconds without audio or a message after which the service closes a connection: NET-0001."""
ENDLESS_S = 3600.0


class NovaSTTSession(SpeechSession):
    """One connection to Nova, whose audio has ``rate`` Hz.

    It finds no turns: text is final after a ``Finalize``, and nothing else ends it. A ``Finalize``
    without anything to recognise is not answered.

    Attributes:
        turns: The texts that were finalized.
        samples: Samples of audio received.
    """

    def __init__(
        self,
        channel: EventChannel,
        clock: Clock,
        recognizer: Recognizer,
        rate: int,
        *,
        clock_scale: float,
    ) -> None:
        super().__init__(channel, clock, idle_s=IDLE_S / clock_scale)
        self._recognizer = recognizer
        self._rate = rate
        self._detector = AudioTurns(rate, eager_s=None, end_s=ENDLESS_S)
        self._id = str(uuid4())
        self._start = 0.0
        self.turns: list[str] = []
        self.samples = 0

    def inject_error(self, error: faults.Error) -> None:
        """Send an error."""
        self.send("Error", {"type": "Error", "variant": error.code, "description": error.message})

    def idle(self) -> None:
        """Close, as the service does without audio and without a ``KeepAlive``."""
        self._channel.close(1011, "NET-0001: no audio or text data was received in 10 seconds")

    def binary(self, data: bytes) -> None:
        """Take audio."""
        samples = np.frombuffer(data[: len(data) & ~1], "<i2")
        self.samples += len(samples)
        for signal in self._detector.push(samples):
            self.do(self._signal(signal))

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        match event.get("type"):
            case "Finalize":
                for signal in self._detector.end():
                    self.do(self._signal(signal))
            case "CloseStream":
                for signal in self._detector.end():
                    self.do(self._signal(signal))
                self.do(self._close())
            case "KeepAlive" | "Configure":
                pass
            case kind:
                self._channel.close(1008, f"DATA-0000: unknown message type {kind}")

    async def _close(self) -> None:
        metadata: JsonObject = {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self._id,
            "sha256": "",
            "created": "2026-01-01T00:00:00Z",
            "duration": self.samples / self._rate,
            "channels": 1,
        }
        self.send("Metadata", metadata)
        self._channel.close(1000, "")

    async def _signal(self, signal: TurnSignal) -> None:
        match signal:
            case TurnBegan(at=at):
                self._start = at
                started: JsonObject = {"type": "SpeechStarted", "channel": [0], "timestamp": at}
                self.send("SpeechStarted", started)
            case TurnGrew(turn=turn, at=at, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=False)
                self._results(text, at, final=False)
            case TurnDone(turn=turn, at=at, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=True)
                self.turns.append(text)
                self._results(text, at, final=True)
            case TurnPaused() | TurnWentOn():
                pass  # The detector tells neither.

    def _results(self, text: str, at: float, *, final: bool) -> None:
        words = text.split()
        step = max(0.0, at - self._start) / max(1, len(words))
        timed: list[JsonObject] = [
            {
                "word": word.strip(".,?!").lower(),
                "punctuated_word": word,
                "start": round(self._start + index * step, 3),
                "end": round(self._start + (index + 1) * step, 3),
                "confidence": 0.99,
            }
            for index, word in enumerate(words)
        ]
        results: JsonObject = {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": round(at - self._start, 3),
            "start": round(self._start, 3),
            "is_final": final,
            "speech_final": final,
            "from_finalize": final,
            "channel": {
                "alternatives": [{"transcript": text, "confidence": 0.99, "words": [*timed]}]
            },
            "metadata": {
                "request_id": self._id,
                "model_info": {"name": "nova-3", "version": "1", "arch": "nova-3"},
                "model_uuid": self._id,
            },
        }
        self.send("Results", results)
