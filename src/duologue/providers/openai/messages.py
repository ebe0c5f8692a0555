"""The history in the form of the Chat Completions API."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.items import (
    AgentItem,
    Item,
    Json,
    SystemItem,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from duologue.realtime.commands import ToolSpec

type Message = dict[str, Json]


def chat_messages(instructions: str, history: Sequence[Item]) -> list[Message]:
    """Instructions and history as messages.

    The API wants every tool call answered, right behind the call: results are moved there, and a
    call that has no result yet is left out. Items without text are left out too.
    """
    results = {item.call_id: item for item in history if isinstance(item, ToolResultItem)}
    messages: list[Message] = []
    _say(messages, "system", instructions)
    calls: list[ToolCallItem] = []
    for item in history:
        if isinstance(item, ToolCallItem):
            if item.call_id in results:
                calls.append(item)
            continue
        if isinstance(item, ToolResultItem):
            continue
        _flush(messages, calls, results)
        match item:
            case UserItem(text=text):
                _say(messages, "user", text or "")
            case AgentItem(text=text):
                _say(messages, "assistant", text)
            case SystemItem(text=text):
                _say(messages, "system", text)
    _flush(messages, calls, results)
    return messages


def tool_list(tools: Sequence[ToolSpec]) -> list[Json]:
    """Tools in the form of the API."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            },
        }
        for tool in tools
    ]


def _say(messages: list[Message], role: str, text: str) -> None:
    if text:
        messages.append({"role": role, "content": text})


def _flush(
    messages: list[Message], calls: list[ToolCallItem], results: dict[str, ToolResultItem]
) -> None:
    """Write the calls that stand together as one message, and their results behind it."""
    if not calls:
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
                for call in calls
            ],
        }
    )
    for call in calls:
        result = results[call.call_id]
        output = f"error: {result.output}" if result.failed else result.output
        messages.append({"role": "tool", "tool_call_id": call.call_id, "content": output})
    calls.clear()
