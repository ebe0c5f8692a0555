"""Tool calls of a small model: each turn is a JSON object that either speaks or calls a tool.

A schema constrains the object, so it is always well formed; the text of a spoken turn is streamed
out of it while the model writes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from duologue.json_types import Json, JsonObject
from duologue.providers.local._llama import Message
from duologue.realtime.commands import ToolSpec

SAY = "say"
"""The action that speaks."""


def tool_text(tools: Sequence[ToolSpec]) -> str:
    """Return the part of the system prompt that describes the tools."""
    lines = [
        f"- {tool.name}: {tool.description} Arguments: "
        + json.dumps(tool.parameters.get("properties", {}), ensure_ascii=False)
        for tool in tools
    ]
    return "\n".join(
        [
            "Write every answer as one JSON object with an action. The actions are:",
            f"- {SAY}: talk to the user. Use it for everything that no other action does.",
            *lines,
            "Call a tool only when the user asks for just what it does; else use say.",
        ]
    )


def examples() -> list[Message]:
    """Return a few turns that show the form, and that speaking is the rule."""
    turns = (
        ("Hello there.", "Hello! What can I do for you?"),
        ("What is the capital of France?", "It's Paris."),
        ("Can you paint my house?", "I'm sorry, I can't do that."),
        ("Thanks, that's all.", "You're welcome!"),
    )
    messages: list[Message] = []
    for user, agent in turns:
        messages.append({"role": "user", "content": user})
        messages.append({"role": "assistant", "content": say_action(agent)})
    return messages


def say_action(text: str) -> str:
    """Return a spoken turn in the form that the model writes."""
    return json.dumps({"action": SAY, "text": text}, ensure_ascii=False)


def turn_schema(tools: Sequence[ToolSpec]) -> JsonObject:
    """Return the JSON schema of one turn; with no tools it can only speak."""
    choices: list[Json] = [_object({"action": {"const": SAY}, "text": {"type": "string"}})]
    choices += [
        _object({"action": {"const": tool.name}, "arguments": tool.parameters}) for tool in tools
    ]
    return (
        {"anyOf": choices}
        if len(choices) > 1
        else _object({"action": {"const": SAY}, "text": {"type": "string"}})
    )


def _object(properties: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


class TurnReader:
    """Reads a turn while it is written: `push` returns new text to speak, `call` the tool call."""

    __slots__ = ("_spoken_length", "_written")

    def __init__(self) -> None:
        self._written = ""
        self._spoken_length = 0

    def push(self, text: str) -> str:
        """Append a piece of JSON, and return the new text to speak, which is often empty."""
        self._written += text
        spoken = self._text_so_far()
        new = spoken[self._spoken_length :]
        self._spoken_length = len(spoken)
        return new

    def call(self) -> tuple[str, str] | None:
        """Return name and arguments (JSON text); None if the turn speaks or is incomplete."""
        try:
            turn = json.loads(self._written)
        except ValueError:
            return None
        if not isinstance(turn, dict) or turn.get("action") in (None, SAY):
            return None
        return str(turn["action"]), json.dumps(turn.get("arguments", {}), ensure_ascii=False)

    def _text_so_far(self) -> str:
        """Return the value of "text" as far as it has been written."""
        head, key, rest = self._written.partition('"text"')
        if not key or f'"{SAY}"' not in head:
            return ""
        _, quote, body = rest.partition('"')
        if not quote:
            return ""
        end = _closing_quote(body)
        if end is not None:
            body = body[:end]
        # An escape may be incomplete, and so may a pair of \uXXXX: hold those back.
        for cut in range(min(len(body), 12) + 1):
            try:
                text = str(json.loads(f'"{body[: len(body) - cut]}"'))
            except ValueError:
                continue
            return text[:-1] if end is None and "\ud800" <= text[-1:] <= "\udbff" else text
        return ""


def _closing_quote(body: str) -> int | None:
    escaped = False
    for at, letter in enumerate(body):
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == '"':
            return at
    return None
