"""The prompt of a small model: instructions for speaking, and the history as chat messages."""

from __future__ import annotations

import re
from collections.abc import Sequence

from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers.local._llama import Message

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")

SPOKEN_STYLE = (
    "You talk with the user by voice. Answer in one or two short plain sentences that sound "
    "natural when spoken. Never write lists, markdown, code, links, emoji or stage directions. "
    "If you don't know or can't do something, say so briefly."
)

REPORT_RESULT = "Say this result to the user in one short sentence."
"""With this, `small` reports nine of ten results; asked for plain words, it claimed it could not
report two of ten.
"""

STILL_RUNNING = "is still running: its result comes later."

FIRST_WORD = "Hello."
"""What the user says where the agent has the first word."""
GO_ON = "Go on."
"""What the user says where the agent has the last word, and talks on."""

MAX_CHARACTERS = 12000
"""Characters of history: about 3000 tokens, so that several conversations fit into the context."""
MAX_MESSAGE_CHARACTERS = 3000
"""Characters of one message; a longer one loses its middle, because reading it takes seconds."""
_DROP_COUNT = 8
"""Messages dropped at a time: dropping one by one would undo the prompt cache at every turn."""


def system_text(instructions: str) -> str:
    """Return the program's instructions, followed by the rules for speaking."""
    return f"{instructions.strip()}\n\n{SPOKEN_STYLE}".strip()


def chat_messages(history: Sequence[Item], limit: int = MAX_CHARACTERS) -> list[Message]:
    """Return the history as messages of at most ``limit`` characters, without empty items.

    The oldest messages are dropped if it is longer, and so is the middle of a message that is too
    long by itself. Tool calls and results become lines of guidance, because these models know no
    other form.
    """
    longest = min(limit * 3 // 4, MAX_MESSAGE_CHARACTERS)
    messages: list[Message] = []
    calls: dict[str, str] = {}
    answered = {item.call_id for item in history if isinstance(item, ToolResultItem)}
    for item in history:
        match item:
            case UserItem(text=text):
                _add(messages, "user", shorten(text or "", longest))
            case AgentItem(text=text):
                _add(messages, "assistant", shorten(text, longest))
            case SystemItem(text=text):
                _add(messages, "system", shorten(text, longest))
            case ToolCallItem(call_id=call_id, name=name, arguments=arguments):
                calls[call_id] = f"{name}({shorten(arguments, longest // 4)})"
                if call_id not in answered:
                    _add(messages, "system", f"{calls[call_id]} {STILL_RUNNING}")
            case ToolResultItem(call_id=call_id, output=output, failed=failed):
                call = calls.get(call_id, "The tool")
                verb = "failed" if failed else "returned"
                result = shorten(output, longest)
                _add(messages, "system", f"{call} {verb}: {result}\n{REPORT_RESULT}")
    while len(messages) > 1 and sum(weighted_length(str(m["content"])) for m in messages) > limit:
        del messages[: _DROP_COUNT if len(messages) > _DROP_COUNT else 1]
    return messages


def alternate_roles(messages: Sequence[Message]) -> list[Message]:
    """Return ``messages`` as user and assistant in turn, which some chat templates insist on.

    Guidance behind the first message comes from the user then, and messages of one role become
    one. The user has the first word and the last.
    """
    system = list(messages[:1]) if messages and messages[0]["role"] == "system" else []
    turns: list[Message] = []
    for message in messages[len(system) :]:
        role = "assistant" if message["role"] == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1] = {"role": role, "content": f"{turns[-1]['content']}\n{message['content']}"}
        else:
            turns.append({"role": role, "content": message["content"]})
    if not turns or turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": FIRST_WORD})
    if turns[-1]["role"] == "assistant":
        turns.append({"role": "user", "content": GO_ON})
    return [*system, *turns]


def shorten(text: str, limit: int) -> str:
    """Return ``text``, or its beginning and end if its `weighted_length` is above ``limit``."""
    whole = weighted_length(text)
    if whole <= limit:
        return text
    kept = len(text) * limit // whole
    end = kept // 4
    left_out = len(text) - kept
    return f"{text[: kept - end]}\n[{left_out} characters left out]\n{text[len(text) - end :]}"


def weighted_length(text: str) -> int:
    """Return the length of ``text``, counting each character outside ASCII as four.

    Such a character is a token or more.
    """
    return len(text) + 3 * sum(map(len, _BEYOND_ASCII.findall(text)))


def _add(messages: list[Message], role: str, text: str) -> None:
    if text.strip():
        messages.append({"role": role, "content": text.strip()})
