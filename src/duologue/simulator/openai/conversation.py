"""The items of a session: put in, found, cut and taken out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pybase64

from duologue.items import AgentItem, Item, Json, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.simulator.fields import Object, inside, new_id, objects_at, text_at
from duologue.simulator.openai.schema import ITEMS
from duologue.simulator.openai.shapes import RefusedError, Shape, check, missing
from duologue.word_timing import said_within, weight

MOST_ITEMS = 10_000
"""Items of a session; the next is refused."""
MAX_CHARS = 64 * 1024 * 1024
"""Characters of all items together; an item beyond it is refused."""


@dataclass(frozen=True, slots=True)
class Image:
    """A picture that the client put into the conversation."""

    item_id: str
    media_type: str
    data: bytes
    detail: str


class Conversation:
    """What was said, in order. ``items`` are as the client is shown them.

    ``shapes`` are those of the items that a client may create, by their type. ``objects``: items
    are shown with a field ``object``.
    """

    def __init__(self, shapes: Mapping[str, Shape] = ITEMS, *, objects: bool = False) -> None:
        self._shapes = shapes
        self._objects = objects
        self.id = new_id("conv")
        self.items: list[Object] = []
        self._chars = 0
        self.audio_ms: dict[str, int] = {}
        """How long the sound of an assistant's item is, in ms."""
        self.brain_ids: dict[str, str] = {}
        """What the brain calls an item, where it has a name of its own for it."""

    def find(self, item_id: str, param: str = "item_id") -> Object:
        """The item. Raises `RefusedError`."""
        for item in self.items:
            if item["id"] == item_id:
                return item
        raise RefusedError("item_not_found", f"The item with id '{item_id}' does not exist.", param)

    def has(self, item_id: str) -> bool:
        """Whether there is such an item."""
        return any(item["id"] == item_id for item in self.items)

    @property
    def last_id(self) -> str | None:
        """The id of the last item."""
        return text_at(self.items[-1], "id") if self.items else None

    def put(self, item: Object, after: str | None = None) -> str | None:
        """Put in an item behind ``after`` ("root": first), else last; the id it stands behind."""
        if len(self.items) >= MOST_ITEMS:
            raise RefusedError("conversation_full", f"A conversation takes {MOST_ITEMS} items.")
        size = size_of(item)
        if self._chars + size > MAX_CHARS:
            raise RefusedError("conversation_full", f"A conversation takes {MAX_CHARS} characters.")
        before = self._put(item, after)
        self._chars += size
        return before

    def _put(self, item: Object, after: str | None) -> str | None:
        if after is None:
            before = self.last_id
            self.items.append(item)
            return before
        if after == "root":
            self.items.insert(0, item)
            return None
        index = self.items.index(self.find(after, "previous_item_id"))
        self.items.insert(index + 1, item)
        return after

    def append(self, item: Object) -> str | None:
        """Add an item of the service at the end; return the id of the item before it.

        Where there are too many, the oldest is dropped, as a context is that is full.
        """
        if len(self.items) >= MOST_ITEMS:
            self._drop(self.items[0])
        before = self.last_id
        self.items.append(item)
        return before

    def _drop(self, item: Object) -> None:
        """Drop the oldest item, and everything about it."""
        del self.items[0]
        self._chars = max(0, self._chars - size_of(item))
        item_id = text_at(item, "id")
        self.audio_ms.pop(item_id, None)
        self.brain_ids.pop(item_id, None)

    def create(self, value: Json) -> Object:
        """A new item from what the client sent, not put in yet. Raises `RefusedError`."""
        kind = inside(value, "type")
        if kind is None:
            raise missing("item.type")
        shape = self._shapes.get(kind) if isinstance(kind, str) else None
        if shape is None or not isinstance(value, dict):
            listed = ", ".join(f"'{name}'" for name in self._shapes)
            raise RefusedError(
                "invalid_value",
                f"Invalid value: '{kind}'. Supported values are: {listed}.",
                "item.type",
            )
        given = check(shape, value, "item")
        item: Object = {"id": new_id("item")}
        if self._objects:
            item["object"] = "realtime.item"
        if self._objects or kind != "function_call_output":
            item["status"] = "completed"
        item |= given if isinstance(given, dict) else {}
        if not self._objects:
            item.pop("object", None)
        item_id = text_at(item, "id")
        if self.has(item_id):
            raise RefusedError(
                "duplicate_item_id", f"An item with id '{item_id}' is there already.", "item.id"
            )
        if kind == "function_call_output" and not self._called(text_at(item, "call_id")):
            raise RefusedError(
                "invalid_tool_call_id",
                f"Tool call ID '{text_at(item, 'call_id')}' not found in conversation.",
                "item.call_id",
            )
        if kind == "function_call" and "call_id" not in item:
            item["call_id"] = new_id("call")
        return item

    def _called(self, call_id: str) -> bool:
        return any(
            item["type"] == "function_call" and item.get("call_id") == call_id
            for item in self.items
        )

    def delete(self, item_id: str) -> None:
        """Take out an item. Raises `RefusedError`."""
        item = self.find(item_id)
        self.items.remove(item)
        self._chars = max(0, self._chars - size_of(item))
        self.audio_ms.pop(item_id, None)

    def truncate(self, item_id: str, content_index: int, end_ms: int) -> str:
        """Cut the sound of an assistant's item, and drop its transcript; the words before the cut.

        How many those are is guessed by time. Raises `RefusedError`.
        """
        item = self.find(item_id)
        content = objects_at(item, "content")
        spoken = text_at(item, "role") == "assistant" and content_index < len(content)
        if not spoken or content[content_index]["type"] != "output_audio":
            raise RefusedError(
                "invalid_value",
                "Only the audio of an assistant's message can be truncated.",
                "content_index" if text_at(item, "role") == "assistant" else "item_id",
            )
        length = self.audio_ms.get(item_id, 0)
        if end_ms > length:
            raise RefusedError(
                "invalid_value",
                f"Audio content of {length}ms is already shorter than {end_ms}ms",
                "audio_end_ms",
            )
        part = content[content_index]
        heard = _first(text_at(part, "transcript"), end_ms / length if length else 0.0)
        part["transcript"] = None
        self.audio_ms[item_id] = end_ms
        return heard


