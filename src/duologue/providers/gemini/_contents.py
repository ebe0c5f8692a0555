"""Encode conversation items as Gemini turns (`Content`), and notes to the model as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from duologue._optional import optional
from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import Json, JsonObject
from duologue.providers._json_fields import is_shallow

with optional("gemini"):
    import orjson


def item_content(item: Item, names: Mapping[str, str]) -> JsonObject | None:
    """Return an item as one turn, or None if it has no text.

    Args:
        item: The item.
        names: Names of tools by the ids of their calls.
    """
    match item:
        case UserItem(text=text) | SystemItem(text=text):
            return text_content(text) if text else None
        case AgentItem(text=text):
            return text_content(text, role="model") if text else None
        case ToolCallItem(call_id=call_id, name=name, arguments=arguments):
            call: JsonObject = {"id": call_id, "name": name, "args": _parse_object(arguments)}
            return {"role": "model", "parts": [{"functionCall": call}]}
        case ToolResultItem(call_id=call_id, output=output, failed=failed):
            response: JsonObject = {
                "id": call_id,
                "name": names.get(call_id, ""),
                "response": tool_response(output, failed=failed),
            }
            return {"role": "user", "parts": [{"functionResponse": response}]}


def history_contents(items: Sequence[Item]) -> list[JsonObject]:
    """Return a history as turns, without calls that lack a result, which the server refuses."""
    names = {item.call_id: item.name for item in items if isinstance(item, ToolCallItem)}
    answered = {item.call_id for item in items if isinstance(item, ToolResultItem)}
    contents: list[JsonObject] = []
    for item in items:
        match item:
            case ToolCallItem(call_id=call_id) if call_id not in answered:
                continue
            case ToolResultItem(call_id=call_id) if call_id not in names:
                continue
        content = item_content(item, names)
        if content is not None:
            contents.append(content)
    return contents


def text_content(text: str, role: str = "user") -> JsonObject:
    """Return a turn of text."""
    return {"role": role, "parts": [{"text": text}]}


def tool_response(output: str, *, failed: bool) -> JsonObject:
    """Return a tool's result as an object: a JSON object unchanged, other text as ``output``."""
    if failed:
        return {"error": output}
    value = _parse_object(output)
    return value or {"output": output}


def truncation_note(heard: Sequence[str]) -> str:
    """Return the note that the last messages were interrupted.

    Args:
        heard: What the person heard of each message.
    """
    which = "message" if len(heard) == 1 else f"{len(heard)} messages"
    words = " ".join(filter(None, heard))
    what = f'only this was heard: "{words}"' if words else "nothing was heard."
    return f"[The person interrupted you. Of your last {which} {what}]"


def instruction_note(instructions: str) -> str:
    """Return instructions for one reply, marked as not said by the person."""
    return f"[Not said by the person, for your next reply only: {instructions}]"


def _parse_object(text: str) -> JsonObject:
    try:
        value: Json = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    # JSON with deeper nesting could not be encoded again.
    return value if isinstance(value, dict) and is_shallow(value) else {}
