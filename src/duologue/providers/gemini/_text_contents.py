"""Convert a history to contents of ``generateContent``, as Google's SDK takes them; sans-IO.

The contents begin and end with the person, and the results of calls follow their calls at once.
Calls of the current turn have their signatures, the first of a group at least. Guidance in
mid-conversation is a note in the person's content, because there is no other place for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from duologue.items import Item
from duologue.providers._chat_history import (
    BEGINNING,
    CONTINUE,
    AnsweredCall,
    CallGroup,
    Message,
    chat_steps,
    last_message_of_person,
    program_note,
)
from duologue.providers._json_fields import parse_object
from duologue.realtime.commands import ToolSpec

type Part = dict[str, object]
"""A part of a content, with the names of the SDK's fields."""
type Content = dict[str, object]


def text_contents(
    history: Sequence[Item], signatures: Mapping[str, bytes], unsigned: bytes | None
) -> list[Content]:
    """Return a history as contents.

    Args:
        history: The history.
        signatures: Signatures by the id of the call.
        unsigned: The signature of a call of the current turn that has none.
    """
    steps = chat_steps(history)
    current_turn = last_message_of_person(steps)
    turns: list[tuple[str, list[Part]]] = []
    for at, step in enumerate(steps):
        match step:
            case Message(role="agent", text=text):
                _add(turns, "model", {"text": text})
            case Message(role="system", text=text):
                _add(turns, "user", {"text": program_note(text)})
            case Message(text=text):
                _add(turns, "user", {"text": text})
            case CallGroup(calls=calls):
                # The signed one comes first, as it did in the reply.
                ordered = sorted(calls, key=lambda one: one.call.call_id not in signatures)
                for number, one in enumerate(ordered):
                    signature = signatures.get(one.call.call_id)
                    if signature is None and number == 0 and at > current_turn:
                        signature = unsigned
                    _add(turns, "model", _call(one, signature))
                for one in ordered:
                    _add(turns, "user", _result(one))
    if not turns or turns[0][0] == "model":
        turns.insert(0, ("user", [{"text": BEGINNING}]))
    if turns[-1][0] == "model":
        turns.append(("user", [{"text": CONTINUE}]))
    return [{"role": role, "parts": parts} for role, parts in turns]


def declarations(tools: Sequence[ToolSpec]) -> list[dict[str, object]]:
    """Return tools as the SDK takes them."""
    declared = [
        {
            "name": tool.name,
            "description": tool.description,
            "parameters_json_schema": tool.parameters,
        }
        for tool in tools
    ]
    return [{"function_declarations": declared}] if declared else []


def _add(turns: list[tuple[str, list[Part]]], role: str, part: Part) -> None:
    if turns and turns[-1][0] == role:
        turns[-1][1].append(part)
    else:
        turns.append((role, [part]))


def _call(one: AnsweredCall, signature: bytes | None) -> Part:
    call = {
        "id": one.call.call_id,
        "name": one.call.name,
        "args": parse_object(one.call.arguments),
    }
    part: Part = {"function_call": call}
    return part if signature is None else part | {"thought_signature": signature}


def _result(one: AnsweredCall) -> Part:
    # An object is sent unchanged, other text as ``output``.
    response = parse_object(one.output) or {"output": one.output}
    if one.failed:
        response = {"error": one.output}
    result = {"id": one.call.call_id, "name": one.call.name, "response": response}
    return {"function_response": result}
