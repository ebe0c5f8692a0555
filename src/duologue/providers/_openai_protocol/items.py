"""Convert items of a history to conversation items of the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import assert_never

from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import Json, JsonObject
from duologue.realtime.commands import ToolSpec

MAX_ID_CHARS = 32
"""Maximum length of the ids of items and calls that the server accepts from clients."""


def wire_id(item_id: str) -> str:
    """Return the id of an item or a call at the server: ours, or a hash of it if it is too long."""
    if len(item_id) <= MAX_ID_CHARS:
        return item_id
    return blake2b(item_id.encode(), digest_size=16).hexdigest()


def item_json(item: Item) -> JsonObject | None:
    """Return an item as the server expects it; None for one without text."""
    match item:
        case UserItem(id=item_id, text=text):
            return message_item(item_id, "user", text) if text else None
        case SystemItem(id=item_id, text=text):
            return message_item(item_id, "system", text) if text else None
        case AgentItem(id=item_id, text=text):
            return message_item(item_id, "assistant", text) if text else None
        case ToolCallItem():
            return {
                "id": wire_id(item.id),
                "type": "function_call",
                "call_id": wire_id(item.call_id),
                "name": item.name,
                "arguments": item.arguments,
            }
        case ToolResultItem():
            return {
                "id": wire_id(item.id),
                "type": "function_call_output",
                "call_id": wire_id(item.call_id),
                "output": tool_output(item.output, failed=item.failed),
            }
        case _:
            assert_never(item)


def message_item(item_id: str, role: str, text: str) -> JsonObject:
    """Return a text message; ``role`` is ``user``, ``system`` or ``assistant``."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {
        "id": wire_id(item_id),
        "type": "message",
        "role": role,
        "content": [{"type": kind, "text": text}],
    }


def image_item(item_id: str, base64: str) -> JsonObject:
    """Return a message with a JPEG image."""
    return {
        "id": item_id,
        "type": "message",
        "role": "user",
        "content": [{"type": "input_image", "image_url": f"data:image/jpeg;base64,{base64}"}],
    }


def tool_output(output: str, *, failed: bool) -> str:
    """Return a tool's result as the model reads it, because there is no flag for a failure."""
    return f"error: {output}" if failed else output


def flat_tools(tools: Sequence[ToolSpec]) -> list[Json]:
    """Return tools in the flat form of the Realtime API."""
    return [{"type": "function", **_function(tool)} for tool in tools]


def nested_tools(tools: Sequence[ToolSpec]) -> list[Json]:
    """Return tools in the nested form of the Chat Completions API."""
    return [{"type": "function", "function": _function(tool)} for tool in tools]


def _function(tool: ToolSpec) -> JsonObject:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
