"""What asks OpenAI for a response, with the name of the request in it."""

from __future__ import annotations

from duologue.json_types import JsonObject
from duologue.providers._verbatim import verbatim_instructions


class TaggedRequests:
    """Requests whose responses carry their name back, as ``metadata``."""

    def reply(
        self, request_id: str, session_instructions: str, reply_instructions: str | None
    ) -> JsonObject:
        """A response; its instructions take the place of the session's."""
        response: JsonObject = {"metadata": {"request_id": request_id}}
        if reply_instructions:
            response["instructions"] = join_instructions(session_instructions, reply_instructions)
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
                "instructions": verbatim_instructions(text),
            },
        }

    def cancel(self, reply_id: str) -> JsonObject:
        """Stop that response."""
        return {"type": "response.cancel", "response_id": reply_id}


def join_instructions(session_instructions: str, reply_instructions: str) -> str:
    """Instructions of a response that are to hold beside the session's."""
    return "\n\n".join(part for part in (session_instructions, reply_instructions) if part)
