"""What the model is told beside the person's voice: text, results, what was not heard, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from duologue.providers.gemini.resumption import Resumption
from duologue.providers.gemini.setup_json import SCHEDULINGS
from duologue.realtime.commands import SendToolResult, ToolSpec

require("pybase64", "gemini")

import pybase64  # noqa: E402

type JsonObject = dict[str, Json]

GO_ON = "."
"""Said in the place of the person when the model is to speak and nothing new was said to it."""


@dataclass(frozen=True, slots=True)
class _Cuts:
    """Messages that came one after another and were cut together: what was heard of each."""

    heard: dict[str, str]


class Context:
    """Keeps what is to be told until the moment for it, and makes the messages of it.

    Any of it interrupts the server's turn, so it waits for the turn's end, or for a request. A
    model that takes no turns in mid-session is told with the next text.
    """

    def __init__(self, traits: Traits, resumption: Resumption, *, told_cuts: bool) -> None:
        self._traits = traits
        self._resumption = resumption
        self._told_cuts = told_cuts
        self._waiting: list[JsonObject | _Cuts] = []
        self._look: bytes | None = None
        self._names: dict[str, str] = {}
        self._orphans: dict[str, ToolCallItem] = {}
        """Calls that the server does not know, because another connection was made since."""
        self._parts: dict[str, str] = {}
        self._cancelled: set[str] = set()
        self._scheduling: dict[str, str] = {}

    @property
    def waiting(self) -> bool:
        """Something is to be told."""
        return bool(self._waiting) and self._traits.free_context

    def tools(self, tools: Sequence[ToolSpec]) -> None:
        """These are the tools from now on."""
        asynchronous = self._traits.async_tools != "none"
        self._scheduling = {
            tool.name: SCHEDULINGS[tool.scheduling]
            for tool in tools
            if tool.scheduling is not None and asynchronous
        }

    def seed(self, history: Sequence[Item]) -> list[JsonObject]:
        """A history as turns, for a server that knows nothing."""
        answered = {item.call_id for item in history if isinstance(item, ToolResultItem)}
        for item in history:
            self._know(item)
            if isinstance(item, ToolCallItem) and item.call_id not in answered:
                self._orphans[item.call_id] = item
        return contents_of(history)

    def add(self, item: Item) -> None:
        """An item for the end of the model's history."""
        self._know(item)
        if isinstance(item, ToolCallItem):
            self._orphans[item.call_id] = item
            return
        if isinstance(item, ToolResultItem):
            self._answer_orphan(item.call_id, item.output, failed=item.failed)
            return
        content = content_of(item, self._names)
        if content is not None:
            self._waiting.append(content)

    def cut(self, item_id: str, heard: str) -> None:
        """Of one of the model's messages only that was heard."""
        if not self._resumption.cut(item_id, heard) or not self._told_cuts:
            return
        last = self._waiting[-1] if self._waiting else None
        cuts = last if isinstance(last, _Cuts) else _Cuts({})
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
            self._waiting.append(text_content(text))
        elif not any(_is_new(content) for content in self._waiting):
            self._waiting.append(text_content(GO_ON))
        return self._flush(complete=True)

    def flush(self) -> list[JsonObject]:
        """Tell what waits, without asking for a reply."""
        return self._flush(complete=False) if self.waiting else []

    def cancelled(self, call_ids: Sequence[str]) -> None:
        """The server wants no result of these calls."""
        self._cancelled.update(call_ids)

    def called(self, call_id: str, name: str) -> None:
        """The model has called a tool."""
        self._names[call_id] = name

    def result(self, result: SendToolResult) -> list[JsonObject]:
        """A result of a tool, or a part of it."""
        call_id = result.call_id
        if call_id in self._cancelled:
            return []
        if call_id in self._orphans:
            if result.more:
                return []
            self._answer_orphan(call_id, result.output, failed=result.failed)
            return [] if self._orphans else self._flush(complete=True)
        scheduling = self._scheduling.get(result.name)
        response: JsonObject = {"id": call_id, "name": result.name}
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

    def _know(self, item: Item) -> None:
        match item:
            case AgentItem(id=item_id, text=text):
                self._resumption.know(item_id, text)
            case ToolCallItem(call_id=call_id, name=name):
                self._names[call_id] = name

    def _answer_orphan(self, call_id: str, output: str, *, failed: bool) -> None:
        call = self._orphans.pop(call_id, None)
        if call is not None:
            result = ToolResultItem(call.id, call_id, output, failed)
            self._waiting += contents_of((call, result))

    def _flush(self, *, complete: bool) -> list[JsonObject]:
        turns = [
            text_content(heard_note(list(one.heard.values()))) if isinstance(one, _Cuts) else one
            for one in self._waiting
        ]
        self._waiting = []
        look, self._look = self._look, None
        if not self._traits.free_context:
            text = "\n\n".join(filter(None, map(_as_text, turns)))
            return [{"realtimeInput": {"text": text}}] if text else []
        if look is not None:
            turns = [*turns[:-1], _seen(turns[-1], look)]
        return [{"clientContent": {"turns": list(turns), "turnComplete": complete}}]


def picture_message(jpeg: bytes) -> JsonObject:
    """A picture of the camera."""
    return {"realtimeInput": {"video": _blob(jpeg)}}


def _blob(jpeg: bytes) -> JsonObject:
    return {"mimeType": "image/jpeg", "data": pybase64.b64encode_as_string(jpeg)}


def _seen(content: JsonObject, jpeg: bytes) -> JsonObject:
    parts = content["parts"]
    assert isinstance(parts, list)  # noqa: S101 - we have made it
    return {**content, "parts": [{"inlineData": _blob(jpeg)}, *parts]}


def _responses(response: JsonObject) -> JsonObject:
    return {"toolResponse": {"functionResponses": [response]}}


def _is_new(content: JsonObject | _Cuts) -> bool:
    """Whether the model has something to answer in it."""
    return not isinstance(content, _Cuts) and content.get("role") == "user"


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
                lines.append(f"[Result of {name}: {response}]")
    return "\n".join(lines)