def _first(text: str, part: float) -> str:
    """As many whole words of the text as are within that part of it."""
    return said_within(text, weight(text) * min(part, 1.0))


def images_of(item: Object) -> list[Image]:
    """The pictures of a new item. Raises `RefusedError` for one that is no PNG or JPEG data URI."""
    found = []
    for index, part in enumerate(objects_at(item, "content")):
        if part.get("type") != "input_image":
            continue
        head, comma, data = text_at(part, "image_url").partition(",")
        media_type = head.removeprefix("data:").removesuffix(";base64")
        known = media_type in ("image/png", "image/jpeg") and head.endswith(";base64")
        try:
            if not comma or not known:
                raise ValueError
            pixels = bytes(pybase64.b64decode(data, validate=True))
        except ValueError:
            raise RefusedError(
                "invalid_value",
                "Invalid 'image_url': expected a base64 data URI of a PNG or JPEG image.",
                f"item.content[{index}].image_url",
            ) from None
        detail = text_at(part, "detail") or "auto"
        found.append(Image(text_at(item, "id"), media_type, pixels, detail))
    return found


def size_of(item: Object) -> int:
    """Return the characters of an item's long fields."""
    parts = [item, *objects_at(item, "content")]
    return sum(len(text) for part in parts for text in part.values() if isinstance(text, str))


def words_of(item: Object) -> str:
    """The words of a message, wherever they stand in it."""
    parts = [
        text_at(part, "text") or text_at(part, "transcript") for part in objects_at(item, "content")
    ]
    return " ".join(part for part in parts if part)


def for_brain(item: Object) -> Item:
    """The item as a model takes it."""
    item_id = text_at(item, "id")
    match item["type"], item.get("role"):
        case "function_call", _:
            return ToolCallItem(
                item_id, text_at(item, "call_id"), text_at(item, "name"), text_at(item, "arguments")
            )
        case "function_call_output", _:
            return ToolResultItem(item_id, text_at(item, "call_id"), text_at(item, "output"))
        case _, "system":
            return SystemItem(item_id, words_of(item))
        case _, "assistant":
            return AgentItem(item_id, words_of(item))
        case _:
            spoken = any(part["type"] == "input_audio" for part in objects_at(item, "content"))
            return UserItem(item_id, words_of(item), spoken=spoken)
