"""The service's events: blocks of content, each begun, filled and ended.

From "Handling output events with the bidirectional API" in the guides of Nova 2 Sonic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from duologue._optional import optional
from duologue.json_types import Json
from duologue.providers._json_fields import (
    MalformedError,
    int_field,
    object_field,
    optional_str,
    str_field,
)
from duologue.providers.aws._replies import Replies, Reply
from duologue.realtime.outputs import Output, Usage, UserTranscript

with optional("aws"):
    import orjson
    import pybase64

    from duologue.providers._json_text import decode_object


type JsonObject = dict[str, Json]

_MAX_OPEN_BLOCKS = 16
"""Blocks that are followed at a time; the oldest is forgotten beyond it."""
_MAX_UNKNOWN_NAMES = 64
_MODALITIES = {"speechTokens": "audio", "textTokens": "text"}


@dataclass(slots=True, eq=False)
class _Block:
    kind: str
    role: str
    planned: bool
    reply: Reply | None = None
    text: str = ""


class ContentBlocks:
    """What the service tells, as outputs.

    ``called`` is told the id of every call of a tool. ``unknown`` counts events by name that are
    not of the protocol, ``malformed`` those that are not built as it says.
    """

    def __init__(self, replies: Replies, tool_called: Callable[[str], None]) -> None:
        self._replies = replies
        self._tool_called = tool_called
        self._open_blocks: dict[str, _Block] = {}
        self.unknown: Counter[str] = Counter()
        self.malformed = 0
        self.sent_text = ""
        """The words that were written to the model last: it may tell them as the person's."""

    def decode(self, message: bytes) -> Sequence[Output]:
        """What an event means."""
        try:
            found = decode_object(message)
        except MalformedError:
            self.malformed += 1
            return ()
        event = found.get("event")
        if not isinstance(event, dict) or len(event) != 1:
            self.malformed += 1
            return ()
        ((name, fields),) = event.items()
        handler = self._handlers.get(name)
        if handler is None:
            self._count_unknown(name)
            return ()
        try:
            if not isinstance(fields, dict):
                raise MalformedError(name)
            return handler(self, fields)
        except MalformedError:
            self.malformed += 1
            return ()

    def _count_unknown(self, name: str) -> None:
        # Bounded: a service that invents names must not fill the memory.
        self.unknown[name[:80] if len(self.unknown) < _MAX_UNKNOWN_NAMES else "..."] += 1

    def _content_start(self, fields: JsonObject) -> Sequence[Output]:
        kind, role = str_field(fields, "type"), str_field(fields, "role")
        stage = _generation_stage(optional_str(fields, "additionalModelFields"))
        block = _Block(kind, role, planned=stage == "SPECULATIVE")
        self._open_blocks[optional_str(fields, "contentId") or ""] = block
        if len(self._open_blocks) > _MAX_OPEN_BLOCKS:
            del self._open_blocks[next(iter(self._open_blocks))]
        if role != "ASSISTANT" or not (kind == "AUDIO" or block.planned):
            return ()
        # What it says now follows the results of its tools, or takes no notice of them.
        before = self._replies.end_tool_calls()
        block.reply, outputs = self._replies.begin()
        return [*before, *outputs]

    def _text_output(self, fields: JsonObject) -> Sequence[Output]:
        block = self._block(fields)
        words = str_field(fields, "content")
        block.text += words
        said = block.role == "USER" and not block.planned
        if said and block.text.strip() and not self._is_echo(block.text):
            # The turn that it belongs to is found by who listens; pieces bring their own spaces.
            piece = optional_str(fields, "contentId") or ""
            apart = block.text if block.text[:1].isspace() else f" {block.text}"
            return [UserTranscript(piece, apart, final=True)]
        return ()

    def _is_echo(self, text: str) -> bool:
        """It tells what we have written to it, perhaps in parts, before it answers that."""
        last = self._replies.last
        waits = self._replies.pending_request is not None
        if not waits and last is not None and last.finished:
            # It was answered, and the person may say the same words themselves.
            self.sent_text = ""
        return text == self.sent_text or (waits and text.strip() in self.sent_text)

    def _audio_output(self, fields: JsonObject) -> Sequence[Output]:
        block = self._block(fields)
        try:
            pcm = pybase64.b64decode(str_field(fields, "content"))
        except ValueError as error:
            raise MalformedError("content") from error
        return () if block.reply is None else self._replies.add_audio(block.reply, pcm)

    def _tool_use(self, fields: JsonObject) -> Sequence[Output]:
        call_id, name = str_field(fields, "toolUseId"), str_field(fields, "toolName")
        content = optional_str(fields, "content") or "{}"
        self._tool_called(call_id)
        return self._replies.add_tool_call(call_id, name, _unwrap_arguments(content))

    def _content_end(self, fields: JsonObject) -> Sequence[Output]:
        block = self._block(fields)
        self._open_blocks.pop(optional_str(fields, "contentId") or "", None)
        stop = optional_str(fields, "stopReason")
        match block.kind:
            case "AUDIO" if stop == "INTERRUPTED":
                return self._replies.interrupt()
            case "AUDIO" if stop == "END_TURN":
                return self._end_reply(block.reply)
            case "TOOL":
                return self._replies.interrupt() if stop == "INTERRUPTED" else ()
            case "TEXT" if block.reply is not None and stop != "INTERRUPTED":
                return self._replies.add_planned(block.reply, block.text)
            case "TEXT" if block.role == "ASSISTANT":
                return self._end_text(block, stop)
            case _:
                return ()

    def _end_reply(self, reply: Reply | None) -> Sequence[Output]:
        return () if reply is None or reply.finished else self._replies.end()

    def _end_text(self, block: _Block, stop: str | None) -> Sequence[Output]:
        if _is_interruption(block.text):
            return self._replies.interrupt()
        outputs: list[Output] = []
        if not block.planned:
            outputs += self._replies.add_spoken(block.text)
        if stop == "INTERRUPTED":
            outputs += self._replies.interrupt()
        return outputs

    def _completion_end(self, fields: JsonObject) -> Sequence[Output]:
        cut = optional_str(fields, "stopReason") == "INTERRUPTED"
        return self._replies.interrupt() if cut else self._replies.end()

    def _usage_event(self, fields: JsonObject) -> Sequence[Output]:
        delta = object_field(object_field(fields, "details"), "delta")
        sides = []
        for side in ("input", "output"):
            found = {
                kind: int_field(object_field(delta, side), name)
                for name, kind in _MODALITIES.items()
            }
            sides.append({kind: count for kind, count in found.items() if count})
        return [Usage(*sides)] if any(sides) else []

    def _block(self, fields: JsonObject) -> _Block:
        block = self._open_blocks.get(optional_str(fields, "contentId") or "")
        if block is None:
            raise MalformedError("contentId")
        return block

    # One for all connections: a session's own table would be several kilobytes.
    _handlers: ClassVar[Mapping[str, Callable[[ContentBlocks, JsonObject], Sequence[Output]]]] = {
        "audioOutput": _audio_output,
        "textOutput": _text_output,
        "contentStart": _content_start,
        "contentEnd": _content_end,
        "toolUse": _tool_use,
        "usageEvent": _usage_event,
        "completionStart": lambda b, _: b._replies.end(),
        "completionEnd": _completion_end,
    }


def _generation_stage(fields: str | None) -> str | None:
    """The generation stage, from JSON text in a field of JSON."""
    try:
        found = orjson.loads(fields or "{}")
    except orjson.JSONDecodeError:
        return None
    stage = found.get("generationStage") if isinstance(found, dict) else None
    return stage if isinstance(stage, str) else None


def _is_interruption(text: str) -> bool:
    """Whether it is ``{ "interrupted" : true }``, which nobody has said."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        return bool(orjson.loads(text) == {"interrupted": True})
    except orjson.JSONDecodeError:
        return False


def _unwrap_arguments(content: str) -> str:
    """The arguments of a call, which sometimes come as JSON text of JSON text."""
    try:
        found = orjson.loads(content)
        if isinstance(found, str) and isinstance(orjson.loads(found), dict):
            return found
    except orjson.JSONDecodeError:
        """Whoever runs the tool says what is wrong with it."""
    return content
