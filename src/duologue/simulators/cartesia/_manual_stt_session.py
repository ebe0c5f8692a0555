"""Cartesia's STT WebSocket without turns, as the service behaves. Its commands are bare words."""

from __future__ import annotations

from uuid import uuid4

from duologue.clock import Clock
from duologue.json_types import JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.recognition import ENDLESS_S, RecognizerSession
from duologue.simulators._speech.recognizers import Recognizer
from duologue.simulators._speech.turns import AudioTurns, TurnDone, TurnGrew, TurnSignal
from duologue.simulators.cartesia._stt_session import IDLE_S


class CartesiaManualSTTSession(RecognizerSession):
    """One connection to the recogniser, whose audio has ``rate`` Hz.

    Attributes:
        commands: The commands of the client, oldest first.
    """

    def __init__(
        self,
        channel: EventChannel,
        clock: Clock,
        recognizer: Recognizer,
        rate: int,
        *,
        language: str,
        clock_scale: float,
    ) -> None:
        turns = AudioTurns(rate, eager_s=None, end_s=ENDLESS_S)
        super().__init__(channel, clock, recognizer, turns, idle_s=IDLE_S / clock_scale)
        self._language = language
        self._id = uuid4().hex
        self.commands: list[str] = []

    def inject_error(self, error: faults.Error) -> None:
        """Send an error."""
        self._refuse(500, error.code, error.message)

    def message(self, event: JsonObject) -> None:
        """Refuse JSON: commands are bare words here."""
        self._refuse(400, "invalid_request", f"unknown command {event.get('type')}")

    def plain_text(self, text: str) -> None:
        """Process a command."""
        self.commands.append(text)
        self._channel.client_event(text)
        match text:
            case "finalize":
                self.end_turn()
                self.do(self._tell("flush_done"))
            case "close":
                self.end_turn()
                self.do(self._tell("done"))
                self.close_when_done()
            case _:
                self._refuse(400, "invalid_request", f"unknown command {text}")

    def turn_signal(self, signal: TurnSignal, text: str) -> None:
        """Tell the client of what was recognised."""
        match signal:
            case TurnGrew() if text:
                self._transcript(text, [], final=False)
            case TurnDone(at=at) if text:
                # The space between this and the next text belongs to this one.
                self._transcript(f"{text} ", self.timed(text, at), final=True)
            case _:
                pass  # It tells of nothing else.

    def _transcript(self, text: str, words: list[tuple[str, float, float]], *, final: bool) -> None:
        self.send(
            "transcript",
            {
                "type": "transcript",
                "request_id": self._id,
                "text": text,
                "is_final": final,
                "language": self._language,
                "words": [{"word": word, "start": start, "end": end} for word, start, end in words],
            },
        )

    async def _tell(self, kind: str) -> None:
        self.send(kind, {"type": kind, "request_id": self._id})

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send(
            "error",
            {
                "type": "error",
                "request_id": self._id,
                "status_code": status,
                "error_code": code,
                "title": "Error",
                "message": message,
            },
        )
