"""Deepgram's voices Flux: ``/v2/speak`` (sans-IO).

A turn of the service is a context; one is spoken at a time. Audio comes as binary messages without
an id: what comes between ``SpeechStarted`` and ``SpeechMetadata`` is the turn's. ``Interrupt`` with
the seconds that were heard is answered by the text that was spoken by then. Those seconds count
from the beginning of the session's audio, and after an interruption from what was played of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, SessionError
from duologue.json_types import JsonObject
from duologue.pipeline.tts_codec import (
    ContextAudio,
    ContextEnded,
    ContextStopped,
    VoiceEvent,
    VoiceFailed,
)
from duologue.providers._json_fields import number_field, optional_str
from duologue.providers._json_text import encode_object
from duologue.providers._speech_json import JsonDecoder
from duologue.realtime import BinaryMessage

_REFUSED_INTERRUPTS = frozenset(
    {"NO_AUDIO_GENERATED", "INTERRUPT_IN_PROGRESS", "INVALID_INTERRUPT_OFFSET"}
)
"""Warnings that say that an interruption was ignored: the turn goes on."""
_SILENT = frozenset(
    {"Connected", "SpeechStarted", "Flushed", "SessionMetadata", "ConfigureSuccess"}
)


class FluxTTSCodec(JsonDecoder[VoiceEvent]):
    """One connection of Flux TTS.

    Args:
        rate: Hz of the audio.
        make_error: Makes the error for a code and message of the service.
    """

    def __init__(self, rate: int, make_error: Callable[[str, str], SessionError]) -> None:
        super().__init__()
        self._rate = rate
        self._make_error = make_error
        self._context = ""
        self._stopping = ""
        self._session_s = 0.0
        """Seconds of audio of the session, as the service counts them."""
        self._context_start_s = 0.0
        self._interrupted_ms = 0
        """The position of the last interruption; the next must be behind it."""
        self._odd_byte = b""

    def open(self) -> Sequence[bytes]:
        """Return nothing: everything is in the address."""
        return ()

    def start(self, context: str) -> Sequence[bytes]:
        """Begin a context."""
        self._context, self._odd_byte = context, b""
        self._context_start_s = self._session_s
        return ()

    def text(self, context: str, text: str) -> Sequence[bytes]:
        """Return the message that carries text."""
        del context
        return [encode_object({"type": "Speak", "text": text})]

    def flush(self, context: str) -> Sequence[bytes]:
        """Return nothing: the service finds the places to speak from by itself."""
        del context
        return ()

    def finish(self, context: str) -> Sequence[bytes]:
        """Return the message that ends the turn."""
        del context
        return [encode_object({"type": "Flush"})]

    def cancel(self, context: str, played_s: float | None) -> Sequence[bytes]:
        """Return the message that stops the turn, at what the person heard of it if known."""
        self._context, self._stopping = "", context
        message: JsonObject = {"type": "Interrupt"}
        if played_s is not None:
            at_s = min(self._context_start_s + played_s, self._session_s)
            at_ms = int(at_s * 1000)
            if at_ms > self._interrupted_ms:
                message["playback_offset"] = {"type": "time_ms", "value": at_ms}
        return [encode_object(message)]

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
            case "SpeechMetadata":
                context, self._context = self._context, ""
                return [ContextEnded(context)] if context else ()
            case "SpeechInterrupted":
                return self._interrupted(event)
            case "Warning":
                return self._warning(event)
            case "Error":
                code = optional_str(event, "code") or ""
                words = optional_str(event, "description") or optional_str(event, "message") or ""
                return [VoiceFailed(self._make_error(code, words))]
            case kind:
                self.unknown += kind not in _SILENT
                return ()

    def _audio(self, data: bytes) -> Sequence[VoiceEvent]:
        data = self._odd_byte + data
        even = len(data) & ~1
        self._odd_byte = data[even:]
        self._session_s += even / 2 / self._rate
        if not self._context or not even:
            return ()
        samples = np.frombuffer(data[:even], "<i2")
        return [ContextAudio(self._context, AudioFrame(samples, self._rate))]

    def _interrupted(self, event: JsonObject) -> Sequence[VoiceEvent]:
        played_ms = number_field(event, "audio_played_ms")
        if played_ms is not None:
            self._session_s, self._interrupted_ms = played_ms / 1000, int(played_ms)
        context, self._stopping = self._stopping, ""
        return [ContextStopped(context, optional_str(event, "text_spoken"))] if context else ()

    def _warning(self, event: JsonObject) -> Sequence[VoiceEvent]:
        code = optional_str(event, "code") or ""
        if self._stopping and code in _REFUSED_INTERRUPTS:
            # Its audio would be taken for that of the next turn.
            words = f"the service did not stop speaking ({code})"
            error = self._make_error(code, optional_str(event, "description") or words)
            return [VoiceFailed(SessionError(str(error), code=code, kind=ErrorKind.RECYCLE))]
        if self._stopping and code == "NO_ACTIVE_SPEECH":
            context, self._stopping = self._stopping, ""
            return [ContextStopped(context)]
        return ()
