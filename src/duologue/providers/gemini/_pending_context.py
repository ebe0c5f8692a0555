"""Hold text, tool results, truncations and images until they can be sent to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from duologue._bounded_dict import BoundedDict
from duologue._optional import optional
from duologue.items import AgentItem, Item, ToolCallItem, ToolResultItem
from duologue.json_types import JsonObject
from duologue.providers.gemini._contents import (
    history_contents,
    item_content,
    text_content,
    tool_response,
    truncation_note,
)
from duologue.providers.gemini._models import Traits
from duologue.providers.gemini._resumption import ServerTranscript
from duologue.providers.gemini._setup_json import SCHEDULINGS
from duologue.realtime.commands import SendToolResult, ToolSpec

with optional("gemini"):
    import orjson
    import pybase64


CONTINUE_PROMPT = "."
"""Sent as user text to get a reply when there is nothing new for the model."""
_MAX_CALLS = 4096
"""Tool calls whose names are remembered."""


@dataclass(frozen=True, slots=True)
class _PendingTurn:
    """A turn to send, and the conversation item that it represents, if any."""

    content: JsonObject
    item: Item | None = None


@dataclass(frozen=True, slots=True)
class _Truncations:
    """Messages that were truncated in a row: what the person heard of each, by id."""

    heard_texts: dict[str, str] = field(default_factory=dict)


class PendingContext:
    """Holds what is to be sent to the model until the right moment, and encodes it.

    Sending any of it interrupts the server's turn, so it waits for that turn to end, or for a
    request. A model that takes no turns in mid-session gets it with the next text.

    Args:
        traits: What the model supports.
        transcript: The text of the model's own messages, as the server has it.
        report_truncation: Tell the model in text what the person did not hear.
    """

    def __init__(
        self, traits: Traits, transcript: ServerTranscript, *, report_truncation: bool
    ) -> None:
        self._traits = traits
        self.transcript = transcript
        self._report_truncation = report_truncation
        self._pending: list[_PendingTurn | _Truncations] = []
        self._image: bytes | None = None
        self._tool_names: BoundedDict[str, str] = BoundedDict(
            _MAX_CALLS, on_drop=lambda call_id, _: self._drop_call(call_id)
        )
        self._local_call_ids: set[str] = set()
        """Calls that came without an id from the server, so their ids were generated here."""
        self._orphaned_calls: dict[str, ToolCallItem] = {}
        """Calls made on an earlier connection, which this server does not know."""
        self._partial_results: dict[str, str] = {}
        self._cancelled_calls: set[str] = set()
        self._scheduling: dict[str, str] = {}
        self.unconfirmed = False
        """Something was sent that the server may not have processed yet."""

    @property
    def has_pending(self) -> bool:
        """Whether something is waiting that may be sent at any time."""
        return bool(self._pending) and self._traits.free_context

    @property
    def pending_truncations(self) -> tuple[str, ...]:
        """Ids of the messages whose truncation was not sent yet."""
        return tuple(
            id_ for one in self._pending if isinstance(one, _Truncations) for id_ in one.heard_texts
        )

    def server_knows(self, item: Item) -> bool:
        """Return whether the server has the current state of the item."""
        waiting = {
            _item_key(one.item)
            for one in self._pending
            if isinstance(one, _PendingTurn) and one.item
        }
        return _item_key(item) not in waiting and _item_key(item) not in self._orphaned_calls

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Replace the tools."""
        asynchronous = self._traits.async_tools != "none"
        self._scheduling = {
            tool.name: SCHEDULINGS[tool.scheduling]
            for tool in tools
            if tool.scheduling is not None and asynchronous
        }

    def model_waits_for(self, name: str) -> bool:
        """Return whether the model waits for the result of the tool."""
        return name not in self._scheduling

    def seed(self, history: Sequence[Item]) -> list[JsonObject]:
        """Return the history as turns, for a server that starts without any."""
        answered = {item.call_id for item in history if isinstance(item, ToolResultItem)}
        for item in history:
            match item:
                case AgentItem(id=item_id, text=text):
                    self.transcript.replace(item_id, text)
                case ToolCallItem(call_id=call_id, name=name):
                    self._tool_names[call_id] = name
                    if call_id not in answered:
                        self._orphaned_calls[call_id] = item
        contents = history_contents(history)
        self.unconfirmed = bool(contents)
        return contents

    def add_item(self, item: Item) -> None:
        """Append an item to the model's history."""
        match item:
            case ToolCallItem(call_id=call_id, name=name):
                self._tool_names[call_id] = name
                self._orphaned_calls[call_id] = item
            case ToolResultItem(call_id=call_id, output=output, failed=failed):
                self._resolve_orphan(call_id, output, failed=failed)
            case _:
                content = item_content(item, self._tool_names)
                if content is not None:
                    self._pending.append(_PendingTurn(content, item))

    def truncate(self, item_id: str, heard: str) -> None:
        """Record that the person heard only ``heard`` of a message of the model."""
        for at, one in enumerate(self._pending):
            if (
                isinstance(one, _PendingTurn)
                and isinstance(one.item, AgentItem)
                and one.item.id == item_id
            ):
                self._pending[at : at + 1] = _truncated_turn(one.item, heard)
                return
        last = self._pending[-1] if self._pending else None
        is_pending = isinstance(last, _Truncations) and item_id in last.heard_texts
        differs = is_pending or self.transcript.differs(item_id, heard)
        if not self._report_truncation or not differs:
            return
        cuts = last if isinstance(last, _Truncations) else _Truncations()
        if cuts is not last:
            self._pending.append(cuts)
        cuts.heard_texts[item_id] = heard

    def add_image(self, jpeg: bytes) -> list[JsonObject]:
        """Attach an image to the next text; return the messages to send before that text."""
        if self._traits.free_context:
            self._image = jpeg
            return []
        return [image_message(jpeg)]

    def request_reply(self, text: str | None) -> list[JsonObject]:
        """Return the messages that make the model reply to what is pending and to ``text``."""
        if text is not None:
            self._pending.append(_PendingTurn(text_content(text)))
        elif not any(_needs_reply(content) for content in self._pending):
            self._pending.append(_PendingTurn(text_content(CONTINUE_PROMPT)))
        return self._flush(complete=True)

    def flush(self) -> list[JsonObject]:
        """Return the messages with what is pending, without requesting a reply."""
        return self._flush(complete=False) if self.has_pending else []

    def cancel_calls(self, call_ids: Sequence[str]) -> None:
        """Drop the results of calls that the server has cancelled."""
        self._cancelled_calls.update(call_id for call_id in call_ids if call_id in self._tool_names)

    def record_call(self, call_id: str, name: str, *, has_id: bool = True) -> None:
        """Record a tool call.

        Args:
            call_id: Id of the call.
            name: Name of the tool.
            has_id: The id is from the server; otherwise it was generated here.
        """
        self._tool_names[call_id] = name
        if not has_id:
            self._local_call_ids.add(call_id)

    def _drop_call(self, call_id: str) -> None:
        self._local_call_ids.discard(call_id)
        self._cancelled_calls.discard(call_id)

    def has_call(self, call_id: str) -> bool:
        """Return whether the call was made by the model, or is in the history."""
        return call_id in self._tool_names

    def encode_result(self, result: SendToolResult) -> list[JsonObject]:
        """Return the messages for a tool result, or for a part of it."""
        call_id = result.call_id
        if call_id in self._cancelled_calls:
            return []
        scheduling = self._scheduling.get(result.name)
        if scheduling is not None and result.quiet:
            scheduling = "SILENT"
        if call_id in self._orphaned_calls:
            if result.more:
                return []
            self._resolve_orphan(call_id, result.output, failed=result.failed)
            if self._orphaned_calls:
                return []
            return [] if scheduling == "SILENT" else self._flush(complete=True)
        response: JsonObject = {"name": result.name}
        if call_id not in self._local_call_ids:
            response["id"] = call_id
        if result.more:
            if scheduling is None:
                return []
            self._partial_results[call_id] = result.output
            response["willContinue"] = True
        elif (last_part := self._partial_results.pop(call_id, None)) is not None:
            response["willContinue"] = False
            if last_part == result.output and not result.failed:
                # The last part already was the result: only end the call, without a reply.
                return [
                    _tool_response_message({**response, "response": {}, "scheduling": "SILENT"})
                ]
        if scheduling is not None:
            response["scheduling"] = scheduling
        response["response"] = tool_response(result.output, failed=result.failed)
        return [_tool_response_message(response)]

    def _resolve_orphan(self, call_id: str, output: str, *, failed: bool) -> None:
        call = self._orphaned_calls.pop(call_id, None)
        if call is not None:
            result = ToolResultItem(call.id, call_id, output, failed)
            self._pending += [
                _PendingTurn(content, call) for content in history_contents((call, result))
            ]

    def _flush(self, *, complete: bool) -> list[JsonObject]:
        turns = [self._deliver(one) for one in self._pending]
        self._pending = []
        image, self._image = self._image, None
        self.unconfirmed = True
        if not self._traits.free_context:
            text = "\n\n".join(filter(None, map(_as_text, turns)))
            return [{"realtimeInput": {"text": text}}] if text else []
        if image is not None:
            turns = [*turns[:-1], _with_image(turns[-1], image)]
        return [{"clientContent": {"turns": list(turns), "turnComplete": complete}}]

    def _deliver(self, one: _PendingTurn | _Truncations) -> JsonObject:
        if isinstance(one, _PendingTurn):
            if isinstance(one.item, AgentItem):
                self.transcript.replace(one.item.id, one.item.text)
            return one.content
        for item_id, heard in one.heard_texts.items():
            self.transcript.replace(item_id, heard)
        return text_content(truncation_note(list(one.heard_texts.values())))


