"""Deepgram's voices Flux, ``/v2/speak``, as the service behaves.

One turn is spoken at a time. The offsets of interruptions count from the start of the session's
audio, and after an interruption from what was played of it.
"""

from __future__ import annotations

from collections import deque
from uuid import uuid4

from duologue.clock import Clock
from duologue.json_types import Json, JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.sessions import SpeechSession
from duologue.simulators._speech.voices import Voice

CHUNK_S = 0.05
PIECE_S = 0.002


class FluxTTSSession(SpeechSession):
    """One connection to a Flux voice.

    With ``speed``, so many seconds of audio are made in a second.

    Attributes:
        interrupts: The offsets in ms of the client's interruptions; None without one.
        spoken: The texts of the turns, whole or as far as they were spoken.
    """

    def __init__(
        self,
        channel: EventChannel,
        clock: Clock,
        voice: Voice,
        *,
        stale_frames: int,
        speed: float | None = None,
    ) -> None:
        super().__init__(channel, clock)
        self._speed = speed
        self._voice = voice
        self._stale_frames = stale_frames
        self._waiting: deque[str] = deque()
        self._flushed = False
        self._speaking = False
        self._generation = 0
        self._speech_id = ""
        self._words: list[tuple[str, float]] = []
        """The words of the turn, and the session's second at which each ends."""
        self._turn_text = ""
        self._played_s = 0.0
        """Seconds of the session's audio, as an interruption rebases them."""
        self._made_s = 0.0
        """Seconds of audio that were sent in the session."""
        self._turn_start_s = 0.0
        self._last_offset = 0.0
        self.interrupts: list[float | None] = []
        self.spoken: list[str] = []

    async def begin(self) -> None:
        """Send the first event."""
        self._tell("Connected", request_id=str(uuid4()), model_name="flux", model_version="1")

    @property
    def open_contexts(self) -> list[str]:
        """The turn that is neither spoken nor interrupted."""
        return [self._speech_id] if self._speech_id or self._waiting else []

    def inject_error(self, error: faults.Error) -> None:
        """Send an error."""
        self._tell("Error", code=error.code, description=error.message)

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        match event.get("type"):
            case "Speak":
                text = event.get("text")
                if isinstance(text, str) and text:
                    self._waiting.append(text)
                    self._turn_text += text
                    self._go_on()
                else:
                    self._warn("DATA-0000")
            case "Flush":
                self._flushed = True
                self._tell("Flushed", speech_id=self._speech_id)
                self._go_on()
            case "Interrupt":
                self._interrupt(event.get("playback_offset"))
            case "Configure":
                self._tell("ConfigureSuccess", applied={})
            case "Close":
                self.close_when_done()
            case kind:
                self._warn(f"UNKNOWN_{kind}")

    def _go_on(self) -> None:
        if not self._speaking:
            self._speaking = True
            self.do(self._speak(self._generation))

    async def _speak(self, generation: int) -> None:
        late = self._stale_frames
        step = int(CHUNK_S * self._voice.rate)
        while self._waiting:
            text = self._take_text()
            if not text:
                break
            if not self._speech_id:
                self._speech_id = uuid4().hex
                self._turn_start_s = self._played_s
                self._tell("SpeechStarted", speech_id=self._speech_id)
            async for piece in self._voice.speak(text):
                base = self._played_s
                self._words += [(word, base + end) for word, _, end in piece.words]
                for begin in range(0, len(piece.samples), step):
                    if generation != self._generation:
                        late -= 1
                        if late < 0:
                            return
                    chunk = piece.samples[begin : begin + step]
                    self.send_audio(chunk.tobytes())
                    self._made_s += len(chunk) / self._voice.rate
                    if generation == self._generation:
                        self._played_s += len(chunk) / self._voice.rate
                    if self._speed is not None:
                        await self._clock.sleep(len(chunk) / self._voice.rate / self._speed)
                await self._clock.sleep(PIECE_S)
                if generation != self._generation:
                    return
        self._speaking = False
        if self._flushed and not self._waiting:
            self._finish()

    def _take_text(self) -> str:
        """Return what can be spoken: whole words, and the rest once the turn is flushed."""
        text = "".join(self._waiting)
        self._waiting.clear()
        if self._flushed:
            return text
        cut = text.rfind(" ") + 1
        if text[cut:]:
            self._waiting.append(text[cut:])
        return text[:cut]

    def _finish(self) -> None:
        if self._speech_id:
            self.spoken.append(self._turn_text)
            self._tell("SpeechMetadata", **self._metadata())
        self._reset()

    def _metadata(self) -> dict[str, Json]:
        return {
            "speech_id": self._speech_id,
            "audio_duration_ms": round((self._played_s - self._turn_start_s) * 1000),
            "input_character_count": len(self._turn_text),
            "billable_character_count": len(self._turn_text),
            "controls_applied": {},
        }

    def _interrupt(self, offset: Json) -> None:
        value = offset.get("value") if isinstance(offset, dict) else None
        at_ms = float(value) if isinstance(value, int | float) else None
        self.interrupts.append(at_ms)
        if not (self._speech_id or self._waiting):
            self._warn("NO_ACTIVE_SPEECH")
            return
        if not self._made_s:
            self._warn("NO_AUDIO_GENERATED")
            return
        if at_ms is not None and not self._last_offset < at_ms <= self._played_s * 1000 + 1:
            self._warn("INVALID_INTERRUPT_OFFSET")
            return
        self._generation += 1
        fields: dict[str, Json] = {"audio_played_ms": round(self._played_s * 1000)}
        self._last_offset = round(self._played_s * 1000)
        if at_ms is not None:
            self._last_offset = at_ms
            self._played_s = at_ms / 1000
            cut = 0
            for word, end in self._words:
                if end <= self._played_s + 1e-3:
                    cut = self._turn_text.index(word, cut) + len(word)
            fields["text_spoken"] = self._turn_text[:cut]
            fields["text_remaining"] = self._turn_text[cut:].lstrip()
            fields["audio_played_ms"] = round(at_ms)
            self.spoken.append(str(fields["text_spoken"]))
        fields["metadata"] = self._metadata()
        self.do(self._tell_interrupted(fields))
        self._reset()

    async def _tell_interrupted(self, fields: dict[str, Json]) -> None:
        self._tell("SpeechInterrupted", **fields)

    def _reset(self) -> None:
        self._speech_id, self._turn_text = "", ""
        self._words.clear()
        self._waiting.clear()
        self._flushed = self._speaking = False

    def _warn(self, code: str) -> None:
        self._tell("Warning", code=code, description=code.lower().replace("_", " "))

    def _tell(self, kind: str, **fields: Json) -> None:
        self.send(kind, {"type": kind, **fields})
