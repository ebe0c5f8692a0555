"""ElevenLabs' realtime STT, Scribe, with manual commits, as the service behaves."""

from __future__ import annotations

from uuid import uuid4

import numpy as np
import pybase64

from duologue.clock import Clock
from duologue.json_types import Json, JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.recognizers import Recognizer
from duologue.simulators._speech.sessions import SpeechSession
from duologue.simulators._speech.turns import AudioTurns, TurnBegan, TurnDone, TurnGrew, TurnSignal

IDLE_S = 10.0
"""Seconds without audio after which the service closes with 1000."""
MIN_COMMIT_S = 0.3
ENDLESS_S = 3600.0


class ScribeSession(SpeechSession):
    """One connection to Scribe, whose audio has ``rate`` Hz.

    Attributes:
        turns: The texts that were committed.
        samples: Samples of audio received.
    """

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
        super().__init__(channel, clock, idle_s=IDLE_S / clock_scale)
        self._recognizer = recognizer
        self._rate = rate
        self._timestamps = timestamps
        self._detector = AudioTurns(rate, eager_s=None, end_s=ENDLESS_S)
        self._start = 0.0
        self._uncommitted = 0
        self.turns: list[str] = []
        self.samples = 0

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
        samples = np.frombuffer(data[: len(data) & ~1], "<i2")
        self.samples += len(samples)
        self._uncommitted += len(samples)
        for signal in self._detector.push(samples):
            self.do(self._signal(signal))
        if event.get("commit") is True:
            self._commit()

    def _commit(self) -> None:
        if self._uncommitted < MIN_COMMIT_S * self._rate:
            self._tell("commit_throttled", error="too little audio since the last commit")
            return
        self._uncommitted = 0
        signals = self._detector.end()
        for signal in signals:
            self.do(self._signal(signal))
        if not signals:
            self.do(self._committed("", self._detector.seconds))

    async def _signal(self, signal: TurnSignal) -> None:
        match signal:
            case TurnBegan(at=at):
                self._start = at
            case TurnGrew(turn=turn, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=False)
                if text:
                    self._tell("partial_transcript", text=text)
            case TurnDone(turn=turn, at=at, samples=samples):
                text = await self._recognizer.text(turn, samples, self._rate, whole=True)
                self.turns.append(text)
                await self._committed(text, at)
            case _:
                pass  # The detector tells nothing else.

    async def _committed(self, text: str, at: float) -> None:
        self._tell("committed_transcript", text=text)
        if not self._timestamps:
            return
        words = text.split()
        step = max(0.0, at - self._start) / max(1, len(words))
        timed: list[Json] = [
            {
                "text": word,
                "start": round(self._start + index * step, 3),
                "end": round(self._start + (index + 1) * step, 3),
                "type": "word",
                "logprob": -0.1,
            }
            for index, word in enumerate(words)
        ]
        self._tell("committed_transcript_with_timestamps", text=text, words=timed)

    def _tell(self, kind: str, **fields: Json) -> None:
        self.send(kind, {"message_type": kind, **fields})