def image_message(jpeg: bytes) -> JsonObject:
    """Return the message with a camera image."""
    return {"realtimeInput": {"video": _blob(jpeg)}}


def interrupts_turn(message: JsonObject) -> bool:
    """Return whether the message makes the server drop the rest of its turn."""
    match message:
        case {"clientContent": _} | {"realtimeInput": {"text": _}}:
            return True
        case {"toolResponse": {"functionResponses": [{"scheduling": "INTERRUPT"}]}}:
            return True
        case _:
            return False


def _blob(jpeg: bytes) -> JsonObject:
    return {"mimeType": "image/jpeg", "data": pybase64.b64encode_as_string(jpeg)}


def _with_image(content: JsonObject, jpeg: bytes) -> JsonObject:
    parts = content["parts"]
    assert isinstance(parts, list)  # noqa: S101 - we have made it
    return {**content, "parts": [{"inlineData": _blob(jpeg)}, *parts]}


def _tool_response_message(response: JsonObject) -> JsonObject:
    return {"toolResponse": {"functionResponses": [response]}}


def _item_key(item: Item) -> str:
    """Return the key of an item; a call and its result have the same."""
    match item:
        case ToolCallItem(call_id=call_id) | ToolResultItem(call_id=call_id):
            return call_id
        case _:
            return item.id


def _truncated_turn(item: AgentItem, heard: str) -> list[_PendingTurn | _Truncations]:
    """Return a pending message shortened to what was heard of it."""
    item = replace(item, text=heard)
    content = item_content(item, {})
    return [] if content is None else [_PendingTurn(content, item)]


def _needs_reply(one: _PendingTurn | _Truncations) -> bool:
    """Return whether it contains something for the model to reply to."""
    return isinstance(one, _PendingTurn) and one.content.get("role") == "user"


def _as_text(content: JsonObject) -> str:
    """Return a turn as text, for a model that takes no turns in mid-session."""
    lines = []
    parts = content["parts"]
    for part in parts if isinstance(parts, list) else ():
        match part:
            case {"text": str(text)}:
                user = content.get("role") == "user"
                lines.append(text if user else f'[You have said to the person: "{text}"]')
            case {"functionResponse": {"name": name, "response": response}}:
                lines.append(f"[Result of {name}: {orjson.dumps(response).decode()}]")
    return "\n".join(lines)
