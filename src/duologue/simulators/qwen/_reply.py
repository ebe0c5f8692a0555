"""One reply of the server, with the fields of this service."""

from __future__ import annotations

from typing import ClassVar

from duologue.json_types import Json, JsonObject
from duologue.simulators._fields import text_at
from duologue.simulators._openai_protocol.dialect import Dialect
from duologue.simulators._openai_protocol.reply import TOKEN_SAMPLES, OutgoingReply
from duologue.simulators.qwen._dialect import BETA


class QwenReply(OutgoingReply):
    """A reply that always ends with ``response.done``."""

    dialect: ClassVar[Dialect] = BETA

    def to_json(self, details: Json = None) -> JsonObject:
        """Return the response object in its current state."""
        spec = self.spec
        text = spec.modality == "text"
        shown: JsonObject = {
            "id": self.id,
            "object": "realtime.response",
            "conversation_id": spec.conversation_id,
            "status": self.status,
            "modalities": ["text"] if text else ["text", "audio"],
            "voice": spec.voice,
            "output_audio_format": "pcm",
            "output": [dict(item) for item in self._output],
        }
        if details is not None:
            shown["status_details"] = details
        if self.ended:
            shown["usage"] = self._usage()
        return shown

    def _part(self) -> JsonObject:
        text = self._message.text if self._message is not None else ""
        return {"type": "text" if self.spec.modality == "text" else "audio", "text": text}

    def _usage(self) -> JsonObject:
        audio = -(-self.samples // TOKEN_SAMPLES)
        counts: JsonObject = {name: count for name, count in self.input_tokens.items() if count}
        total = sum(count for count in counts.values() if isinstance(count, int))
        usage: JsonObject = {
            "total_tokens": total + self.text_tokens + audio,
            "input_tokens": total,
            "output_tokens": self.text_tokens + audio,
            "input_tokens_details": {"text_tokens": 0, "audio_tokens": 0, **counts},
            "output_tokens_details": {"text_tokens": self.text_tokens, "audio_tokens": audio},
        }
        if self.spec.plugins is not None:
            usage["plugins"] = self.spec.plugins
        return usage


class UnfinishedReply(QwenReply):
    """A reply that ends without ``response.done`` when the client has cancelled it.

    qwen3.5 was observed to do that: its last event is ``response.output_item.done``.
    """

    def send_done(self, details: Json) -> None:
        """Send ``response.done``, unless the client has cancelled the reply."""
        if text_at(details, "reason") != "client_cancelled":
            super().send_done(details)
