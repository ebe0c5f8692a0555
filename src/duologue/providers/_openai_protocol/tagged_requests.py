"""Requests for a response that carry the id of the request."""

from __future__ import annotations

from typing import Literal

from duologue.json_types import JsonObject
from duologue.providers._verbatim import verbatim_instructions


class TaggedRequests:
    """Requests whose responses return their id, as ``metadata``; scripted text is ``output``."""

    __slots__ = ("_output",)

    def __init__(self, output: Literal["audio", "text"] = "audio") -> None:
        self._output = output

    def reply(
        self, request_id: str, session_instructions: str, reply_instructions: str | None
    ) -> JsonObject:
        """Request a response; its instructions replace those of the session."""
        response: JsonObject = {"metadata": {"request_id": request_id}}
        if reply_instructions:
            response["instructions"] = join_instructions(session_instructions, reply_instructions)
        return {"type": "response.create", "response": response}

    def say(self, request_id: str, text: str) -> JsonObject:
        """Request a response outside the conversation."""
        return {
            "type": "response.create",
            "response": {
                "conversation": "none",
                "input": [],
                "output_modalities": [self._output],
                "tools": [],
                "tool_choice": "none",
                "metadata": {"request_id": request_id},
                "instructions": verbatim_instructions(text),
            },
        }

    def cancel(self, reply_id: str) -> JsonObject:
        """Cancel a response."""
        return {"type": "response.cancel", "response_id": reply_id}


def join_instructions(session_instructions: str, reply_instructions: str) -> str:
    """Join the session's instructions and those of one response, which replace them."""
    return "\n\n".join(part for part in (session_instructions, reply_instructions) if part)
