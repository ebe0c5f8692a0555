"""What the model is told beside the person's voice: text, results, what was not heard, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from duologue._optional import optional
from duologue.items import AgentItem, Item, ToolCallItem, ToolResultItem
from duologue.json_types import Json
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


type JsonObject = dict[str, Json]

CONTINUE_PROMPT = "."
"""Said in the place of the person when the model is to speak and nothing new was said to it."""
_MAX_CALLS = 4096
"""Calls whose names are remembered."""


@dataclass(frozen=True, slots=True)
class _PendingTurn:
    """Something to tell, and the item that it is, if one."""

    content: JsonObject
    item: Item | None = None


@dataclass(frozen=True, slots=True)
class _Truncations:
    """Messages that came one after another and were cut together: what was heard of each."""

    heard_texts: dict[str, str] = field(default_factory=dict)


class PendingContext:
    """Keeps what is to be told until the moment for it, and makes the messages of it.

    Any of it interrupts the server's turn, so it waits for the turn's end, or for a request. A
    model that takes no turns in mid-session is told with the next text. ``said`` are the model's
    own messages as the server has them.
    """

    def __init__(
        self, traits: Traits, transcript: ServerTranscript, *, report_truncation: bool
    ) -> None:
        self._traits = traits
        self.transcript = transcript
        self._report_truncation = report_truncation
        self._pending: list[_PendingTurn | _Truncations] = []
        self._image: bytes | None = None
        self._tool_names: dict[str, str] = {}
        self._local_call_ids: set[str] = set()
        """Calls that the server has given no id: we have made it up."""
        self._orphaned_calls: dict[str, ToolCallItem] = {}
        """Calls that the server does not know, because another connection was made since."""
        self._partial_results: dict[str, str] = {}
        self._cancelled_calls: set[str] = set()
        self._scheduling: dict[str, str] = {}
        self.unconfirmed = False
        """Something was told that the server may not have taken yet."""

    @property
    def has_pending(self) -> bool:
        """Something is to be told, and may be at any time."""
        return bool(self._pending) and self._traits.free_context

    @property
    def pending_truncations(self) -> tuple[str, ...]:
        """The messages of which the server is still to be told what was heard."""
        return tuple(
            id_ for one in self._pending if isinstance(one, _Truncations) for id_ in one.heard_texts
        )

    def server_knows(self, item: Item) -> bool:
        """Whether the server was told that item, or made it, as far as it goes."""
        waiting = {
            _item_key(one.item)
            for one in self._pending
            if isinstance(one, _PendingTurn) and one.item
        }
        return _item_key(item) not in waiting and _item_key(item) not in self._orphaned_calls

    def set_tools(self, tools: Sequence[ToolSpec]) -> None:
        """These are the tools from now on."""
        asynchronous = self._traits.async_tools != "none"
        self._scheduling = {
            tool.name: SCHEDULINGS[tool.scheduling]
            for tool in tools
            if tool.scheduling is not None and asynchronous
        }

    def model_waits_for(self, name: str) -> bool:
        """Whether the model waits for the result of that tool."""
        return name not in self._scheduling

    def seed(self, history: Sequence[Item]) -> list[JsonObject]:
        """A history as turns, for a server that knows nothing."""
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
        """An item for the end of the model's history."""
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
        """Of one of the model's messages only that was heard."""
        for at, one in enumerate(self._pending):
            if (
                isinstance(one, _PendingTurn)
                and isinstance(one.item, AgentItem)
                and one.item.id == item_id
            ):
                self._pending[at : at + 1] = _truncated_turn(one.item, heard)
                return
        last = self._pending[-1] if self._pending else None
        told = isinstance(last, _Truncations) and item_id in last.heard_texts
        if not self._report_truncation or not (told or self.transcript.differs(item_id, heard)):
            return
        cuts = last if isinstance(last, _Truncations) else _Truncations()
        if cuts is not last:
            self._pending.append(cuts)
        cuts.heard_texts[item_id] = heard

    def add_image(self, jpeg: bytes) -> list[JsonObject]:
        """A picture that the next text is about; the messages that have to go before that."""
        if self._traits.free_context:
            self._image = jpeg
            return []
        return [image_message(jpeg)]

    def request_reply(self, text: str | None) -> list[JsonObject]:
        """Make the model speak, about what waits and ``text``."""
        if text is not None:
            self._pending.append(_PendingTurn(text_content(text)))
        elif not any(_needs_reply(content) for content in self._pending):
            self._pending.append(_PendingTurn(text_content(CONTINUE_PROMPT)))
        return self._flush(complete=True)

    def flush(self) -> list[JsonObject]:
        """Tell what waits, without asking for a reply."""
        return self._flush(complete=False) if self.has_pending else []

    def cancel_calls(self, call_ids: Sequence[str]) -> None:
        """The server wants no result of these calls."""
        self._cancelled_calls.update(call_id for call_id in call_ids if call_id in self._tool_names)

    def record_call(self, call_id: str, name: str, *, has_id: bool = True) -> None:
        """The model has called a tool; without an id of the server's, ``call_id`` is ours."""
        self._tool_names[call_id] = name
        if not has_id:
            self._local_call_ids.add(call_id)
        if len(self._tool_names) > _MAX_CALLS:
            oldest = next(iter(self._tool_names))
            del self._tool_names[oldest]
            self._local_call_ids.discard(oldest)
            self._cancelled_calls.discard(oldest)

    def has_call(self, call_id: str) -> bool:
        """Return whether the model, or the history, made this call."""
        return call_id in self._tool_names

    def encode_result(self, result: SendToolResult) -> list[JsonObject]:
        """A result of a tool, or a part of it."""
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
        elif (told := self._partial_results.pop(call_id, None)) is not None:
            response["willContinue"] = False
            if told == result.output and not result.failed:
                # The last part was the result: this only ends the call, and is not spoken of.
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
        look, self._image = self._image, None
        self.unconfirmed = True
        if not self._traits.free_context:
            text = "\n\n".join(filter(None, map(_as_text, turns)))
            return [{"realtimeInput": {"text": text}}] if text else []
        if look is not None:
            turns = [*turns[:-1], _with_image(turns[-1], look)]
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
    """A picture of the camera."""
    return {"realtimeInput": {"video": _blob(jpeg)}}


def interrupts_turn(message: JsonObject) -> bool:
    """Whether the server gives its turn up for that message."""
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
    """What an item is known by; a call and its result are one."""
    match item:
        case ToolCallItem(call_id=call_id) | ToolResultItem(call_id=call_id):
            return call_id
        case _:
            return item.id


def _truncated_turn(item: AgentItem, heard: str) -> list[_PendingTurn | _Truncations]:
    """A message that is still to be told, as far as it was heard."""
    item = replace(item, text=heard)
    content = item_content(item, {})
    return [] if content is None else [_PendingTurn(content, item)]


def _needs_reply(one: _PendingTurn | _Truncations) -> bool:
    """Whether the model has something to answer in it."""
    return isinstance(one, _PendingTurn) and one.content.get("role") == "user"


def _as_text(content: JsonObject) -> str:
    """A turn as text, for a model that takes no turns any more."""
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
