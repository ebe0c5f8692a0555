"""The conversation as OpenAI stores it: the order of its items, and how they are truncated."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from duologue.items import Item, ToolCallItem, ToolResultItem
from duologue.json_types import JsonObject
from duologue.providers._openai_protocol.items import (
    image_item,
    item_json,
    message_item,
    tool_output,
    wire_id,
)
from duologue.realtime.commands import SendToolResult


@dataclass(slots=True)
class _ItemAudio:
    """Audio of an item that the model spoke on this connection."""

    samples: int = 0
    content_index: int = 0


class ServerConversation:
    """Order and kind of the server's items; methods return the events to send.

    Items that the model spoke can be truncated. Items that were sent as text (a replayed history,
    scripted text) are deleted and created again in the same place.

    Args:
        rate: Rate of the agent's audio in Hz.
        images_kept: Number of images that stay.
    """

    __slots__ = (
        "_audio",
        "_images",
        "_images_kept",
        "_order",
        "_pending_deletes",
        "_rate",
        "_replayed_calls",
    )

    def __init__(self, rate: int, images_kept: int) -> None:
        self._rate = rate
        self._images_kept = images_kept
        self._order: list[str] = []
        self._audio: dict[str, _ItemAudio] = {}
        self._images: deque[str] = deque()
        self._pending_deletes: Counter[str] = Counter()
        self._replayed_calls: dict[str, None] = {}
        """Calls of earlier connections, by our own ids."""

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._order

    def item_added(self, item_id: str, previous: str | None) -> None:
        """Record that the server added an item behind ``previous``; None means at the end."""
        if item_id in self._order:
            if previous is None:
                return
            self._order.remove(item_id)
        if previous == "root":
            self._order.insert(0, item_id)
        elif previous in self._order:
            self._order.insert(self._order.index(previous) + 1, item_id)
        else:
            self._order.append(item_id)

    def item_deleted(self, item_id: str) -> None:
        """Record that the server deleted an item, or does not have it.

        An item that we deleted may already exist again.
        """
        if self._pending_deletes[item_id] > 1:
            self._pending_deletes[item_id] -= 1
        elif not self._pending_deletes.pop(item_id, 0):
            self._forget(item_id)

    def audio_received(
        self, item_id: str, samples: int, content_index: int = 0, *, verbatim: bool = False
    ) -> None:
        """Record ``samples`` of received audio of an item.

        A ``verbatim`` item is not in the conversation.
        """
        if verbatim:
            return
        audio = self._audio.get(item_id)
        if audio is None:
            audio = self._audio[item_id] = _ItemAudio()
        audio.samples += samples
        audio.content_index = content_index

    def text_received(self, item_id: str) -> None:
        """Do nothing: an item without audio is created again when it is truncated."""

    def put(self, item: Item, before: Sequence[str] = ()) -> list[JsonObject]:
        """Append an item, or replace the one that has its id.

        Insert a new item before the first of ``before`` that exists, if any. Leave out the result
        of an unknown call, because the server would refuse it.
        """
        match item:
            case ToolCallItem(call_id=call_id):
                self._replayed_calls[call_id] = None
            case ToolResultItem(call_id=call_id) if call_id not in self._replayed_calls:
                return []
        created = item_json(item)
        if created is None:
            return []
        return self._put(item.id, created, before)

    def add_tool_result(self, result: SendToolResult) -> list[JsonObject]:
        """Add the result of a tool call."""
        item: JsonObject = {
            "type": "function_call_output",
            "call_id": self._server_call_id(result.call_id),
            "output": tool_output(result.output, failed=result.failed),
        }
        return [{"type": "conversation.item.create", "item": item}]

    def add_verbatim(self, item_id: str, text: str) -> list[JsonObject]:
        """Add what the model said outside the conversation."""
        return self._put(item_id, message_item(item_id, "assistant", text)) if text else []

    def add_image(self, item_id: str, base64: str) -> list[JsonObject]:
        """Add an image, and delete the oldest ones beyond the limit."""
        events: list[JsonObject] = []
        while len(self._images) >= self._images_kept:
            events += self.delete(self._images.popleft())
        self._images.append(item_id)
        return [*events, *self._put(item_id, image_item(item_id, base64))]

    def delete(self, item_id: str) -> list[JsonObject]:
        """Delete an item; send nothing for an unknown one."""
        item_id = self._server_id(item_id)
        if item_id not in self._order and item_id not in self._audio:
            return []
        self._forget(item_id)
        return [self._delete_event(item_id)]

    def truncate(self, item_id: str, played_ms: int, heard_text: str) -> list[JsonObject]:
        """Truncate an agent item to what was heard of it."""
        audio = self._audio.get(item_id)
        if audio is not None:
            received_ms = audio.samples * 1000 // self._rate
            return [
                {
                    "type": "conversation.item.truncate",
                    "item_id": item_id,
                    "content_index": audio.content_index,
                    "audio_end_ms": max(0, min(played_ms, received_ms)),
                }
            ]
        if not heard_text:
            return self.delete(item_id)
        return self._put(item_id, message_item(item_id, "assistant", heard_text))

    def _server_call_id(self, call_id: str) -> str:
        """Return the server's id of a call: its own, or the one with which we created it again."""
        return wire_id(call_id) if call_id in self._replayed_calls else call_id

    def _server_id(self, item_id: str) -> str:
        """Return the server's id of an item, because its own ids may be longer than ours."""
        known = item_id in self._order or item_id in self._audio
        return item_id if known else wire_id(item_id)

    def _put(self, item_id: str, item: JsonObject, before: Sequence[str] = ()) -> list[JsonObject]:
        create: JsonObject = {"type": "conversation.item.create", "item": item}
        known_id = self._server_id(item_id)
        if known_id not in self._order:
            names = (self._server_id(one) for one in before)
            follower = next((one for one in names if one in self._order), None)
            at = len(self._order) if follower is None else self._order.index(follower)
            self._order.insert(at, known_id)
            if follower is not None:
                create["previous_item_id"] = self._order[at - 1] if at else "root"
            return [create]
        at = self._order.index(known_id)
        self._order[at] = wire_id(item_id)
        self._audio.pop(known_id, None)
        create["previous_item_id"] = self._order[at - 1] if at else "root"
        return [self._delete_event(known_id), create]

    def _delete_event(self, item_id: str) -> JsonObject:
        self._pending_deletes[item_id] += 1
        return {"type": "conversation.item.delete", "item_id": item_id}

    def _forget(self, item_id: str) -> None:
        if item_id in self._order:
            self._order.remove(item_id)
        self._audio.pop(item_id, None)
