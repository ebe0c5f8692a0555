"""What a conversation is made of: one closed union of items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

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

_KINDS: dict[str, type[Item]] = {
    kind.__name__: kind for kind in (SystemItem, UserItem, AgentItem, ToolCallItem, ToolResultItem)
}

_STATES = ("speaking", "heard", "cut")


def item_to_dict(item: Item) -> dict[str, Json]:
    """The item as JSON values: its ``kind``, which is the name of its class, and its fields."""
    return {"kind": type(item).__name__, **asdict(item)}


def item_from_dict(values: Mapping[str, Json]) -> Item:
    """Make an item of what `item_to_dict` gave; values that are no fields of it are passed over.

    Raises ``KeyError`` for a kind that is not known, as a newer version may write it, and
    ``ValueError`` for values that make no item.
    """
    kind = _KINDS[str(values.get("kind"))]
    given: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in values:
            value = values[field.name]
            if not _fits(value, str(field.type)):
                raise ValueError(f"{field.name} of a {kind.__name__} can't be {value!r:.60}")
            given[field.name] = value
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(f"a {kind.__name__} needs more: {error}") from error


def _fits(value: Json, annotation: str) -> bool:
    match annotation:
        case "str":
            return isinstance(value, str)
        case "str | None":
            return isinstance(value, str | None)
        case "bool":
            return isinstance(value, bool)
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case _:
            return value in _STATES
