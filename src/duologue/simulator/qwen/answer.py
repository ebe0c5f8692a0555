"""One response in the shapes of this service."""

from __future__ import annotations

from typing import ClassVar

from duologue.items import Json
from duologue.simulator.fields import Object, text_at
from duologue.simulator.openai.answer import TOKEN_SAMPLES, Answer
from duologue.simulator.openai.dialect import Dialect
from duologue.simulator.qwen.dialect import BETA


class QwenAnswer(Answer):
    """A response; whatever ends it is told by ``response.done``."""

    dialect: ClassVar[Dialect] = BETA

    def shown(self, details: Json = None) -> Object:
        """The response object as it is now."""
        wanted = self.wanted
        text = wanted.modality == "text"
        shown: Object = {
            "id": self.id,
            "object": "realtime.response",
            "conversation_id": wanted.conversation_id,
            "status": self.status,
            "modalities": ["text"] if text else ["text", "audio"],
            "voice": wanted.voice,
            "output_audio_format": "pcm",
            "output": [dict(item) for item in self._output],
        }
        if details is not None:
            shown["status_details"] = details
        if self.over:
            shown["usage"] = self._usage()
        return shown

    def _part(self) -> Object:
        text = self._message.text if self._message is not None else ""
        return {"type": "text" if self.wanted.modality == "text" else "audio", "text": text}

    def _usage(self) -> Object:
        audio = -(-self.samples // TOKEN_SAMPLES)
        given: Object = {name: count for name, count in self.input_tokens.items() if count}
        total = sum(count for count in given.values() if isinstance(count, int))
        usage: Object = {
            "total_tokens": total + self.words + audio,
            "input_tokens": total,
            "output_tokens": self.words + audio,
            "input_tokens_details": {"text_tokens": 0, "audio_tokens": 0, **given},
            "output_tokens_details": {"text_tokens": self.words, "audio_tokens": audio},
        }
        if self.wanted.plugins is not None:
            usage["plugins"] = self.wanted.plugins
        return usage


class UnfinishedAnswer(QwenAnswer):
    """A response that is not told to be done once the client has cancelled it.

    So qwen3.5 was seen to do: ``response.output_item.done`` is its last event.
    """

    def tell_done(self, details: Json) -> None:
        """Tell that it is over, unless the client knows."""
        if text_at(details, "reason") != "client_cancelled":
            super().tell_done(details)
