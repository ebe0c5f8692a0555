"""What the model is told beside the person's voice: text, results, what was not heard, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from duologue.extras import require
from duologue.items import AgentItem, Item, Json, ToolCallItem, ToolResultItem
from duologue.providers.gemini.contents import (
    content_of,
    contents_of,
    heard_note,
    result_of,
    text_content,
)
from duologue.providers.gemini.models import Traits
from duologue.providers.gemini.resumption import Said
from duologue.providers.gemini.setup_json import SCHEDULINGS
from duologue.realtime.commands import SendToolResult, ToolSpec

require("orjson", "gemini")
require("pybase64", "gemini")

import orjson  # noqa: E402
import pybase64  # noqa: E402

type JsonObject = dict[str, Json]

GO_ON = "."
"""Said in the place of the person when the model is to speak and nothing new was said to it."""
_MOST_CALLS = 4096
"""Calls whose names are remembered."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """Something to tell, and the item that it is, if one."""

    content: JsonObject
    item: Item | None = None


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Messages that came one after another and were cut together: what was heard of each."""

    heard: dict[str, str] = field(default_factory=dict)


class Context:
    """Keeps what is to be told until the moment for it, and makes the messages of it.

    Any of it interrupts the server's turn, so it waits for the turn's end, or for a request. A
    model that takes no turns in mid-session is told with the next text. ``said`` are the model's
    own messages as the server has them.
    """

    def __init__(self, traits: Traits, said: Said, *, told_cuts: bool) -> None:
        self._traits = traits
        self.said = said
        self._told_cuts = told_cuts
        self._waiting: list[_Turn | _Cuts] = []
        self._look: bytes | None = None
        self._names: dict[str, str] = {}
        self._nameless: set[str] = set()
        """Calls that the server has given no id: we have made it up."""
        self._orphans: dict[str, ToolCallItem] = {}
        """Calls that the server does not know, because another connection was made since."""
        self._parts: dict[str, str] = {}
        self._cancelled: set[str] = set()
        self._scheduling: dict[str, str] = {}
        self.unproven = False
        """Something was told that the server may not have taken yet."""

    @property
    def waiting(self) -> bool:
        """Something is to be told, and may be at any time."""
        return bool(self._waiting) and self._traits.free_context

    @property
    def cuts(self) -> tuple[str, ...]:
        """The messages of which the server is still to be told what was heard."""
        return tuple(id_ for one in self._waiting if isinstance(one, _Cuts) for id_ in one.heard)

    def knows(self, item: Item) -> bool:
        """Whether the server was told that item, or made it, as far as it goes."""
        waiting = {_key(one.item) for one in self._waiting if isinstance(one, _Turn) and one.item}
        return _key(item) not in waiting and _key(item) not in self._orphans

    def tools(self, tools: Sequence[ToolSpec]) -> None:
        """These are the tools from now on."""
        asynchronous = self._traits.async_tools != "none"
        self._scheduling = {
            tool.name: SCHEDULINGS[tool.scheduling]
            for tool in tools
            if tool.scheduling is not None and asynchronous
        }

    def waits_for(self, name: str) -> bool:
        """Whether the model waits for the result of that tool."""
        return name not in self._scheduling

    def seed(self, history: Sequence[Item]) -> list[JsonObject]:
        """A history as turns, for a server that knows nothing."""
        answered = {item.call_id for item in history if isinstance(item, ToolResultItem)}
        for item in history:
            match item:
                case AgentItem(id=item_id, text=text):
                    self.said.tell(item_id, text)
                case ToolCallItem(call_id=call_id, name=name):
                    self._names[call_id] = name
                    if call_id not in answered:
                        self._orphans[call_id] = item
        contents = contents_of(history)
        self.unproven = bool(contents)
        return contents

    def add(self, item: Item) -> None:
        """An item for the end of the model's history."""
        match item:
            case ToolCallItem(call_id=call_id, name=name):
                self._names[call_id] = name
                self._orphans[call_id] = item
            case ToolResultItem(call_id=call_id, output=output, failed=failed):
                self._answer_orphan(call_id, output, failed=failed)
            case _:
                content = content_of(item, self._names)
                if content is not None:
                    self._waiting.append(_Turn(content, item))

    def cut(self, item_id: str, heard: str) -> None:
        """Of one of the model's messages only that was heard."""
        for at, one in enumerate(self._waiting):
            if (
                isinstance(one, _Turn)
                and isinstance(one.item, AgentItem)
                and one.item.id == item_id
            ):
                self._waiting[at : at + 1] = _heard_of(one.item, heard)
                return
        last = self._waiting[-1] if self._waiting else None
        told = isinstance(last, _Cuts) and item_id in last.heard
        if not self._told_cuts or not (told or self.said.differs(item_id, heard)):
            return
        cuts = last if isinstance(last, _Cuts) else _Cuts()
        if cuts is not last:
            self._waiting.append(cuts)
        cuts.heard[item_id] = heard

    def look(self, jpeg: bytes) -> list[JsonObject]:
        """A picture that the next text is about; the messages that have to go before that."""
        if self._traits.free_context:
            self._look = jpeg
            return []
        return [picture_message(jpeg)]

    def request(self, text: str | None) -> list[JsonObject]:
        """Make the model speak, about what waits and ``text``."""
        if text is not None:
            self._waiting.append(_Turn(text_content(text)))
        elif not any(_is_new(content) for content in self._waiting):
            self._waiting.append(_Turn(text_content(GO_ON)))
        return self._flush(complete=True)

    def flush(self) -> list[JsonObject]:
        """Tell what waits, without asking for a reply."""
        return self._flush(complete=False) if self.waiting else []

    def cancelled(self, call_ids: Sequence[str]) -> None:
        """The server wants no result of these calls."""
        self._cancelled.update(call_id for call_id in call_ids if call_id in self._names)

    def called(self, call_id: str, name: str, *, has_id: bool = True) -> None:
        """The model has called a tool; without an id of the server's, ``call_id`` is ours."""
        self._names[call_id] = name
        if not has_id:
            self._nameless.add(call_id)
        if len(self._names) > _MOST_CALLS:
            oldest = next(iter(self._names))
            del self._names[oldest]
            self._nameless.discard(oldest)
            self._cancelled.discard(oldest)

    def has_call(self, call_id: str) -> bool:
        """Return whether the model, or the history, made this call."""
        return call_id in self._names

    def result(self, result: SendToolResult) -> list[JsonObject]:
        """A result of a tool, or a part of it."""
        call_id = result.call_id
        if call_id in self._cancelled:
            return []
        scheduling = self._scheduling.get(result.name)
        if scheduling is not None and result.quiet:
            scheduling = "SILENT"
        if call_id in self._orphans:
            if result.more:
                return []
            self._answer_orphan(call_id, result.output, failed=result.failed)
            if self._orphans:
                return []
            return [] if scheduling == "SILENT" else self._flush(complete=True)
        response: JsonObject = {"name": result.name}
        if call_id not in self._nameless:
            response["id"] = call_id
        if result.more:
            if scheduling is None:
                return []
            self._parts[call_id] = result.output
            response["willContinue"] = True
        elif (told := self._parts.pop(call_id, None)) is not None:
            response["willContinue"] = False
            if told == result.output and not result.failed:
                # The last part was the result: this only ends the call, and is not spoken of.
                return [_responses({**response, "response": {}, "scheduling": "SILENT"})]
        if scheduling is not None:
            response["scheduling"] = scheduling
        response["response"] = result_of(result.output, failed=result.failed)
        return [_responses(response)]

    def _answer_orphan(self, call_id: str, output: str, *, failed: bool) -> None:
        call = self._orphans.pop(call_id, None)
        if call is not None:
            result = ToolResultItem(call.id, call_id, output, failed)
            self._waiting += [_Turn(content, call) for content in contents_of((call, result))]

    def _flush(self, *, complete: bool) -> list[JsonObject]:
        turns = [self._told(one) for one in self._waiting]
        self._waiting = []
        look, self._look = self._look, None
        self.unproven = True
        if not self._traits.free_context:
            text = "\n\n".join(filter(None, map(_as_text, turns)))
            return [{"realtimeInput": {"text": text}}] if text else []
        if look is not None:
            turns = [*turns[:-1], _seen(turns[-1], look)]
        return [{"clientContent": {"turns": list(turns), "turnComplete": complete}}]

    def _told(self, one: _Turn | _Cuts) -> JsonObject:
        if isinstance(one, _Turn):
            if isinstance(one.item, AgentItem):
                self.said.tell(one.item.id, one.item.text)
            return one.content
        for item_id, heard in one.heard.items():
            self.said.tell(item_id, heard)
        return text_content(heard_note(list(one.heard.values())))


def picture_message(jpeg: bytes) -> JsonObject:
    """A picture of the camera."""
    return {"realtimeInput": {"video": _blob(jpeg)}}


def interrupts(message: JsonObject) -> bool:
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


def _seen(content: JsonObject, jpeg: bytes) -> JsonObject:
    parts = content["parts"]
    assert isinstance(parts, list)  # noqa: S101 - we have made it
    return {**content, "parts": [{"inlineData": _blob(jpeg)}, *parts]}


def _responses(response: JsonObject) -> JsonObject:
    return {"toolResponse": {"functionResponses": [response]}}


def _key(item: Item) -> str:
    """What an item is known by; a call and its result are one."""
    match item:
        case ToolCallItem(call_id=call_id) | ToolResultItem(call_id=call_id):
            return call_id
        case _:
            return item.id


def _heard_of(item: AgentItem, heard: str) -> list[_Turn | _Cuts]:
    """A message that is still to be told, as far as it was heard."""
    item = replace(item, text=heard)
    content = content_of(item, {})
    return [] if content is None else [_Turn(content, item)]


def _is_new(one: _Turn | _Cuts) -> bool:
    """Whether the model has something to answer in it."""
    return isinstance(one, _Turn) and one.content.get("role") == "user"


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
