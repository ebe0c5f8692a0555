"""The audio of replies on a WebSocket: events, sent as fast as the audio is made."""

from __future__ import annotations

from duologue.audio import Samples
from duologue.simulators._openai_protocol.audio_formats import AudioEncoder
from duologue.simulators._openai_protocol.dialect import Emit
from duologue.simulators._openai_protocol.reply import OutgoingReply
from duologue.simulators._openai_protocol.schema import RATE


class EventAudioSink:
    """Sends audio as ``response.*.delta``; the client plays it at its own pace."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._encoders: dict[str, AudioEncoder] = {}

    def write(self, reply: OutgoingReply, samples: Samples) -> None:
        """Send the next audio."""
        encoder = self._encoders.get(reply.id)
        if encoder is None:
            encoder = AudioEncoder(reply.spec.audio_format, RATE)
            self._encoders[reply.id] = encoder
        self._send_delta(reply, encoder.encode(samples))

    def end_message(self, reply: OutgoingReply) -> None:
        """Send the audio that the encoder holds back."""
        encoder = self._encoders.pop(reply.id, None)
        if encoder is not None:
            self._send_delta(reply, encoder.flush())

    def end_reply(self, reply: OutgoingReply) -> None:
        """Do nothing: no audio outlives its message."""

    def close(self) -> None:
        """Drop the audio that the encoders hold back."""
        self._encoders.clear()

    def _send_delta(self, reply: OutgoingReply, text: str) -> None:
        if text:
            self._emit(
                f"response.{reply.dialect.audio}.delta", {**reply.event_fields, "delta": text}
            )
