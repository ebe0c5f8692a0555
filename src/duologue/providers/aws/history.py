"""A conversation as the messages that a session may begin with.

They are text of the USER and the ASSISTANT in turns, the USER first, at most 40 kB in all, in
pieces of up to 1 kB (Nova 2 guide, "Managing chat history").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from duologue.items import (
    AgentItem,
    Item,
    SystemItem,
    ToolCallItem,
    ToolResultItem,
    UserItem,
)
from duologue.providers.aws.profile import Generation

MOST_BYTES = 40_000
PIECE_BYTES = 1000

_BEGINS = "[The conversation begins.]"
_LEFT_OUT = "[What was said before is left out.]"
_EARLIER = "[What was said before:]"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a history."""

    role: Literal["USER", "ASSISTANT"]
    text: str

    @property
    def size(self) -> int:
        """Its bytes."""
        return len(self.text.encode())


def messages(items: Sequence[Item], generation: Generation) -> list[Message]:
    """The history as a session takes it; what does not fit is left out from the oldest on.

    Where there are more messages than it takes, the older ones become one, as a transcript. Tools
    and guidance come as notes in brackets: there is no other place for them.
    """
    turns = _in_turns(_texts(items))
    kept: list[Message] = []
    room = MOST_BYTES - len(_LEFT_OUT) - len(_EARLIER) - 2
    for message in reversed(turns):
        if kept and message.size + 1 > room:
            break
        message = Message(message.role, last_bytes(message.text, min(room, MOST_BYTES)))
        room -= message.size + len("\nPerson: ")
        kept.insert(0, message)
    if len(kept) < len(turns):
        kept = _in_turns([Message("USER", _LEFT_OUT), *kept])
    elif kept and kept[0].role == "ASSISTANT":
        kept.insert(0, Message("USER", _BEGINS))
    if len(kept) > generation.messages:
        kept = _fewer(kept, generation.messages)
    most = generation.message_bytes
    return [Message(one.role, last_bytes(one.text, most)) for one in kept]


def tool_note(name: str, arguments: str, output: str, *, failed: bool) -> str:
    """A tool's result as a note."""
    verb = "failed" if failed else "answered"
    return f"[The tool {name}, called with {arguments}, {verb}: {output}]"


def pieces(text: str, most: int = PIECE_BYTES) -> list[str]:
    """The text in pieces of at most so many bytes, between words if it can be."""
    found: list[str] = []
    while len(text.encode()) > most:
        head = text.encode()[:most].decode(errors="ignore")
        space = head.rfind(" ") + 1
        if space > len(head) // 2:
            head = head[:space]
        found.append(head)
        text = text[len(head) :]
    return [*found, text]


def last_bytes(text: str, most: int) -> str:
    """The end of a text that is longer than so many bytes, or all of it."""
    raw = text.encode()
    if len(raw) <= most:
        return text
    return "…" + raw[len(raw) - most + len("…".encode()) :].decode(errors="ignore")


def _texts(items: Sequence[Item]) -> list[Message]:
    calls = {item.call_id: item for item in items if isinstance(item, ToolCallItem)}
    answered = {item.call_id for item in items if isinstance(item, ToolResultItem)}
    found: list[Message] = []
    for item in items:
        match item:
            case UserItem(text=text):
                found.append(Message("USER", (text or "").strip()))
            case AgentItem(text=text):
                found.append(Message("ASSISTANT", text.strip()))
            case SystemItem(text=text):
                found.append(Message("USER", f"[{text.strip()}]"))
            case ToolCallItem(call_id=call_id, name=name, arguments=arguments):
                if call_id not in answered:
                    note = f"[The tool {name}, called with {arguments}, is still at work.]"
                    found.append(Message("USER", note))
            case ToolResultItem(call_id=call_id, output=output, failed=failed):
                call = calls.get(call_id)
                if call is not None:
                    note = tool_note(call.name, call.arguments, output, failed=failed)
                    found.append(Message("USER", note))
            case _:
                assert_never(item)
    return [message for message in found if message.text]


def _fewer(found: Sequence[Message], most: int) -> list[Message]:
    """The same with the older ones as one, the person's, so that there are at most ``most``."""
    behind = most - 1
    behind -= found[-behind].role == "USER"
    names = {"USER": "Person", "ASSISTANT": "You"}
    older = [f"{names[one.role]}: {one.text}" for one in found[:-behind]]
    return [Message("USER", "\n".join((_EARLIER, *older))), *found[-behind:]]


def _in_turns(found: Sequence[Message]) -> list[Message]:
    turns: list[Message] = []
    for message in found:
        if turns and turns[-1].role == message.role:
            turns[-1] = Message(message.role, f"{turns[-1].text}\n{message.text}")
        else:
            turns.append(message)
    return turns
