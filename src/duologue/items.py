"""What a conversation is made of: one closed union of items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

type Json = bool | int | float | str | list[Json] | dict[str, Json] | None


@dataclass(frozen=True, slots=True)
class SystemItem:
    """A line of guidance put into the conversation by the program."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class UserItem:
    """What a person said or wrote; ``text`` is None while the transcript is not there yet."""

    id: str
    text: str | None
    participant: str | None = None
    spoken: bool = True


@dataclass(frozen=True, slots=True)
class AgentItem:
    """What the agent said; ``text`` is what was heard, never more.

    ``state`` is ``speaking`` while it plays, ``heard`` when all of it was, ``cut`` when it was
    interrupted; ``played_ms`` is how much sound was played.
    """

    id: str
    text: str
    state: Literal["speaking", "heard", "cut"] = "heard"
    played_ms: int = 0
    speech_id: str | None = None


def sendable(text: str) -> str:
    """Text with "?" for half surrogates, as names of files may have them: no model takes those."""
    return text.encode(errors="replace").decode()


@dataclass(frozen=True, slots=True)
class ToolCallItem:
    """The model asked for a tool; ``arguments`` is the JSON text it wrote."""

    id: str
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResultItem:
    """The one answer to a tool call; ``failed`` when ``output`` is an error message."""

    id: str
    call_id: str
    output: str
    failed: bool = False


type Item = SystemItem | UserItem | AgentItem | ToolCallItem | ToolResultItem
