"""ElevenLabs' TTS WebSockets, as the service behaves: one context a socket, and several.

Audio comes much faster than it is spoken. A context is over when it was closed and all that was
flushed is spoken; without ``close_context`` it is never final.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pybase64

from duologue.clock import Clock
from duologue.json_types import Json, JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.sessions import SpeechSession
from duologue.simulators._speech.voices import SpokenPiece, Voice

MAX_CONTEXTS = 5
"""Contexts on a socket; the sixth closes it with 1008."""
SCHEDULE = (120, 160, 250, 290)
"""Characters that are buffered before something is spoken, without ``auto_mode``."""
PIECE_S = 0.002
_SPELLING = ("contextId", "isFinal", "charStartTimesMs", "charDurationsMs")
_OTHER_SPELLING = ("context_id", "is_final", "charsStartTimesMs", "charsDurationsMs")
_FIXED = ("voice_settings", "generation_config", "pronunciation_dictionary_locators")
"""Fields of the first message only."""


@dataclass(slots=True)
class SimulatedContext:
    """One context, for tests to look at."""

    id: str
    text: str = ""
    spoken: str = ""
    settings: dict[str, Json] = field(default_factory=dict)
    closed: bool = False
    over: bool = False
    at_s: float = 0.0
    generations: int = 0
    waiting: deque[str] = field(default_factory=deque)
    buffer: str = ""
    active_at: float = 0.0


class ElevenLabsTTSSession(SpeechSession):
    """One connection to the voices.

    Args:
        channel: Carries the messages to the client.
        clock: Tells the time.
        voice: Speaks.
        multi: Whether the socket takes several contexts.
        auto_mode: Whether every text is spoken at once.
        context_idle_s: Seconds without text after which a context is over.
        absolute_times: Whether times count from the start of the context, not of the message.
        other_spelling: Whether fields have the other of the two spellings that were seen.
    """

    def __init__(
        self,
        channel: EventChannel,
        clock: Clock,
        voice: Voice,
        *,
        multi: bool,
        auto_mode: bool,
        context_idle_s: float,
        absolute_times: bool,
        other_spelling: bool,
    ) -> None:
        super().__init__(channel, clock)
        self._voice = voice
        self._multi = multi
        self._auto_mode = auto_mode
        self._context_idle_s = context_idle_s
        self._absolute_times = absolute_times
        self._names = _OTHER_SPELLING if other_spelling else _SPELLING
        self.contexts: dict[str, SimulatedContext] = {}
        """All contexts of the connection; an id that is used again has the newest."""

    @property
    def open_contexts(self) -> list[SimulatedContext]:
        """The contexts that are not over."""
        return [context for context in self.contexts.values() if not context.over]

    def kind_of(self, event: JsonObject) -> str:
        """Return how faults call a message: ``close_context``, ``flush`` or ``text``."""
        return next(
            (key for key in ("close_socket", "close_context", "flush") if key in event), "text"
        )

    def inject_error(self, error: faults.Error) -> None:
        """Send an error, after which the service closes the socket."""
        self._refuse(error.code, error.message)

    def message(self, event: JsonObject) -> None:
        """Process a message of the client."""
        if event.get("close_socket") is True:
            self.close_when_done()
            return
        name = event.get("context_id") if self._multi else ""
        if not isinstance(name, str):
            return  # It keeps the socket open.
        context = self.contexts.get(name)
        if context is None or context.over:
            context = self._begin(name, event)
        elif any(key in event and event[key] != context.settings.get(key) for key in _FIXED):
            self._refuse("invalid_settings", "voice settings can't change within a context")
            return
        if context is not None:
            self._take(context, event)

    def _begin(self, name: str, event: JsonObject) -> SimulatedContext | None:
        if event.get("close_context") is True:
            return None
        if len(self.open_contexts) >= MAX_CONTEXTS:
            self._refuse("max_active_conversations", "Maximum simultaneous contexts exceeded: 5")
            return None
        settings = {key: event[key] for key in _FIXED if key in event}
        context = self.contexts[name] = SimulatedContext(name, settings=settings)
        self.do(self._start(context))
        return context

    def _take(self, context: SimulatedContext, event: JsonObject) -> None:
        text = event.get("text")
        context.active_at = self._clock.now()
        if isinstance(text, str):
            if context.closed and text.strip():
                self._refuse("invalid_request", "the context is closed")
                return
            if text == "" and not self._multi:
                context.closed = True
                self._flush(context)
            context.text += text
            context.buffer += text
            schedule = SCHEDULE[min(context.generations, len(SCHEDULE) - 1)]
            enough = self._auto_mode or len(context.buffer) >= schedule
            if text.strip() and (enough or event.get("try_trigger_generation") is True):
                self._flush(context)
        if event.get("flush") is True:
            self._flush(context)
        if event.get("close_context") is True:
            context.closed = True

    @staticmethod
    def _flush(context: SimulatedContext) -> None:
        if context.buffer.strip():
            context.generations += 1
            context.waiting.append(context.buffer)
        context.buffer = ""

    async def _start(self, context: SimulatedContext) -> None:
        self.start(self._speak(context))

    async def _speak(self, context: SimulatedContext) -> None:
        context.active_at = self._clock.now()
        while True:
            if context.waiting:
                text = context.waiting.popleft()
                async for piece in self._voice.speak(text):
                    self._send_piece(context, piece)
                    await self._clock.sleep(PIECE_S)
                context.spoken += text
            elif context.closed or self._clock.now() - context.active_at > self._context_idle_s:
                break
            else:
                await self._clock.sleep(0.005)
        context.over = True
        context_id, is_final, *_ = self._names
        last: JsonObject = {"audio": None, is_final: True}
        if self._multi:
            last[context_id] = context.id
        self.send("final", last)
        if not self._multi:
            self._channel.close(1000, "")

    def _send_piece(self, context: SimulatedContext, piece: SpokenPiece) -> None:
        base_ms = round(context.at_s * 1000) if self._absolute_times else 0
        characters: list[str] = []
        starts: list[int] = []
        lengths: list[int] = []
        for word, start, end in piece.words:
            step = (end - start) / max(1, len(word))
            for index, character in enumerate(word):
                characters.append(character)
                starts.append(base_ms + round((start + index * step) * 1000))
                lengths.append(round(step * 1000))
            characters.append(" ")
            starts.append(base_ms + round(end * 1000))
            lengths.append(round((len(piece.samples) / self._voice.rate - end) * 1000))
        context_id, is_final, start_times, durations = self._names
        alignment: JsonObject = {
            "chars": [*characters],
            start_times: [*starts],
            durations: [*lengths],
        }
        event: JsonObject = {
            "audio": pybase64.b64encode(piece.samples.tobytes()).decode(),
            is_final: None,
            "alignment": alignment,
            "normalizedAlignment": alignment,
        }
        if self._multi:
            event[context_id] = context.id
        context.at_s += len(piece.samples) / self._voice.rate
        self.send("audio", event)

    def _refuse(self, code: str, message: str) -> None:
        self.send("error", {"message": message, "error": code, "code": 1008})
        self._channel.close(1008, code)
