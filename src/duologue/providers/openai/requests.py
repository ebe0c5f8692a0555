"""What asks OpenAI for a response, with the name of the request in it."""

from __future__ import annotations

from duologue.items import Json
from duologue.providers.spoken import instructions_to_say

type JsonObject = dict[str, Json]


class NamedRequests:
    """Requests whose responses carry their name back, as ``metadata``."""

    def reply(self, request_id: str, general: str, special: str | None) -> JsonObject:
        """A response; its instructions take the place of the session's."""
        response: JsonObject = {"metadata": {"request_id": request_id}}
        if special:
            response["instructions"] = together(general, special)
        return {"type": "response.create", "response": response}

    def say(self, request_id: str, text: str) -> JsonObject:
        """A response outside of the conversation."""
        return {
            "type": "response.create",
            "response": {
                "conversation": "none",
                "input": [],
                "output_modalities": ["audio"],
                "tools": [],
                "tool_choice": "none",
                "metadata": {"request_id": request_id},
                "instructions": instructions_to_say(text),
            },
        }

    def cancel(self, reply_id: str) -> JsonObject:
        """Stop that response."""
        return {"type": "response.cancel", "response_id": reply_id}


def together(general: str, special: str) -> str:
    """Instructions of a response that are to hold beside the session's."""
    return "\n\n".join(part for part in (general, special) if part)
