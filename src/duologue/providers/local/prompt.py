"""What a small model reads: instructions made speakable, and the history as chat messages."""

from __future__ import annotations

from collections.abc import Sequence

from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers.local.llama import Message

SPOKEN = (
    "You talk with the user by voice. Answer in one or two short plain sentences that sound "
    "natural when spoken. Never write lists, markdown, code, links, emoji or stage directions. "
    "If you don't know or can't do something, say so briefly."
)

TELL = "Say this result to the user in one short sentence."
"""Of ten results `small` tells nine so; told to use plain words it said of two that it can't."""

UNDER_WAY = "is still running: its result comes later."

MAX_CHARACTERS = 12000
"""Of history: about 3000 tokens, so that several conversations fit into the context."""
_DROP = 8
"""Messages dropped at a time: dropping one by one would undo the prompt cache at every turn."""


def system_text(instructions: str) -> str:
    """The program's instructions, then the rules of speaking."""
    return f"{instructions.strip()}\n\n{SPOKEN}".strip()


def chat_messages(history: Sequence[Item]) -> list[Message]:
    """The history as messages, the oldest dropped where it is too long; empty items left out.

    Calls and results of tools become lines of guidance: these models know no other form.
    """
    messages: list[Message] = []
    calls: dict[str, str] = {}
    answered = {item.call_id for item in history if isinstance(item, ToolResultItem)}
    for item in history:
        match item:
            case UserItem(text=text):
                _add(messages, "user", text or "")
            case AgentItem(text=text):
                _add(messages, "assistant", text)
            case SystemItem(text=text):
                _add(messages, "system", text)
            case ToolCallItem(call_id=call_id, name=name, arguments=arguments):
                calls[call_id] = f"{name}({arguments})"
                if call_id not in answered:
                    _add(messages, "system", f"{calls[call_id]} {UNDER_WAY}")
            case ToolResultItem(call_id=call_id, output=output, failed=failed):
                call = calls.get(call_id, "The tool")
                verb = "failed" if failed else "returned"
                _add(messages, "system", f"{call} {verb}: {output}\n{TELL}")
    while len(messages) > _DROP and sum(len(str(m["content"])) for m in messages) > MAX_CHARACTERS:
        del messages[:_DROP]
    return messages


def _add(messages: list[Message], role: str, text: str) -> None:
    if text.strip():
        messages.append({"role": role, "content": text.strip()})
