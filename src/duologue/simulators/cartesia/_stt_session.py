"""Cartesia's STT WebSocket with turns, as the service behaves."""

from __future__ import annotations

from uuid import uuid4

from duologue.clock import Clock
from duologue.json_types import JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.recognition import RecognizerSession
from duologue.simulators._speech.recognizers import Recognizer
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


class CartesiaSTTSession(RecognizerSession):
    """One connection to the recogniser, whose audio has ``rate`` Hz."""

    def __init__(
        self,
        channel: EventChannel,
        clock: Clock,
        recognizer: Recognizer,
        rate: int,
        *,
        clock_scale: float,
    ) -> None:
        super().__init__(channel, clock, recognizer, AudioTurns(rate), idle_s=IDLE_S / clock_scale)
        self._id = uuid4().hex
        self._last_text = ""

    async def begin(self) -> None:
        """Send the first event."""
        self._tell("connected")

    def inject_error(self, error: faults.Error) -> None:
        """Send an error."""
        self._tell(
            "error", error_code=error.code, title="Error", message=error.message, status_code=500
        )

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        match event.get("type"):
            case "close":
                self.end_turn()
                self.close_when_done()
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

    def turn_signal(self, signal: TurnSignal, text: str) -> None:
        """Tell the client of a turn."""
        match signal:
            case TurnBegan():
                self._tell("turn.start")
            case TurnGrew() if text != self._last_text:
                self._tell("turn.update", transcript=text)
            case TurnPaused() if text:
                self._tell("turn.eager_end", transcript=text)
            case TurnWentOn():
                self._tell("turn.resume")
            case TurnDone():
                self._tell("turn.end", transcript=text)
            case _:
                pass  # Nothing has changed.
        self._last_text = text

    def _tell(self, kind: str, **fields: str | int) -> None:
        self.send(kind, {"type": kind, "request_id": self._id, **fields})
