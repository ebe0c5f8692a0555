"""Deepgram's voices Aura: ``/v1/speak`` (sans-IO).

Audio comes as binary messages without any id, so one context at a time is spoken: the audio between
the first ``Speak`` of a context and its last ``Flushed`` is its own. Each text is flushed, so that
the audio of a clause begins where the ``Flushed`` of the clause before it came. But the service
takes only 20 flushes a minute, so only the first clauses of a reply are flushed alone, and none
when replies follow each other fast.

``Clear`` stops a context; audio on its way comes until ``Cleared``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from duologue.audio import AudioFrame
from duologue.errors import SessionError
from duologue.json_types import JsonObject
from duologue.pipeline.tts_codec import (
    ContextAudio,
    ContextClause,
    ContextEnded,
    ContextStopped,
    VoiceEvent,
    VoiceFailed,
)
from duologue.providers._json_fields import optional_str
from duologue.providers._json_text import encode_object
from duologue.providers._speech_json import JsonDecoder
from duologue.realtime import BinaryMessage

MAX_CHARS = 2000
"""Characters of one ``Speak``."""
EAGER_FLUSHES = 2
"""Texts of a context that are flushed one by one; those behind them wait for a flush or the end."""
EAGER_MINUTE = 8
"""Flushes in the last minute above which no text is flushed alone: each reply needs one of 20."""
_SILENT = frozenset({"Metadata", "Warning"})


class AuraCodec(JsonDecoder[VoiceEvent]):
    """One connection of Aura.

    Args:
        rate: Hz of the audio.
        make_error: Makes the error for a code and message of the service.
        now: Returns monotonic seconds, to count the flushes of a minute.
    """

    def __init__(
        self,
        rate: int,
        make_error: Callable[[str, str], SessionError],
        now: Callable[[], float],
    ) -> None:
        super().__init__()
        self._now = now
        self._flush_times: deque[float] = deque()
        self._rate = rate
        self._make_error = make_error
        self._context = ""
        self._clearing = ""
        self._flushed: deque[str] = deque()
        """The texts of the flushes that the service has not confirmed, oldest first."""
        self._unflushed = ""
        self._flushes = 0
        self._told = False
        """Whether the audio of the oldest flush has begun."""
        self._finished = False
        self._odd_byte = b""

    def open(self) -> Sequence[bytes]:
        """Return nothing: everything is in the address."""
        return ()

    def start(self, context: str) -> Sequence[bytes]:
        """Begin a context."""
        self._context = context
        self._flushed.clear()
        self._unflushed, self._flushes, self._odd_byte = "", 0, b""
        self._told = self._finished = False
        return ()

    def text(self, context: str, text: str) -> Sequence[bytes]:
        """Return the messages that carry text, and flush the first of a context."""
        del context
        pieces = [text[at : at + MAX_CHARS] for at in range(0, len(text), MAX_CHARS)]
        messages = [encode_object({"type": "Speak", "text": piece}) for piece in pieces]
        self._unflushed += text
        if self._flushes < EAGER_FLUSHES and self._flushes_in_a_minute() < EAGER_MINUTE:
            messages += self._flush()
        return messages

    def flush(self, context: str) -> Sequence[bytes]:
        """Return the message that has all text spoken now."""
        del context
        return self._flush()

    def finish(self, context: str) -> Sequence[bytes]:
        """Return the message that ends the text."""
        del context
        self._finished = True
        return self._flush()

    def cancel(self, context: str, played_s: float | None) -> Sequence[bytes]:
        """Return the message that stops a context."""
        del played_s
        self._context, self._clearing = "", context
        return [encode_object({"type": "Clear"})]

    def keep_alive(self) -> Sequence[bytes]:
        """Return nothing: the service has no such message."""
        return ()

    def decode(self, message: bytes) -> Sequence[VoiceEvent]:
        """Return what a message means: audio if it is binary."""
        if isinstance(message, BinaryMessage):
            return self._audio(bytes(message))
        return super().decode(message)

    def decode_event(self, event: JsonObject) -> Sequence[VoiceEvent]:
        """Return what an event means."""
        match event.get("type"):
            case "Flushed":
                return self._take_flushed()
            case "Cleared":
                context, self._clearing = self._clearing, ""
                return [ContextStopped(context)] if context else ()
            case "Error":
                code = optional_str(event, "err_code") or optional_str(event, "code") or ""
                words = optional_str(event, "description") or optional_str(event, "err_msg") or ""
                return [VoiceFailed(self._make_error(code, words))]
            case kind:
                self.unknown += kind not in _SILENT
                return ()

    def _audio(self, data: bytes) -> Sequence[VoiceEvent]:
        if not self._context:
            return ()  # Of a context that was cleared.
        data = self._odd_byte + data
        even = len(data) & ~1
        self._odd_byte = data[even:]
        events = self._tell_clause()
        if even:
            samples = np.frombuffer(data[:even], "<i2")
            events.append(ContextAudio(self._context, AudioFrame(samples, self._rate)))
        return events

    def _tell_clause(self) -> list[VoiceEvent]:
        if self._told or not self._flushed:
            return []
        self._told = True
        return [ContextClause(self._context, self._flushed[0])]

    def _take_flushed(self) -> Sequence[VoiceEvent]:
        if not self._context or not self._flushed:
            return ()
        events = self._tell_clause()  # A clause without audio.
        self._flushed.popleft()
        self._told = False
        if self._finished and not self._flushed:
            events.append(ContextEnded(self._context))
            self._context = ""
        return events

    def _flush(self) -> list[bytes]:
        if not self._unflushed:
            return []
        self._flushed.append(self._unflushed)
        self._unflushed = ""
        self._flushes += 1
        self._flush_times.append(self._now())
        return [encode_object({"type": "Flush"})]

    def _flushes_in_a_minute(self) -> int:
        since = self._now() - 60.0
        while self._flush_times and self._flush_times[0] < since:
            self._flush_times.popleft()
        return len(self._flush_times)
