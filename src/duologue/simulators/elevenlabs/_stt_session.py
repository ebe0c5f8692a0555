"""ElevenLabs' realtime STT, Scribe, with manual commits, as the service behaves."""

from __future__ import annotations

from uuid import uuid4

import pybase64

from duologue.clock import Clock
from duologue.json_types import Json, JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.recognition import ENDLESS_S, RecognizerSession
from duologue.simulators._speech.recognizers import Recognizer
from duologue.simulators._speech.turns import AudioTurns, TurnDone, TurnGrew, TurnSignal

IDLE_S = 10.0
"""Seconds without audio after which the service closes with 1000."""
MIN_COMMIT_S = 0.3


class ScribeSession(RecognizerSession):
    """One connection to Scribe, whose audio has ``rate`` Hz."""

    def __init__(
        self,
        channel: EventChannel,
        clock: Clock,
        recognizer: Recognizer,
        rate: int,
        *,
        timestamps: bool,
        clock_scale: float,
    ) -> None:
        turns = AudioTurns(rate, eager_s=None, end_s=ENDLESS_S)
        super().__init__(channel, clock, recognizer, turns, idle_s=IDLE_S / clock_scale)
        self._timestamps = timestamps
        self._uncommitted = 0
        """Bytes of audio since the last commit."""

    async def begin(self) -> None:
        """Send the first event."""
        self._tell("session_started", session_id=uuid4().hex, config={})

    def kind_of(self, event: JsonObject) -> str:
        """Return ``commit`` or ``input_audio_chunk``."""
        return "commit" if event.get("commit") is True else "input_audio_chunk"

    def inject_error(self, error: faults.Error) -> None:
        """Send an error."""
        self._tell(error.code, error=error.message)

    def idle(self) -> None:
        """Close, as the service does when no audio comes."""
        self._channel.close(1000, "")

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        self.received.pop()  # Audio is not kept.
        audio = event.get("audio_base_64")
        if event.get("message_type") != "input_audio_chunk" or not isinstance(audio, str):
            self._tell("input_error", error="an input_audio_chunk with audio_base_64 is required")
            return
        data = pybase64.b64decode(audio)
        self._uncommitted += len(data)
        self.binary(data)
        if event.get("commit") is True:
            self._commit()

    def _commit(self) -> None:
        if self._uncommitted < MIN_COMMIT_S * self._rate * 2:
            self._tell("commit_throttled", error="too little audio since the last commit")
            return
        self._uncommitted = 0
        if not self.end_turn():
            self.do(self._commit_nothing())

    async def _commit_nothing(self) -> None:
        self._committed("", self._detector.seconds)

    def turn_signal(self, signal: TurnSignal, text: str) -> None:
        """Tell the client of a turn."""
        match signal:
            case TurnGrew() if text:
                self._tell("partial_transcript", text=text)
            case TurnDone(at=at):
                self._committed(text, at)
            case _:
                pass  # The service tells nothing else.

    def _committed(self, text: str, at: float) -> None:
        self._tell("committed_transcript", text=text)
        if not self._timestamps:
            return
        timed: list[Json] = [
            {"text": word, "start": start, "end": end, "type": "word", "logprob": -0.1}
            for word, start, end in self.timed(text, at)
        ]
        self._tell("committed_transcript_with_timestamps", text=text, words=timed)

    def _tell(self, kind: str, **fields: Json) -> None:
        self.send(kind, {"message_type": kind, **fields})
