"""Turns a conversation into the messages that a session may start with.

They are texts of USER and ASSISTANT in alternation, USER first, at most 40 kB in all, in pieces of
up to 1 kB (Nova 2 guide, "Managing chat history").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.providers.aws._capabilities import Generation

MAX_BYTES = 40_000
MAX_PIECE_BYTES = 1000

_BEGINNING_NOTE = "[The conversation begins.]"
_OMISSION_NOTE = "[What was said before is left out.]"
_EARLIER_HEADING = "[What was said before:]"


@dataclass(frozen=True, slots=True)
class HistoryMessage:
    """One message of a history."""

    role: Literal["USER", "ASSISTANT"]
    text: str

    @property
    def size_bytes(self) -> int:
        """Its size in UTF-8."""
        return len(self.text.encode())


def history_messages(items: Sequence[Item], generation: Generation) -> list[HistoryMessage]:
    """Return the history in the form that a session accepts, without its oldest part if too long.

    If there are too many messages, the older ones are joined into one, as a transcript. Tool calls
    and guidance become notes in brackets, because there is no other place for them.
    """
    turns = _merge_same_role(_item_messages(items))
    kept: list[HistoryMessage] = []
    room = MAX_BYTES - len(_OMISSION_NOTE) - len(_EARLIER_HEADING) - 2
    for message in reversed(turns):
        if kept and message.size_bytes + 1 > room:
            break
        message = HistoryMessage(message.role, last_bytes(message.text, min(room, MAX_BYTES)))
        room -= message.size_bytes + len("\nPerson: ")
        kept.insert(0, message)
    if len(kept) < len(turns):
        kept = _merge_same_role([HistoryMessage("USER", _OMISSION_NOTE), *kept])
    elif kept and kept[0].role == "ASSISTANT":
        kept.insert(0, HistoryMessage("USER", _BEGINNING_NOTE))
    if len(kept) > generation.max_messages:
        kept = _merge_older(kept, generation.max_messages)
    limit = generation.max_message_bytes
    return [HistoryMessage(message.role, last_bytes(message.text, limit)) for message in kept]


def tool_note(name: str, arguments: str, output: str, *, failed: bool) -> str:
    """Return a tool's result as a note."""
    verb = "failed" if failed else "answered"
    return f"[The tool {name}, called with {arguments}, {verb}: {output}]"


def split_text(text: str, max_bytes: int = MAX_PIECE_BYTES) -> list[str]:
    """Split the text into pieces of at most ``max_bytes``, between words where possible."""
    pieces: list[str] = []
    while len(text.encode()) > max_bytes:
        head = text.encode()[:max_bytes].decode(errors="ignore")
        space = head.rfind(" ") + 1
        if space > len(head) // 2:
            head = head[:space]
        pieces.append(head)
        text = text[len(head) :]
    return [*pieces, text]


def last_bytes(text: str, max_bytes: int) -> str:
    """Return the last ``max_bytes`` of the text, with an ellipsis if something is cut off."""
    raw = text.encode()
    if len(raw) <= max_bytes:
        return text
    return "…" + raw[len(raw) - max_bytes + len("…".encode()) :].decode(errors="ignore")


def _item_messages(items: Sequence[Item]) -> list[HistoryMessage]:
    calls = {item.call_id: item for item in items if isinstance(item, ToolCallItem)}
    answered = {item.call_id for item in items if isinstance(item, ToolResultItem)}
    messages: list[HistoryMessage] = []
    for item in items:
        match item:
            case UserItem(text=text):
                messages.append(HistoryMessage("USER", (text or "").strip()))
            case AgentItem(text=text):
                messages.append(HistoryMessage("ASSISTANT", text.strip()))
            case SystemItem(text=text):
                messages.append(HistoryMessage("USER", f"[{text.strip()}]"))
            case ToolCallItem(call_id=call_id, name=name, arguments=arguments):
                if call_id not in answered:
                    note = f"[The tool {name}, called with {arguments}, is still at work.]"
                    messages.append(HistoryMessage("USER", note))
            case ToolResultItem(call_id=call_id, output=output, failed=failed):
                call = calls.get(call_id)
                if call is not None:
                    note = tool_note(call.name, call.arguments, output, failed=failed)
                    messages.append(HistoryMessage("USER", note))
            case _:
                assert_never(item)
    return [message for message in messages if message.text]


def _merge_older(messages: Sequence[HistoryMessage], max_messages: int) -> list[HistoryMessage]:
    """Join the older messages into one of the person's, to leave at most ``max_messages``."""
    newest = max_messages - 1
    newest -= messages[-newest].role == "USER"
    names = {"USER": "Person", "ASSISTANT": "You"}
    older = [f"{names[message.role]}: {message.text}" for message in messages[:-newest]]
    return [HistoryMessage("USER", "\n".join((_EARLIER_HEADING, *older))), *messages[-newest:]]


def _merge_same_role(messages: Sequence[HistoryMessage]) -> list[HistoryMessage]:
    turns: list[HistoryMessage] = []
    for message in messages:
        if turns and turns[-1].role == message.role:
            turns[-1] = HistoryMessage(message.role, f"{turns[-1].text}\n{message.text}")
        else:
            turns.append(message)
    return turns
