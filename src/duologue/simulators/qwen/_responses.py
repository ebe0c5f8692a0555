"""The replies of one session: what this service refuses, and the fields of its requests."""

from __future__ import annotations

from duologue.json_types import Json, JsonObject
from duologue.simulators._fields import flag_at, text_at
from duologue.simulators._openai_protocol.refusals import RefusedError
from duologue.simulators._openai_protocol.reply import OutgoingReply, ReplySpec
from duologue.simulators._openai_protocol.responses import Responses
from duologue.simulators.qwen._session_object import OUTPUT_RATE, check_modalities, check_sampling
from duologue.simulators.qwen.faults import ACTIVE_RESPONSE

IMAGE_TOKENS = 512
"""Input tokens of an image; a guess."""


class QwenResponses(Responses):
    """Makes the ``response`` events of a session from what the backend replies."""

    image_count = 0
    """Number of images that were committed so far."""
    output_rate = OUTPUT_RATE
    """Hz of the audio that is sent."""

    def already_active(self, active: OutgoingReply) -> RefusedError:
        """Return the refusal of a second reply beside the active one."""
        del active
        return RefusedError("", ACTIVE_RESPONSE)

    def none_active(self) -> RefusedError:
        """Return the refusal to cancel when no reply is in progress."""
        return RefusedError("", "Conversation has none active response")

    def send_rate_limits(self) -> None:
        """Send nothing: this service reports no rate limits."""

    def reply_spec(self, params: Json) -> ReplySpec:
        """Return what a reply is to be, from the fields of ``response.create``.

        Raises:
            RefusedError: The fields are wrong.
        """
        fields = params if isinstance(params, dict) else {}
        check_modalities(fields.get("modalities"), "response.modalities")
        check_sampling(fields, "response")
        configured = self._configuration.value
        modalities = fields.get("modalities") or configured["modalities"]
        limit = fields.get("max_tokens") or configured.get("max_tokens")
        searched: JsonObject = {"search": {"count": 1}}
        return ReplySpec(
            conversation_id=self._conversation.id,
            modality="text" if modalities == ["text"] else "audio",
            audio_format={"type": "audio/pcm", "rate": self.output_rate},
            voice=configured["voice"],
            limit=limit if isinstance(limit, int) else None,
            instructions=text_at(fields, "instructions") or None,
            plugins=searched if flag_at(configured, "enable_search") else None,
        )

    def count_input_tokens(self) -> JsonObject:
        """Count the input tokens."""
        return {**super().count_input_tokens(), "image_tokens": self.image_count * IMAGE_TOKENS}
