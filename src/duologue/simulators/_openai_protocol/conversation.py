"""The items of a session: inserted, found, truncated and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pybase64

from duologue._word_timing import prefix_within, weight
from duologue.items import AgentItem, Item, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.json_types import Json, JsonObject
from duologue.simulators._fields import new_id, objects_at, text_at, value_at
from duologue.simulators._json_shapes import Shape
from duologue.simulators._openai_protocol.refusals import RefusedError, check, missing
from duologue.simulators._openai_protocol.schema import ITEMS

MAX_ITEMS = 10_000
"""Items of a session; a further one is refused."""
MAX_CHARS = 64 * 1024 * 1024
"""Characters of all items together; an item beyond it is refused."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the client added to the conversation."""

    item_id: str
    media_type: str
    data: bytes
    detail: str


class Conversation:
    """The items of a conversation in order, as the client sees them.

    Args:
        shapes: The shape of each type of item that a client may create.
        objects: Whether items have a field ``object``.
    """

    def __init__(self, shapes: Mapping[str, Shape] = ITEMS, *, objects: bool = False) -> None:
        self._shapes = shapes
        self._objects = objects
        self.id = new_id("conv")
        self.items: list[JsonObject] = []
        self._chars = 0
        self.audio_ms: dict[str, int] = {}
        """Length in ms of the audio of each assistant's item."""
        self.backend_ids: dict[str, str] = {}
        """The backend's own id of an item, where it has one."""

    def find(self, item_id: str, param: str = "item_id") -> JsonObject:
        """Return the item.

        Raises:
            RefusedError: There is no such item.
        """
        for item in self.items:
            if item["id"] == item_id:
                return item
        raise RefusedError("item_not_found", f"The item with id '{item_id}' does not exist.", param)

    def has(self, item_id: str) -> bool:
        """Return whether there is such an item."""
        return any(item["id"] == item_id for item in self.items)

    @property
    def last_id(self) -> str | None:
        """The id of the last item."""
        return text_at(self.items[-1], "id") if self.items else None

    def insert(self, item: JsonObject, after: str | None = None) -> str | None:
        """Insert an item, and return the id of the item before it.

        Args:
            item: The item.
            after: The id of the item before it; "root" for the first place, None for the last.

        Raises:
            RefusedError: The conversation is full, or has no item ``after``.
        """
        if len(self.items) >= MAX_ITEMS:
            raise RefusedError("conversation_full", f"A conversation takes {MAX_ITEMS} items.")
        size = text_size(item)
        if self._chars + size > MAX_CHARS:
            raise RefusedError("conversation_full", f"A conversation takes {MAX_CHARS} characters.")
        before = self._insert(item, after)
        self._chars += size
        return before

    def _insert(self, item: JsonObject, after: str | None) -> str | None:
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

    def append(self, item: JsonObject) -> str | None:
        """Append an item of the service, and return the id of the item before it.

        If there are too many, the oldest is dropped, as from a full context.
        """
        if len(self.items) >= MAX_ITEMS:
            self._drop_oldest(self.items[0])
        before = self.last_id
        self.items.append(item)
        return before

    def _drop_oldest(self, item: JsonObject) -> None:
        """Drop the oldest item, and everything that is stored about it."""
        del self.items[0]
        self._chars = max(0, self._chars - text_size(item))
        item_id = text_at(item, "id")
        self.audio_ms.pop(item_id, None)
        self.backend_ids.pop(item_id, None)

    def create(self, value: Json) -> JsonObject:
        """Return a new item from what the client sent, without inserting it.

        Raises:
            RefusedError: The item is wrong.
        """
        kind = value_at(value, "type")
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
        item: JsonObject = {"id": new_id("item")}
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
        if kind == "function_call_output" and not self._has_tool_call(text_at(item, "call_id")):
            raise RefusedError(
                "invalid_tool_call_id",
                f"Tool call ID '{text_at(item, 'call_id')}' not found in conversation.",
                "item.call_id",
            )
        if kind == "function_call" and "call_id" not in item:
            item["call_id"] = new_id("call")
        return item

    def _has_tool_call(self, call_id: str) -> bool:
        return any(
            item["type"] == "function_call" and item.get("call_id") == call_id
            for item in self.items
        )

    def delete(self, item_id: str) -> None:
        """Delete an item.

        Raises:
            RefusedError: There is no such item.
        """
        item = self.find(item_id)
        self.items.remove(item)
        self._chars = max(0, self._chars - text_size(item))
        self.audio_ms.pop(item_id, None)

    def truncate(self, item_id: str, content_index: int, end_ms: int) -> str:
        """Truncate the audio of an assistant's item, drop its transcript, and return the text
        before the cut.

        That text is estimated by time.

        Raises:
            RefusedError: The item is not speech of the assistant, or is shorter than ``end_ms``.
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
        text = _text_within(text_at(part, "transcript"), end_ms / length if length else 0.0)
        part["transcript"] = None
        self.audio_ms[item_id] = end_ms
        return text


def _text_within(text: str, part: float) -> str:
    """Return the whole words within that part of the text."""
    return prefix_within(text, weight(text) * min(part, 1.0))


def parse_images(item: JsonObject) -> list[Image]:
    """Return the images of a new item.

    Raises:
        RefusedError: An image is not a data URI of a PNG or JPEG.
    """
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


def text_size(item: JsonObject) -> int:
    """Return the number of characters in the long fields of an item."""
    parts = [item, *objects_at(item, "content")]
    return sum(len(text) for part in parts for text in part.values() if isinstance(text, str))


def text_of(item: JsonObject) -> str:
    """Return the text or transcript of a message."""
    parts = [
        text_at(part, "text") or text_at(part, "transcript") for part in objects_at(item, "content")
    ]
    return " ".join(part for part in parts if part)


def to_item(item: JsonObject) -> Item:
    """Return the item in the form that a backend takes."""
    item_id = text_at(item, "id")
    match item["type"], item.get("role"):
        case "function_call", _:
            return ToolCallItem(
                item_id, text_at(item, "call_id"), text_at(item, "name"), text_at(item, "arguments")
            )
        case "function_call_output", _:
            return ToolResultItem(item_id, text_at(item, "call_id"), text_at(item, "output"))
        case _, "system":
            return SystemItem(item_id, text_of(item))
        case _, "assistant":
            return AgentItem(item_id, text_of(item))
        case _:
            spoken = any(part["type"] == "input_audio" for part in objects_at(item, "content"))
            return UserItem(item_id, text_of(item), spoken=spoken)
