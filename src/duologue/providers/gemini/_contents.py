"""Items of a conversation as the turns (`Content`) of Gemini, and what is told it in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from duologue._optional import optional
from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import Json
from duologue.providers._json_fields import is_shallow

with optional("gemini"):
    import orjson


type JsonObject = dict[str, Json]


def item_content(item: Item, names: Mapping[str, str]) -> JsonObject | None:
    """An item as one turn; None for one without words. ``names`` are tools by their call."""
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
    """A history as turns; a call without its result is left out, as the server would refuse it."""
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
    """A turn of text."""
    return {"role": role, "parts": [{"text": text}]}


def tool_response(output: str, *, failed: bool) -> JsonObject:
    """A tool's result as the object that Gemini wants: an object as it is, else ``output``."""
    if failed:
        return {"error": output}
    found = _parse_object(output)
    return found or {"output": output}


def truncation_note(heard: Sequence[str]) -> str:
    """What a model is told whose last messages were cut; ``heard`` is what was heard of each."""
    which = "message" if len(heard) == 1 else f"{len(heard)} messages"
    words = " ".join(filter(None, heard))
    what = f'only this was heard: "{words}"' if words else "nothing was heard."
    return f"[The person interrupted you. Of your last {which} {what}]"


def instruction_note(instructions: str) -> str:
    """Instructions for one reply, as nobody's words."""
    return f"[Not said by the person, for your next reply only: {instructions}]"


def _parse_object(text: str) -> JsonObject:
    try:
        found: Json = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    # JSON that is nested deeper could not be encoded again.
    return found if isinstance(found, dict) and is_shallow(found) else {}
