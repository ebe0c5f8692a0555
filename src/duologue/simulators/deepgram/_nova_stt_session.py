"""Deepgram's recogniser Nova, ``/v1/listen``, as the service behaves."""

from __future__ import annotations

from uuid import uuid4

from duologue.clock import Clock
from duologue.json_types import JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.recognition import ENDLESS_S, RecognizerSession
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

IDLE_S = 10.0
"""Seconds without audio or a message after which the service closes a connection: NET-0001."""


class NovaSTTSession(RecognizerSession):
    """One connection to Nova, whose audio has ``rate`` Hz.

    It finds no turns: text is final after a ``Finalize``, and nothing else ends it. A ``Finalize``
    without anything to recognise is not answered.
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
        turns = AudioTurns(rate, eager_s=None, end_s=ENDLESS_S)
        super().__init__(channel, clock, recognizer, turns, idle_s=IDLE_S / clock_scale)
        self._id = str(uuid4())

    def inject_error(self, error: faults.Error) -> None:
        """Send an error."""
        self.send("Error", {"type": "Error", "variant": error.code, "description": error.message})

    def idle(self) -> None:
        """Close, as the service does without audio and without a ``KeepAlive``."""
        self._channel.close(1011, "NET-0001: no audio or text data was received in 10 seconds")

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        match event.get("type"):
            case "Finalize":
                self.end_turn()
            case "CloseStream":
                self.end_turn()
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

    def turn_signal(self, signal: TurnSignal, text: str) -> None:
        """Tell the client of a turn."""
        match signal:
            case TurnBegan(at=at):
                started: JsonObject = {"type": "SpeechStarted", "channel": [0], "timestamp": at}
                self.send("SpeechStarted", started)
            case TurnGrew(at=at):
                self._results(text, at, final=False)
            case TurnDone(at=at):
                self._results(text, at, final=True)
            case TurnPaused() | TurnWentOn():
                pass  # The detector tells neither.

    def _results(self, text: str, at: float, *, final: bool) -> None:
        timed: list[JsonObject] = [
            {
                "word": word.strip(".,?!").lower(),
                "punctuated_word": word,
                "start": start,
                "end": end,
                "confidence": 0.99,
            }
            for word, start, end in self.timed(text, at)
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
