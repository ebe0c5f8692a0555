"""Cartesia's TTS WebSocket, API version 2026-03-01 (sans-IO).

One context is one reply. Its first message begins it; all messages of it say the same but for the
transcript. A context ends by ``continue: false``, or a second after its last audio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pybase64

from duologue.audio import AudioFrame
from duologue.errors import SessionError
from duologue.json_types import Json, JsonObject
from duologue.pipeline.tts_codec import (
    ContextAudio,
    ContextEnded,
    ContextFailed,
    ContextTokens,
    VoiceEvent,
    VoiceFailed,
)
from duologue.providers._json_fields import MalformedError, object_field, optional_str
from duologue.providers._json_text import decode_object, encode_object


class CartesiaTTSCodec:
    """One connection of Cartesia's TTS.

    Args:
        request: The fields of every message: model, voice, format and so on.
        rate: Hz of the audio.
        make_error: Makes the error for a code and message of the service.
    """

    def __init__(
        self, request: JsonObject, rate: int, make_error: Callable[[str, str], SessionError]
    ) -> None:
        self._request = request
        self._rate = rate
        self._make_error = make_error
        self.unknown = 0
        """Messages of an unknown type."""
        self.malformed = 0

    def open(self) -> Sequence[bytes]:
        """Return nothing: the service needs no greeting."""
        return ()

    def start(self, context: str) -> Sequence[bytes]:
        """Return nothing: the first text begins a context."""
        del context
        return ()

    def text(self, context: str, text: str) -> Sequence[bytes]:
        """Return the message that carries text."""
        return [self._message(context, text, more=True)]

    def flush(self, context: str) -> Sequence[bytes]:
        """Return nothing: with a buffer of 0 ms every text is spoken at once."""
        del context
        return ()

    def finish(self, context: str) -> Sequence[bytes]:
        """Return the message that ends the text."""
        return [self._message(context, "", more=False)]

    def cancel(self, context: str, played_s: float | None) -> Sequence[bytes]:
        """Return the message that cancels a context."""
        del played_s
        return [encode_object({"context_id": context, "cancel": True})]

    def keep_alive(self) -> Sequence[bytes]:
        """Return nothing: the service has no such message, and closes idle connections."""
        return ()

    def decode(self, message: bytes) -> Sequence[VoiceEvent]:
        """Return what a message means."""
        try:
            return self._decode(decode_object(message))
        except MalformedError:
            self.malformed += 1
            return ()

    def _decode(self, event: JsonObject) -> Sequence[VoiceEvent]:
        context = optional_str(event, "context_id") or ""
        match event.get("type"):
            case "chunk":
                return self._audio(context, event)
            case "timestamps":
                return [ContextTokens(context, _tokens(object_field(event, "word_timestamps")))]
            case "done":
                return [ContextEnded(context)]
            case "error":
                return [self._error(context, event)]
            case "flush_done" | "phoneme_timestamps":
                return ()
            case _:
                self.unknown += 1
                return ()

    def _audio(self, context: str, event: JsonObject) -> Sequence[VoiceEvent]:
        data = event.get("data")
        if not isinstance(data, str):
            raise MalformedError("data")
        try:
            pcm = pybase64.b64decode(data)
            samples = np.frombuffer(pcm, "<i2")
        except ValueError as error:
            raise MalformedError("data") from error
        return [ContextAudio(context, AudioFrame(samples, self._rate))] if len(samples) else ()

    def _error(self, context: str, event: JsonObject) -> VoiceEvent:
        status = event.get("status_code")
        code = optional_str(event, "error_code") or ("" if status is None else str(status))
        text = optional_str(event, "message") or optional_str(event, "title") or ""
        error = self._make_error(code, text or (optional_str(event, "error") or ""))
        return ContextFailed(context, error) if context else VoiceFailed(error)

    def _message(self, context: str, text: str, *, more: bool) -> bytes:
        return encode_object(
            {**self._request, "context_id": context, "transcript": text, "continue": more}
        )


def _tokens(columns: JsonObject) -> list[tuple[str, float, float]]:
    """Return the rows of word timestamps, which come as columns."""
    words, starts, ends = (_list(columns, key) for key in ("words", "start", "end"))
    return [
        (word, float(start), float(end))
        for word, start, end in zip(words, starts, ends, strict=False)
        if isinstance(word, str) and isinstance(start, int | float) and isinstance(end, int | float)
    ]


def _list(columns: JsonObject, key: str) -> list[Json]:
    value = columns.get(key)
    return value if isinstance(value, list) else []
