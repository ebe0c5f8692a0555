"""Convert a history to messages of the Chat Completions API."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.items import Item
from duologue.json_types import Json, JsonObject
from duologue.providers._chat_history import AnsweredCall, CallGroup, Message, chat_steps

_ROLES = {"user": "user", "agent": "assistant", "system": "system"}


def chat_messages(instructions: str, history: Sequence[Item]) -> list[JsonObject]:
    """Return instructions and history as messages."""
    messages: list[JsonObject] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    for step in chat_steps(history):
        match step:
            case Message(role=role, text=text):
                messages.append({"role": _ROLES[role], "content": text})
            case CallGroup(calls=calls):
                messages += _call_messages(calls)
    return messages


def _call_messages(calls: Sequence[AnsweredCall]) -> list[JsonObject]:
    """Return a group of calls as one message, followed by their results."""
    made: list[Json] = [
        {
            "id": one.call.call_id,
            "type": "function",
            "function": {"name": one.call.name, "arguments": one.call.arguments},
        }
        for one in calls
    ]
    messages: list[JsonObject] = [{"role": "assistant", "content": None, "tool_calls": made}]
    for one in calls:
        output = f"error: {one.output}" if one.failed else one.output
        messages.append({"role": "tool", "tool_call_id": one.call.call_id, "content": output})
    return messages
