"""Cartesia's STT WebSocket with turns, as the service behaves."""

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

IDLE_S = 180.0
"""Seconds without a message after which the service closes a connection."""


class CartesiaSTTSession(SpeechSession):
    """One connection to the recogniser, whose audio has ``rate`` Hz.

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
        clock_scale: float,
    ) -> None:
        super().__init__(channel, clock, idle_s=IDLE_S / clock_scale)
        self._recognizer = recognizer
        self._rate = rate
        self._detector = AudioTurns(rate)
        self._id = uuid4().hex
        self._last_text = ""
        self.turns: list[str] = []
        self.samples = 0

    async def begin(self) -> None:
        """Send the first event."""
        self._tell("connected")

    def inject_error(self, error: faults.Error) -> None:
        """Send an error."""
        self._tell(
            "error", error_code=error.code, title="Error", message=error.message, status_code=500
        )

    def binary(self, data: bytes) -> None:
        """Take audio."""
        samples = np.frombuffer(data[: len(data) & ~1], "<i2")
        self.samples += len(samples)
        for signal in self._detector.push(samples):
            self.do(self._signal(signal))

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        match event.get("type"):
            case "close":
                for signal in self._detector.end():
                    self.do(self._signal(signal))
                self.do(self._close())
            case "config":
                pass  # The thresholds have no effect here.
            case kind:
                self._tell(
                    "error",
                    error_code="invalid_request",
                    title="Bad request",
                    message=f"unknown message type {kind}",
                    status_code=400,
                )

    async def _close(self) -> None:
        self._channel.close(1000, "")

    async def _signal(self, signal: TurnSignal) -> None:
        match signal:
            case TurnBegan():
                self._last_text = ""
                self._tell("turn.start")
            case TurnGrew(turn=turn, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=False)
                if text != self._last_text:
                    self._last_text = text
                    self._tell("turn.update", transcript=text)
            case TurnPaused(turn=turn, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=True)
                self._last_text = text
                if text:
                    self._tell("turn.eager_end", transcript=text)
            case TurnWentOn():
                self._tell("turn.resume")
            case TurnDone(turn=turn, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=True)
                self.turns.append(text)
                self._tell("turn.end", transcript=text)

    def _tell(self, kind: str, **fields: str | int) -> None:
        self.send(kind, {"type": kind, "request_id": self._id, **fields})
