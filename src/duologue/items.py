"""The items of a conversation: one closed union."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from duologue.json_types import Json, JsonObject


@dataclass(frozen=True, slots=True)
class SystemItem:
    """Guidance that the program puts into the conversation."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class UserItem:
    """What a person said or wrote; ``text`` is None until the transcript has arrived."""

    id: str
    text: str | None
    participant: str | None = None
    spoken: bool = True


@dataclass(frozen=True, slots=True)
class AgentItem:
    """What the agent said; ``text`` is what was heard, never more.

    ``state`` is ``speaking`` while it plays, ``heard`` after all of it was heard, ``cut`` after an
    interruption, ``read`` if it was not spoken, but shown as text; ``played_ms`` is how much audio
    was played.
    """

    id: str
    text: str
    state: Literal["speaking", "heard", "cut", "read"] = "heard"
    played_ms: int = 0
    speech_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallItem:
    """A tool call of the model; ``arguments`` is the JSON text that it wrote."""

    id: str
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResultItem:
    """The one result of a tool call; ``failed`` when ``output`` is an error message."""

    id: str
    call_id: str
    output: str
    failed: bool = False


type Item = SystemItem | UserItem | AgentItem | ToolCallItem | ToolResultItem

_KINDS: dict[str, type[Item]] = {
    kind.__name__: kind for kind in (SystemItem, UserItem, AgentItem, ToolCallItem, ToolResultItem)
}

_STATES = ("speaking", "heard", "cut", "read")


def item_to_dict(item: Item) -> JsonObject:
    """Return an item as JSON values: its ``kind``, the name of its class, and its fields."""
    return {"kind": type(item).__name__, **asdict(item)}


def item_from_dict(values: Mapping[str, Json]) -> Item:
    """Return the item that `item_to_dict` returned as ``values``; ignore values that are no fields.

    Raises:
        KeyError: the kind is unknown; a newer version may have written it.
        ValueError: the values make no item.
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


def replace_surrogates(text: str) -> str:
    """Join surrogate pairs in ``text``, and replace a lone surrogate by "?".

    JSON and file names may contain surrogates, but no model, file or socket accepts them.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return joined.encode(errors="replace").decode()
    return text


def replace_surrogates_in_item(item: Item) -> Item:
    """Return an item with the surrogates in all its texts replaced."""
    match item:
        case SystemItem(text=text) | AgentItem(text=text):
            clean = replace_surrogates(text)
            return item if clean == text else replace(item, text=clean)
        case UserItem(text=text, participant=participant):
            words = None if text is None else replace_surrogates(text)
            name = None if participant is None else replace_surrogates(participant)
            same = words == text and name == participant
            return item if same else replace(item, text=words, participant=name)
        case ToolCallItem(name=name, arguments=arguments):
            names = replace_surrogates(name), replace_surrogates(arguments)
            if names == (name, arguments):
                return item
            return replace(item, name=names[0], arguments=names[1])
        case ToolResultItem(output=output):
            clean = replace_surrogates(output)
            return item if clean == output else replace(item, output=clean)


class SurrogateJoiner:
    """Replaces surrogates in text that comes in pieces, which may end within a surrogate pair."""

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = ""

    @property
    def is_waiting(self) -> bool:
        """Whether the first half of a surrogate pair is held until the other half arrives."""
        return bool(self._half)

    def push(self, text: str) -> str:
        """Return the text so far, without a surrogate whose other half is still to come."""
        text, self._half = self._half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return replace_surrogates(text)

    def flush(self) -> str:
        """Return "?" for a surrogate that was left alone; "" if there is none."""
        half, self._half = self._half, ""
        return replace_surrogates(half)


def replace_surrogates_in_json(value: Json) -> Json:
    """Return a JSON value with the surrogates in all its texts replaced."""
    match value:
        case str():
            return replace_surrogates(value)
        case list():
            return [replace_surrogates_in_json(item) for item in value]
        case dict():
            return {
                replace_surrogates(key): replace_surrogates_in_json(item)
                for key, item in value.items()
            }
        case _:
            return value
