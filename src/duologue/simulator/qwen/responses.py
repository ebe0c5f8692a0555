"""The responses of one session: what this service refuses, and what they are to be."""

from __future__ import annotations

from duologue.items import Json
from duologue.simulator.fields import Object, flag_at, text_at
from duologue.simulator.openai.answer import Answer, Wanted
from duologue.simulator.openai.responses import Responses
from duologue.simulator.openai.shapes import RefusedError
from duologue.simulator.qwen.configuration import OUTPUT_RATE, check_modalities, check_sampling
from duologue.simulator.qwen.faults import ACTIVE

IMAGE_TOKENS = 512
"""Tokens of a picture; a guess."""


class QwenResponses(Responses):
    """Makes responses of what the brain answers."""

    images = 0
    """Pictures that were committed so far."""
    output_rate = OUTPUT_RATE
    """Hz of the sound that is sent."""

    def busy(self, active: Answer) -> RefusedError:
        """The refusal of a response beside the active one."""
        del active
        return RefusedError("", ACTIVE)

    def nothing_active(self) -> RefusedError:
        """The refusal to cancel where there is nothing."""
        return RefusedError("", "Conversation has none active response")

    def tell_limits(self) -> None:
        """This service tells no limits."""

    def wanted(self, params: Json) -> Wanted:
        """What a response is to be, as ``response.create`` (None: nobody's) wants it."""
        given = params if isinstance(params, dict) else {}
        check_modalities(given.get("modalities"), "response.modalities")
        check_sampling(given, "response")
        configured = self._configuration.value
        modalities = given.get("modalities") or configured["modalities"]
        limit = given.get("max_tokens") or configured.get("max_tokens")
        searched: Object = {"search": {"count": 1}}
        return Wanted(
            conversation_id=self._conversation.id,
            modality="text" if modalities == ["text"] else "audio",
            audio_format={"type": "audio/pcm", "rate": self.output_rate},
            voice=configured["voice"],
            limit=limit if isinstance(limit, int) else None,
            instructions=text_at(given, "instructions") or None,
            plugins=searched if flag_at(configured, "enable_search") else None,
        )

    def input_tokens(self) -> Object:
        """A count of what the model is given."""
        return {**super().input_tokens(), "image_tokens": self.images * IMAGE_TOKENS}
