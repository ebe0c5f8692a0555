"""Convert a history to messages of the Chat Completions API."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import JsonObject

type Message = JsonObject

PENDING_RESULT = "This call is still running and has no result yet. Do not make it again."
"""Result of a call that is still running when other messages follow it."""


def chat_messages(instructions: str, history: Sequence[Item]) -> list[Message]:
    """Return instructions and history as messages.

    The API requires a result right after every tool call. A call whose result came later, after
    other messages, is placed where its result came, so that the model speaks about the result next.
    A call without a result yet gets `PENDING_RESULT`. Items without text are left out, and so is a
    result whose call is not in the history.
    """
    calls = {item.call_id: item for item in history if isinstance(item, ToolCallItem)}
    answered = {item.call_id for item in history if isinstance(item, ToolResultItem)}
    messages: list[Message] = []
    _add_message(messages, "system", instructions)
    group: list[tuple[ToolCallItem, str]] = []
    for item in history:
        match item:
            case ToolCallItem(call_id=call_id):
                if call_id not in answered:
                    group.append((item, PENDING_RESULT))
                continue
            case ToolResultItem(call_id=call_id, output=output, failed=failed):
                call = calls.pop(call_id, None)
                if call is not None:
                    group.append((call, f"error: {output}" if failed else output))
                continue
        _flush_calls(messages, group)
        match item:
            case UserItem(text=text):
                _add_message(messages, "user", text or "")
            case AgentItem(text=text):
                _add_message(messages, "assistant", text)
            case SystemItem(text=text):
                _add_message(messages, "system", text)
    _flush_calls(messages, group)
    return messages


def _add_message(messages: list[Message], role: str, text: str) -> None:
    if text:
        messages.append({"role": role, "content": text})


def _flush_calls(messages: list[Message], group: list[tuple[ToolCallItem, str]]) -> None:
    """Write a group of calls as one message, followed by their results."""
    if not group:
        return
    messages.append(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": call.call_id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call, _ in group
            ],
        }
    )
    for call, output in group:
        messages.append({"role": "tool", "tool_call_id": call.call_id, "content": output})
    group.clear()
