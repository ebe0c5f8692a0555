"""Deepgram's recogniser Flux, ``/v2/listen``, as the service behaves. Its clock is the audio."""

from __future__ import annotations

from uuid import uuid4

import numpy as np

from duologue.clock import Clock
from duologue.json_types import Json, JsonObject
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


class FluxSTTSession(SpeechSession):
    """One connection to Flux, whose audio has ``rate`` Hz.

    Attributes:
        turns: The transcripts of the turns that are over.
        samples: Samples of audio received.
    """

    def __init__(
        self,
        channel: EventChannel,
        clock: Clock,
        recognizer: Recognizer,
        rate: int,
        *,
        eager: bool,
        timeout_s: float,
    ) -> None:
        super().__init__(channel, clock)
        self._recognizer = recognizer
        self._rate = rate
        self._detector = AudioTurns(rate, eager_s=0.2 if eager else None, end_s=min(0.5, timeout_s))
        self._id = str(uuid4())
        self._sequence = 0
        self._start = 0.0
        self._eager_text: str | None = None
        self.turns: list[str] = []
        self.samples = 0

    async def begin(self) -> None:
        """Send the first event."""
        self._tell("Connected", {})

    def inject_error(self, error: faults.Error) -> None:
        """Send an error, which is fatal."""
        self._tell("Error", {"code": error.code, "description": error.message})

    def binary(self, data: bytes) -> None:
        """Take audio."""
        samples = np.frombuffer(data[: len(data) & ~1], "<i2")
        self.samples += len(samples)
        for signal in self._detector.push(samples):
            self.do(self._signal(signal))

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        match event.get("type"):
            case "ForceEndTurn":
                for signal in self._detector.end():
                    self.do(self._signal(signal))
            case "CloseStream":
                self.do(self._close())
            case "Configure":
                self._tell(
                    "ConfigureSuccess", {"thresholds": {}, "keyterms": event.get("keyterms", [])}
                )
            case kind:
                message = f"unknown message type {kind}"
                self._tell("Error", {"code": "UNPARSABLE_CLIENT_MESSAGE", "description": message})
                self._channel.close(1008, message)

    async def _close(self) -> None:
        self._channel.close(1000, "")

    async def _signal(self, signal: TurnSignal) -> None:
        match signal:
            case TurnBegan(at=at):
                self._start, self._eager_text = at, None
                self._turn_info("StartOfTurn", signal.turn, self._detector.seconds, "")
            case TurnGrew(turn=turn, at=at, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=False)
                self._turn_info("Update", turn, at, text)
            case TurnPaused(turn=turn, at=at, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=True)
                if text:
                    self._eager_text = text
                    self._turn_info("EagerEndOfTurn", turn, at, text)
            case TurnWentOn(turn=turn, at=at):
                if self._eager_text is not None:
                    self._turn_info("TurnResumed", turn, at, self._eager_text)
                self._eager_text = None
            case TurnDone(turn=turn, at=at, samples=samples, forced=forced):
                text = await self._recognizer.text(turn, samples, self._rate, whole=True)
                if self._eager_text not in (None, text):
                    self._turn_info("TurnResumed", turn, at, text)
                self.turns.append(text)
                self._turn_info("EndOfTurn", turn, at, text, "manual" if forced else "model")

    def _turn_info(
        self, event: str, turn: int, at: float, text: str, trigger: str | None = None
    ) -> None:
        words = text.split()
        step = max(0.0, at - self._start) / max(1, len(words))
        fields: JsonObject = {
            "event": event,
            "turn_index": turn,
            "audio_window_start": round(self._start, 3),
            "audio_window_end": round(at, 3),
            "transcript": text,
            "words": [
                {
                    "word": word,
                    "confidence": 0.99,
                    "start": round(self._start + index * step, 3),
                    "end": round(self._start + (index + 1) * step, 3),
                }
                for index, word in enumerate(words)
            ],
            "end_of_turn_confidence": 0.9 if event == "EndOfTurn" else 0.5,
        }
        if trigger is not None:
            fields["trigger"] = trigger
        self._tell("TurnInfo", fields, kind=event)

    def _tell(self, message: str, fields: dict[str, Json], *, kind: str = "") -> None:
        head: JsonObject = {
            "type": message,
            "request_id": self._id,
            "sequence_id": self._sequence,
        }
        self._sequence += 1
        self.send(kind or message, {**head, **fields})
