"""Deepgram's recogniser Flux, ``/v2/listen``, as the service behaves. Its clock is the audio."""

from __future__ import annotations

from uuid import uuid4

from duologue.clock import Clock
from duologue.json_types import Json, JsonObject
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


class FluxSTTSession(RecognizerSession):
    """One connection to Flux, whose audio has ``rate`` Hz."""

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
        turns = AudioTurns(rate, eager_s=0.2 if eager else None, end_s=min(0.5, timeout_s))
        super().__init__(channel, clock, recognizer, turns)
        self._id = str(uuid4())
        self._sequence = 0
        self._eager_text: str | None = None

    async def begin(self) -> None:
        """Send the first event."""
        self._tell("Connected", {})

    def inject_error(self, error: faults.Error) -> None:
        """Send an error, which is fatal."""
        self._tell("Error", {"code": error.code, "description": error.message})

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        match event.get("type"):
            case "ForceEndTurn":
                self.end_turn()
            case "CloseStream":
                self.close_when_done()
            case "Configure":
                self._tell(
                    "ConfigureSuccess", {"thresholds": {}, "keyterms": event.get("keyterms", [])}
                )
            case kind:
                message = f"unknown message type {kind}"
                self._tell("Error", {"code": "UNPARSABLE_CLIENT_MESSAGE", "description": message})
                self._channel.close(1008, message)

    def turn_signal(self, signal: TurnSignal, text: str) -> None:
        """Tell the client of a turn."""
        turn, at = signal.turn, signal.at
        match signal:
            case TurnBegan():
                self._eager_text = None
                self._turn_info("StartOfTurn", turn, self._detector.seconds, "")
            case TurnGrew():
                self._turn_info("Update", turn, at, text)
            case TurnPaused():
                if text:
                    self._eager_text = text
                    self._turn_info("EagerEndOfTurn", turn, at, text)
            case TurnWentOn():
                if self._eager_text is not None:
                    self._turn_info("TurnResumed", turn, at, self._eager_text)
                self._eager_text = None
            case TurnDone(forced=forced):
                if self._eager_text not in (None, text):
                    self._turn_info("TurnResumed", turn, at, text)
                self._turn_info("EndOfTurn", turn, at, text, "manual" if forced else "model")

    def _turn_info(
        self, event: str, turn: int, at: float, text: str, trigger: str | None = None
    ) -> None:
        fields: JsonObject = {
            "event": event,
            "turn_index": turn,
            "audio_window_start": round(self._start, 3),
            "audio_window_end": round(at, 3),
            "transcript": text,
            "words": [
                {"word": word, "confidence": 0.99, "start": start, "end": end}
                for word, start, end in self.timed(text, at)
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
