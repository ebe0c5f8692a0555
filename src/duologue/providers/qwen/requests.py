"""What asks Qwen for a response."""

from __future__ import annotations

from duologue.items import Json
from duologue.providers.openai.requests import together
from duologue.providers.qwen.history import AppendedHistory
from duologue.providers.spoken import instructions_to_say

type JsonObject = dict[str, Json]

WROTE = "The person has written this to you, and waits for your answer to it:\n{}"

_MOST = 64
"""Requests whose texts are kept, to be asked again; the oldest is forgotten beyond it."""


class QwenRequests:
    """Requests whose responses do not carry their name, with what they answer.

    What a person wrote to a model that takes no text as items goes with the request, in its
    instructions.
    """

    __slots__ = ("_history", "_texts")

    def __init__(self, history: AppendedHistory) -> None:
        self._history = history
        self._texts: dict[str, list[str]] = {}

    def reply(self, request_id: str, general: str, special: str | None) -> JsonObject:
        """A response; its instructions take the place of the session's."""
        texts = self._texts.setdefault(request_id, [])
        texts += self._history.take_unsaid()
        if len(self._texts) > _MOST:
            del self._texts[next(iter(self._texts))]
        wrote = WROTE.format("\n".join(texts)) if texts else ""
        special = together(special or "", wrote)
        return _create(together(general, special) if special else "")

    def say(self, request_id: str, text: str) -> JsonObject:
        """A response within the conversation: there is no other."""
        del request_id
        return _create(instructions_to_say(text))

    def cancel(self, reply_id: str) -> JsonObject:
        """Stop the response that is being made."""
        del reply_id
        return {"type": "response.cancel"}


def _create(instructions: str) -> JsonObject:
    event: JsonObject = {"type": "response.create"}
    if instructions:
        event["response"] = {"instructions": instructions, "modalities": ["text", "audio"]}
    return event
