"""Convert a history to a request of the Messages API; sans-IO.

What the API asks for, beyond the names of its fields:

- The first message is the person's, and so is the last: newer models continue no message of their
  own. Where the history is otherwise, a note says so.
- A tool result stands at the beginning of the message that follows its call.
- Ids of calls have letters, digits, ``_`` and ``-``; ids from another provider may not.
- A history with tool calls needs tools, even if the model must not call any.
- Guidance in mid-conversation is a note in a message of the person's, because only some models
  take system messages there.

Cache marks stand where the prompt stops changing: after the tools, after the instructions, and
after the last message, up to which the next request is the same. The service finds the longest
beginning that it has, up to 20 blocks before a mark. A mark costs nothing where the prompt is too
short to be cached.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from duologue.items import Item
from duologue.json_types import Json, JsonObject
from duologue.providers._chat_history import (
    BEGINNING,
    CONTINUE,
    CallGroup,
    Message,
    chat_steps,
    last_message_of_person,
    program_note,
)
from duologue.providers._json_fields import parse_object
from duologue.realtime.commands import ToolSpec

type CacheTime = Literal["5m", "1h"]
"""How long the service keeps what it has cached, from its last use."""

_CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Conversation:
    """The messages of a request.

    Attributes:
        messages: Messages as the API expects them.
        with_thoughts: Whether they contain thoughts.
        calls_without_thoughts: Whether they end with results of calls whose thoughts are unknown.
        tools_called: Names of all tools that were called.
    """

    messages: list[JsonObject]
    with_thoughts: bool
    calls_without_thoughts: bool
    tools_called: Sequence[str]


def conversation(
    history: Sequence[Item], thoughts: Mapping[str, Sequence[JsonObject]]
) -> Conversation:
    """Return a history as messages.

    Args:
        history: The history.
        thoughts: Blocks of thought by the id of the call that they came before. Only those since
            the person's last message are sent: the service ignores older ones.
    """
    steps = chat_steps(history)
    last_said = last_message_of_person(steps)
    messages: list[JsonObject] = []
    names: dict[str, None] = {}
    with_thoughts = without_thoughts = False
    for at, step in enumerate(steps):
        match step:
            case Message(role="agent", text=text):
                _add(messages, "assistant", {"type": "text", "text": text})
            case Message(role="system", text=text):
                _add(messages, "user", {"type": "text", "text": program_note(text)})
            case Message(text=text):
                _add(messages, "user", {"type": "text", "text": text})
            case CallGroup(calls=calls):
                if at > last_said:
                    blocks = [
                        block for one in calls for block in thoughts.get(one.call.call_id, ())
                    ]
                    _put_first(messages, blocks)
                    with_thoughts = with_thoughts or bool(blocks)
                    without_thoughts = not blocks
                for one in calls:
                    names[one.call.name] = None
                    _add(
                        messages,
                        "assistant",
                        {
                            "type": "tool_use",
                            "id": _call_id(one.call.call_id),
                            "name": one.call.name,
                            "input": parse_object(one.call.arguments),
                        },
                    )
                for one in calls:
                    result: JsonObject = {
                        "type": "tool_result",
                        "tool_use_id": _call_id(one.call.call_id),
                        "content": one.output,
                    }
                    _add(messages, "user", result | ({"is_error": True} if one.failed else {}))
    if not messages or messages[0]["role"] == "assistant":
        messages.insert(0, _message("user", {"type": "text", "text": BEGINNING}))
    if messages[-1]["role"] == "assistant":
        _add(messages, "user", {"type": "text", "text": CONTINUE})
    return Conversation(messages, with_thoughts, without_thoughts, list(names))


def request_body(
    instructions: str, talk: Conversation, tools: Sequence[ToolSpec], cache: CacheTime | None
) -> JsonObject:
    """Return the instructions, tools and messages of a request, with cache marks."""
    body: JsonObject = {"messages": list(talk.messages)}
    declared = [_tool(tool.name, tool.description, tool.parameters) for tool in tools]
    if not tools and talk.tools_called:
        declared = [_tool(name, "", {"type": "object"}) for name in talk.tools_called]
        body["tool_choice"] = {"type": "none"}
    if declared:
        body["tools"] = list(declared)
    system: list[JsonObject] = []
    if instructions.strip():
        system = [{"type": "text", "text": instructions}]
        body["system"] = list(system)
    if cache is not None:
        mark: JsonObject = {"type": "ephemeral"}
        if cache == "1h":
            mark["ttl"] = "1h"
        last = talk.messages[-1]["content"]
        blocks = [one for one in last if isinstance(one, dict)] if isinstance(last, list) else []
        for marked in (declared, system, blocks):
            if marked:
                marked[-1]["cache_control"] = mark
    return body


def _message(role: str, block: JsonObject) -> JsonObject:
    return {"role": role, "content": [block]}


def _add(messages: list[JsonObject], role: str, block: JsonObject) -> None:
    """Add a block to the last message, or to a new one if that is of the other role."""
    content = messages[-1]["content"] if messages and messages[-1]["role"] == role else None
    if isinstance(content, list):
        content.append(block)
    else:
        messages.append(_message(role, block))


def _put_first(messages: list[JsonObject], thoughts: Sequence[JsonObject]) -> None:
    """Begin the model's message with its thoughts, because it began with them."""
    if not thoughts:
        return
    copies: list[Json] = [dict(block) for block in thoughts]
    content = messages[-1]["content"] if messages and messages[-1]["role"] == "assistant" else None
    if isinstance(content, list):
        content[:0] = copies
    else:
        messages.append({"role": "assistant", "content": copies})


def _tool(name: str, description: str, parameters: JsonObject) -> JsonObject:
    tool: JsonObject = {"name": name, "input_schema": parameters}
    return tool | ({"description": description} if description else {})


def _call_id(call_id: str) -> str:
    """Return the id of a call as the API accepts it: ours, or a hash of it."""
    if _CALL_ID.fullmatch(call_id):
        return call_id
    return f"toolu_{blake2b(call_id.encode(), digest_size=12).hexdigest()}"
