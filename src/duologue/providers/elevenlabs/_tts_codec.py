"""ElevenLabs' multi-context TTS WebSocket (sans-IO).

A context is begun by a message with a single space and the voice's settings, and ended by
``close_context``; then its audio comes to an end with ``isFinal``. Times come with each piece of
audio, by the character. The documentation and observers disagree on whether they count from the
start of the piece or of the context, so each message is placed by what fits its audio
(`_Context.base_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
from duologue.providers._speech_json import JsonDecoder, align_characters, audio_field, columns

_SPELLINGS = (
    ("chars", "charStartTimesMs", "charDurationsMs"),
    ("chars", "charsStartTimesMs", "charsDurationsMs"),
    ("characters", "char_start_times_ms", "char_durations_ms"),
)
"""The names of the columns of an alignment, all seen from the service."""


@dataclass(slots=True)
class _Context:
    received_s: float = 0.0
    """Seconds of audio so far."""

    def base_of(self, length_s: float, last_end_s: float) -> float:
        """Return from where the times of a message count, in seconds of the context.

        A message that says where its last character ends, and has ``length_s`` of audio, counts
        from its own start if that is as long as its audio, and from the context's start if that is
        as long as all audio so far.
        """
        to_piece = abs(last_end_s - length_s)
        to_context = abs(last_end_s - (self.received_s + length_s))
        return self.received_s if to_piece <= to_context else 0.0


class ElevenLabsTTSCodec(JsonDecoder[VoiceEvent]):
    """One connection of ElevenLabs' TTS.

    Args:
        settings: Fields of the message that begins a context, such as ``voice_settings``.
        rate: Hz of the audio.
        make_error: Makes the error for a code and message of the service.
    """

    def __init__(
        self, settings: JsonObject, rate: int, make_error: Callable[[str, str], SessionError]
    ) -> None:
        super().__init__()
        self._settings = settings
        self._rate = rate
        self._make_error = make_error
        self._contexts: dict[str, _Context] = {}

    def open(self) -> Sequence[bytes]:
        """Return nothing: everything is in the address."""
        return ()

    def start(self, context: str) -> Sequence[bytes]:
        """Return the message that begins a context; it must be the context's first."""
        self._contexts[context] = _Context()
        return [encode_object({"text": " ", "context_id": context, **self._settings})]

    def text(self, context: str, text: str) -> Sequence[bytes]:
        """Return the message that carries text, which must end with a space."""
        spaced = text if text[-1:].isspace() else f"{text} "
        return [encode_object({"text": spaced, "context_id": context})]

    def flush(self, context: str) -> Sequence[bytes]:
        """Return the message that has all text spoken now."""
        return [encode_object({"context_id": context, "flush": True})]

    def finish(self, context: str) -> Sequence[bytes]:
        """Return the messages that end the text; without the second there is no ``isFinal``."""
        return [*self.flush(context), *self._close(context)]

    def cancel(self, context: str, played_s: float | None) -> Sequence[bytes]:
        """Return the message that stops a context."""
        del played_s
        return self._close(context)

    def keep_alive(self) -> Sequence[bytes]:
        """Return nothing: an idle connection is replaced when it is needed."""
        return ()

    def decode_event(self, event: JsonObject) -> Sequence[VoiceEvent]:
        """Return what an event means; the service spells some fields in two ways."""
        name = optional_str(event, "contextId") or optional_str(event, "context_id") or ""
        if "error" in event or ("code" in event and "message" in event):
            return [self._error(name, event)]
        outputs: list[VoiceEvent] = []
        frame = audio_field(event, "audio", self._rate)
        length_s = 0.0 if frame is None else frame.duration
        outputs += self._tokens(name, event, length_s)
        if frame is not None and len(frame):
            outputs.append(ContextAudio(name, frame))
            if name in self._contexts:
                self._contexts[name].received_s += length_s
        if event.get("isFinal") is True or event.get("is_final") is True:
            self._contexts.pop(name, None)
            outputs.append(ContextEnded(name))
        if not outputs and "audio" not in event and event.get("type") != "flush_done":
            self.unknown += 1
        return outputs

    def _tokens(self, name: str, event: JsonObject, length_s: float) -> list[VoiceEvent]:
        alignment = object_field(event, "alignment")
        context = self._contexts.get(name)
        rows = next((rows for keys in _SPELLINGS if (rows := columns(alignment, *keys))), [])
        if not rows or context is None:
            return []
        texts, starts_ms, durations_ms = zip(*rows, strict=True)
        base = context.base_of(length_s, (starts_ms[-1] + durations_ms[-1]) / 1000)
        starts = [base + start / 1000 for start in starts_ms]
        ends = [
            start + duration / 1000 for start, duration in zip(starts, durations_ms, strict=True)
        ]
        return [ContextTokens(name, align_characters(texts, starts, ends))]

    def _error(self, name: str, event: JsonObject) -> VoiceEvent:
        code = optional_str(event, "error") or str(event.get("code") or "")
        error = self._make_error(code, optional_str(event, "message") or code)
        return ContextFailed(name, error) if name else VoiceFailed(error)

    def _close(self, context: str) -> Sequence[bytes]:
        return [encode_object({"context_id": context, "close_context": True})]
