"""Cartesia's TTS WebSocket, as the service behaves (sources in docs/simulators/speech.md).

A context is begun by its first message, and ended by ``continue: false`` or a second after its last
audio. A cancelled context sends what is being made of it to the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pybase64

from duologue.clock import Clock
from duologue.json_types import JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.sessions import SpeechSession
from duologue.simulators._speech.voices import SpokenPiece, Voice

IDLE_S = 300.0
"""Seconds without a message after which the service closes a connection."""
EXPIRY_S = 1.0
"""Seconds after its last audio after which a context without new text ends."""
RATES = (8000, 16000, 22050, 24000, 44100, 48000)
CHUNK_S = 0.1
"""Seconds of audio in a message."""
PIECE_S = 0.002
"""Seconds that the service takes to make a piece of audio: far faster than it is spoken."""
_FIXED = ("model_id", "voice", "output_format", "language")
"""Fields that must be the same in all messages of a context."""


@dataclass(slots=True)
class SimulatedContext:
    """One context, for tests to look at."""

    id: str
    settings: JsonObject
    text: str = ""
    spoken: str = ""
    """The text whose audio was sent."""
    at: float = 0.0
    """Seconds of audio that were sent."""
    ended: bool = False
    cancelled: bool = False
    over: bool = False
    waiting: list[str] = field(default_factory=list)
    active_at: float = 0.0


class CartesiaTTSSession(SpeechSession):
    """One connection to the voices.

    Args:
        channel: Carries the messages to the client.
        clock: Tells the time.
        make_voice: Makes the voice for a sample rate.
        max_contexts: Contexts that may be active at once.
        clock_scale: Divides the limits of time.
        with_timestamps: Whether word times are sent; the service leaves them out now and then.
    """

    def __init__(
        self,
        channel: EventChannel,
        clock: Clock,
        make_voice: Callable[[int], Voice],
        *,
        max_contexts: int,
        clock_scale: float,
        with_timestamps: bool,
    ) -> None:
        super().__init__(channel, clock, idle_s=IDLE_S / clock_scale)
        self._make_voice = make_voice
        self._max_contexts = max_contexts
        self._expiry_s = EXPIRY_S / clock_scale
        self._with_timestamps = with_timestamps
        self.contexts: dict[str, SimulatedContext] = {}
        """All contexts of the connection, in the order in which they were begun."""

    @property
    def open_contexts(self) -> list[SimulatedContext]:
        """The contexts that are not over."""
        return [context for context in self.contexts.values() if not context.over]

    def kind_of(self, event: JsonObject) -> str:
        """Return ``cancel`` or ``generate``."""
        return "cancel" if event.get("cancel") else "generate"

    def inject_error(self, error: faults.Error) -> None:
        """Send an error of the connection."""
        self._error(None, 500, error.code, error.message)

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        name = event.get("context_id")
        if not isinstance(name, str) or not name:
            self._error(None, 400, "invalid_request", "context_id is required")
        elif event.get("cancel") is True:
            self._cancel(name)
        else:
            self._generate(name, event)

    def _cancel(self, name: str) -> None:
        context = self.contexts.get(name)
        if context is not None:
            context.cancelled = True
            context.waiting.clear()

    def _generate(self, name: str, event: JsonObject) -> None:
        context = self.contexts.get(name)
        problem = self._problem(event, is_first=context is None)
        if problem:
            self._error(name, 400, "invalid_request", problem)
            return
        settings = {key: event[key] for key in _FIXED if key in event}
        if context is None:
            if len(self.open_contexts) >= self._max_contexts:
                self._error(name, 429, "concurrency_limited", "Too many concurrent contexts")
                return
            context = self.contexts[name] = SimulatedContext(name, settings)
            timestamps = event.get("add_timestamps") is True and self._with_timestamps
            self.do(self._serve(context, _rate_of(event), timestamps=timestamps))
        elif context.over or context.ended:
            self._error(name, 400, "invalid_request", "The context has ended")
            return
        elif event["transcript"] and settings != {
            key: context.settings.get(key) for key in settings
        }:
            self._error(name, 400, "invalid_request", "The settings of a context can't change")
            return
        text = str(event["transcript"])
        context.text += text
        context.active_at = self._clock.now()
        if text:
            context.waiting.append(text)
        if event.get("continue") is not True:
            context.ended = True

    def _problem(self, event: JsonObject, *, is_first: bool) -> str:
        """Return what is wrong with a message; "" if nothing is.

        The settings of a context may be left out behind its first message, and those of one without
        text do not count: the service's own client ends a context with other ones.
        """
        voice, output = event.get("voice"), event.get("output_format")
        if not isinstance(event.get("transcript"), str):
            return "transcript must be a string"
        if not is_first:
            return ""
        if not isinstance(event.get("model_id"), str):
            return "model_id is required"
        if not (isinstance(voice, dict) and voice.get("mode") == "id" and voice.get("id")):
            return "voice must be {mode, id}"
        if not isinstance(output, dict) or output.get("container") != "raw":
            return "output_format must have the container raw"
        if output.get("encoding") != "pcm_s16le":
            return "the simulator speaks pcm_s16le only"
        if _rate_of(event) not in RATES:
            return "sample_rate is not supported"
        return ""

    async def _serve(self, context: SimulatedContext, rate: int, *, timestamps: bool) -> None:
        """Speak a context in a task of its own, because contexts are spoken side by side."""
        voice = self._make_voice(rate)
        self.start(self._speak_context(context, voice, timestamps=timestamps))

    async def _speak_context(
        self, context: SimulatedContext, voice: Voice, *, timestamps: bool
    ) -> None:
        while True:
            if context.waiting:
                text = context.waiting.pop(0)
                async for piece in voice.speak(text):
                    await self._send_piece(context, piece, voice.rate, timestamps=timestamps)
                context.spoken += text
                context.active_at = self._clock.now()
            elif context.cancelled or context.ended or self._is_expired(context):
                break
            else:
                await self._clock.sleep(0.005)
        context.over = True
        self.send("done", {**self._base("done", context), "done": True})

    def _is_expired(self, context: SimulatedContext) -> bool:
        return context.at > 0 and self._clock.now() - context.active_at > self._expiry_s

    async def _send_piece(
        self, context: SimulatedContext, piece: SpokenPiece, rate: int, *, timestamps: bool
    ) -> None:
        if timestamps and piece.words:
            words, starts, ends = zip(*piece.words, strict=True)
            times: JsonObject = {
                "words": list(words),
                "start": [round(context.at + start, 5) for start in starts],
                "end": [round(context.at + end, 5) for end in ends],
            }
            self.send("timestamps", {**self._base("timestamps", context), "word_timestamps": times})
        step = int(CHUNK_S * rate)
        for begin in range(0, len(piece.samples), step):
            chunk = piece.samples[begin : begin + step]
            data = pybase64.b64encode(chunk.tobytes()).decode()
            self.send("chunk", {**self._base("chunk", context), "data": data, "step_time": 1.0})
            context.at += len(chunk) / rate
        await self._clock.sleep(PIECE_S)

    def _base(self, kind: str, context: SimulatedContext) -> JsonObject:
        return {"type": kind, "context_id": context.id, "done": False, "status_code": 206}

    def _error(self, name: str | None, status: int, code: str, message: str) -> None:
        event: JsonObject = {
            "type": "error",
            "done": True,
            "status_code": status,
            "error_code": code,
            "title": "Error",
            "message": message,
        }
        if name is not None:
            event["context_id"] = name
        self.send("error", event)


def _rate_of(event: JsonObject) -> int:
    output = event.get("output_format")
    rate = output.get("sample_rate") if isinstance(output, dict) else None
    return rate if isinstance(rate, int) else 0
