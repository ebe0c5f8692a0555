"""Qwen's requests for a response."""

from __future__ import annotations

from collections.abc import Sequence

from duologue._bounded_dict import BoundedDict
from duologue.json_types import Json, JsonObject
from duologue.providers._openai_protocol.append_only_history import AppendOnlyHistory
from duologue.providers._openai_protocol.tagged_requests import join_instructions
from duologue.providers._verbatim import verbatim_instructions

TYPED_TEXT = "The person has written this to you, and waits for your answer to it:\n{}"

_MAX_REQUESTS = 64
"""Maximum number of requests whose texts are kept for a retry; the oldest is dropped beyond it."""


class QwenRequests:
    """Requests whose responses do not name them.

    Text that a person typed to a model without text items is sent in the instructions of the
    request.
    """

    __slots__ = ("_history", "_modalities", "_texts")

    def __init__(
        self, history: AppendOnlyHistory, modalities: Sequence[Json] = ("text", "audio")
    ) -> None:
        self._history = history
        self._modalities = modalities
        self._texts: BoundedDict[str, list[str]] = BoundedDict(_MAX_REQUESTS)

    def reply(
        self, request_id: str, session_instructions: str, reply_instructions: str | None
    ) -> JsonObject:
        """Request a response; its instructions replace those of the session."""
        texts = self._texts.setdefault(request_id, [])
        texts += self._history.take_unsent_texts()
        wrote = TYPED_TEXT.format("\n".join(texts)) if texts else ""
        reply_instructions = join_instructions(reply_instructions or "", wrote)
        return self._create(
            join_instructions(session_instructions, reply_instructions)
            if reply_instructions
            else ""
        )

    def say(self, request_id: str, text: str) -> JsonObject:
        """Request a response within the conversation, because there is no other kind."""
        del request_id
        return self._create(verbatim_instructions(text))

    def cancel(self, reply_id: str) -> JsonObject:
        """Cancel the response in progress."""
        del reply_id
        return {"type": "response.cancel"}

    def _create(self, instructions: str) -> JsonObject:
        event: JsonObject = {"type": "response.create"}
        if instructions:
            modalities = list(self._modalities)
            event["response"] = {"instructions": instructions, "modalities": modalities}
        return event
