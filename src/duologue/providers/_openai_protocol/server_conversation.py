"""The conversation as one server has it: what is where, and how it is cut."""

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
    """An item that the model spoke on this connection."""

    samples: int = 0
    content_index: int = 0


class ServerConversation:
    """Order and nature of the items at the server; methods return the events to send.

    The model's own spoken items can be truncated. Those that came as text (a history that was
    replayed, scripted text) are taken out and put in again, in the same place. ``rate`` is Hz of
    the model's sound; at most ``pictures_kept`` pictures stay.
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
        """The server has put an item behind ``previous``; None is at the end."""
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
        """The server has taken an item out, or has none to take out.

        One that we took out ourselves may be there again by now.
        """
        if self._pending_deletes[item_id] > 1:
            self._pending_deletes[item_id] -= 1
        elif not self._pending_deletes.pop(item_id, 0):
            self._forget(item_id)

    def audio_received(
        self, item_id: str, samples: int, content_index: int = 0, *, verbatim: bool = False
    ) -> None:
        """The server has sent so much sound of one of its own items.

        What is ``scripted`` is not in the conversation.
        """
        if verbatim:
            return
        sound = self._audio.setdefault(item_id, _ItemAudio())
        sound.samples += samples
        sound.content_index = content_index

    def put(self, item: Item, before: Sequence[str] = ()) -> list[JsonObject]:
        """Add an item at the end, or replace the one that has its id.

        Insert a new item before the first of ``before`` that exists, if any. Leave out the result
        of an unknown call, because the server would refuse it.
        """
        match item:
            case ToolCallItem(call_id=call_id):
                self._replayed_calls[call_id] = None
            case ToolResultItem(call_id=call_id) if call_id not in self._replayed_calls:
                return []
        made = item_json(item)
        if made is None:
            return []
        return self._put(item.id, made, before)

    def add_tool_result(self, result: SendToolResult) -> list[JsonObject]:
        """Give the result of a call."""
        item: JsonObject = {
            "type": "function_call_output",
            "call_id": self._server_call_id(result.call_id),
            "output": tool_output(result.output, failed=result.failed),
        }
        return [{"type": "conversation.item.create", "item": item}]

    def add_verbatim(self, item_id: str, text: str) -> list[JsonObject]:
        """Put in what the model said outside of the conversation."""
        return self._put(item_id, message_item(item_id, "assistant", text)) if text else []

    def add_image(self, item_id: str, base64: str) -> list[JsonObject]:
        """Put in a picture, and take out the oldest if there are too many."""
        events: list[JsonObject] = []
        while len(self._images) >= self._images_kept:
            events += self.delete(self._images.popleft())
        self._images.append(item_id)
        return [*events, *self._put(item_id, image_item(item_id, base64))]

    def delete(self, item_id: str) -> list[JsonObject]:
        """Take an item out; nothing is sent for one that is not there."""
        item_id = self._server_id(item_id)
        if item_id not in self._order and item_id not in self._audio:
            return []
        self._forget(item_id)
        return [self._delete_event(item_id)]

    def truncate(self, item_id: str, played_ms: int, heard_text: str) -> list[JsonObject]:
        """Cut an item of the model to what was heard of it."""
        sound = self._audio.get(item_id)
        if sound is not None:
            there_ms = sound.samples * 1000 // self._rate
            return [
                {
                    "type": "conversation.item.truncate",
                    "item_id": item_id,
                    "content_index": sound.content_index,
                    "audio_end_ms": max(0, min(played_ms, there_ms)),
                }
            ]
        if not heard_text:
            return self.delete(item_id)
        return self._put(item_id, message_item(item_id, "assistant", heard_text))

    def _server_call_id(self, call_id: str) -> str:
        """Return the server's id of a call: its own, or the one that we created it with again."""
        return wire_id(call_id) if call_id in self._replayed_calls else call_id

    def _server_id(self, item_id: str) -> str:
        """What the server calls an item: its own ids may be longer than ours."""
        known = item_id in self._order or item_id in self._audio
        return item_id if known else wire_id(item_id)

    def _put(self, item_id: str, item: JsonObject, before: Sequence[str] = ()) -> list[JsonObject]:
        create: JsonObject = {"type": "conversation.item.create", "item": item}
        there = self._server_id(item_id)
        if there not in self._order:
            names = (self._server_id(one) for one in before)
            follower = next((one for one in names if one in self._order), None)
            at = len(self._order) if follower is None else self._order.index(follower)
            self._order.insert(at, there)
            if follower is not None:
                create["previous_item_id"] = self._order[at - 1] if at else "root"
            return [create]
        at = self._order.index(there)
        self._order[at] = wire_id(item_id)
        self._audio.pop(there, None)
        create["previous_item_id"] = self._order[at - 1] if at else "root"
        return [self._delete_event(there), create]

    def _delete_event(self, item_id: str) -> JsonObject:
        self._pending_deletes[item_id] += 1
        return {"type": "conversation.item.delete", "item_id": item_id}

    def _forget(self, item_id: str) -> None:
        if item_id in self._order:
            self._order.remove(item_id)
        self._audio.pop(item_id, None)
