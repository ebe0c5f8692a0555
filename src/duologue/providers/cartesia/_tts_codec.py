"""Cartesia's TTS WebSocket, API version 2026-03-01 (sans-IO).

One context is one reply. Its first message begins it; all messages of it say the same but for the
transcript. A context ends by ``continue: false``, or a second after its last audio.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from duologue.errors import SessionError
from duologue.json_types import JsonObject
from duologue.pipeline.tts_codec import (
    ContextAudio,
    ContextEnded,
    ContextFailed,
    ContextTokens,
    VoiceEvent,
    VoiceFailed,
)
from duologue.providers._json_fields import object_field, optional_str
from duologue.providers._json_text import encode_object
from duologue.providers._speech_json import JsonDecoder, audio_field, columns


class CartesiaTTSCodec(JsonDecoder[VoiceEvent]):
    """One connection of Cartesia's TTS.

    Args:
        request: The fields of every message: model, voice, format and so on.
        rate: Hz of the audio.
        make_error: Makes the error for a code and message of the service.
    """

    def __init__(
        self, request: JsonObject, rate: int, make_error: Callable[[str, str], SessionError]
    ) -> None:
        super().__init__()
        self._request = request
        self._rate = rate
        self._make_error = make_error

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

    def decode_event(self, event: JsonObject) -> Sequence[VoiceEvent]:
        """Return what an event means."""
        context = optional_str(event, "context_id") or ""
        match event.get("type"):
            case "chunk":
                frame = audio_field(event, "data", self._rate)
                return () if frame is None else [ContextAudio(context, frame)]
            case "timestamps":
                return [
                    ContextTokens(
                        context,
                        columns(object_field(event, "word_timestamps"), "words", "start", "end"),
                    )
                ]
            case "done":
                return [ContextEnded(context)]
            case "error":
                return [self._error(context, event)]
            case "flush_done" | "phoneme_timestamps":
                return ()
            case _:
                self.unknown += 1
                return ()

    def _error(self, context: str, event: JsonObject) -> VoiceEvent:
        status = event.get("status_code")
        code = optional_str(event, "error_code") or ("" if status is None else str(status))
        if status == 429:
            code = "concurrency_limited"  # Contexts that were cancelled still count.
        text = optional_str(event, "message") or optional_str(event, "title") or ""
        error = self._make_error(code, text or (optional_str(event, "error") or ""))
        return ContextFailed(context, error) if context else VoiceFailed(error)

    def _message(self, context: str, text: str, *, more: bool) -> bytes:
        return encode_object(
            {**self._request, "context_id": context, "transcript": text, "continue": more}
        )
