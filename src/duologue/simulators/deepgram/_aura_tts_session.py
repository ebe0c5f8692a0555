"""Deepgram's voices Aura, ``/v1/speak``, as the service behaves."""

from __future__ import annotations

from collections import deque
from uuid import uuid4

from duologue.clock import Clock
from duologue.json_types import JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.sessions import SpeechSession
from duologue.simulators._speech.voices import Voice

MAX_FLUSHES = 20
"""Flushes in a minute; more are answered by a warning, and nothing is spoken."""
MAX_CHARS = 2000
CHUNK_S = 0.05
PIECE_S = 0.002


class AuraTTSSession(SpeechSession):
    """One connection to an Aura voice.

    Attributes:
        flushed: The texts that were flushed.
        cleared: How often the client cleared.
        flushes_refused: Flushes over the limit of a minute.
    """

    def __init__(
        self, channel: EventChannel, clock: Clock, voice: Voice, *, stale_frames: int
    ) -> None:
        super().__init__(channel, clock)
        self._voice = voice
        self._stale_frames = stale_frames
        self._text = ""
        self._generation = 0
        self._sequence = 0
        self._flush_times: deque[float] = deque()
        self.flushed: list[str] = []
        self.cleared = 0
        self.flushes_refused = 0

    async def begin(self) -> None:
        """Send the first event."""
        metadata: JsonObject = {
            "type": "Metadata",
            "request_id": str(uuid4()),
            "model_name": "aura-2-thalia-en",
            "model_version": "1",
            "model_uuid": str(uuid4()),
        }
        self.send("Metadata", metadata)

    @property
    def open_contexts(self) -> list[str]:
        """Text that was sent and is neither spoken nor cleared."""
        return [self._text] if self._text else []

    def inject_error(self, error: faults.Error) -> None:
        """Send an error."""
        event: JsonObject = {
            "type": "Error",
            "err_code": error.code,
            "description": error.message,
        }
        self.send("Error", event)

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        match event.get("type"):
            case "Speak":
                text = event.get("text")
                if not isinstance(text, str) or not text:
                    self._warn("DATA-0000", "text is required")
                elif len(text) > MAX_CHARS:
                    self._warn("DATA-0001", "text is longer than 2000 characters")
                else:
                    self._text += text
            case "Flush":
                self._flush()
            case "Clear":
                self._generation += 1
                self._text = ""
                self.cleared += 1
                self.do(self._confirm("Cleared"))
            case "Close":
                self.close_when_done()
            case kind:
                self._warn("DATA-0000", f"unknown message type {kind}")

    def _flush(self) -> None:
        now = self._clock.now()
        while self._flush_times and now - self._flush_times[0] > 60:
            self._flush_times.popleft()
        if len(self._flush_times) >= MAX_FLUSHES:
            self.flushes_refused += 1
            self._warn("EXCEEDED_FLUSH_LIMIT", "too many flushes in a minute")
            return
        self._flush_times.append(now)
        text, self._text = self._text, ""
        self.flushed.append(text)
        self.do(self._speak(text, self._generation))

    async def _speak(self, text: str, generation: int) -> None:
        late = self._stale_frames
        step = int(CHUNK_S * self._voice.rate)
        async for piece in self._voice.speak(text):
            for begin in range(0, len(piece.samples), step):
                if generation != self._generation:
                    # What is on its way when the client clears still comes.
                    late -= 1
                    if late < 0:
                        return
                self.send_audio(piece.samples[begin : begin + step].tobytes())
            await self._clock.sleep(PIECE_S)
        if generation == self._generation:
            await self._confirm("Flushed")

    async def _confirm(self, kind: str) -> None:
        self.send(kind, {"type": kind, "sequence_id": self._sequence})
        self._sequence += 1

    def _warn(self, code: str, description: str) -> None:
        self.send("Warning", {"type": "Warning", "code": code, "description": description})
