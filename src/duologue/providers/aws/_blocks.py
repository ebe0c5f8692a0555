"""Decodes the service's events: content blocks that are opened, filled and closed.

Source: "Handling output events with the bidirectional API" in the Nova 2 Sonic guide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from duologue._bounded_dict import BoundedDict
from duologue._optional import optional
from duologue.json_types import JsonObject
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


_MAX_OPEN_BLOCKS = 16
"""Blocks tracked at a time; beyond this the oldest is dropped."""
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
    """Turns the service's events into outputs.

    ``tool_called`` is called with the id of every tool call. ``unknown`` counts events by name that
    are not part of the protocol, ``malformed`` counts events that do not have the documented form.
    """

    def __init__(self, replies: Replies, tool_called: Callable[[str], None]) -> None:
        self._replies = replies
        self._tool_called = tool_called
        self._open_blocks: BoundedDict[str, _Block] = BoundedDict(_MAX_OPEN_BLOCKS)
        self.unknown: Counter[str] = Counter()
        self.malformed = 0
        self.sent_text = ""
        """The last text written to the model, which it may echo as the person's."""

    def decode(self, message: bytes) -> Sequence[Output]:
        """Decode one event."""
        try:
            outer = decode_object(message)
        except MalformedError:
            self.malformed += 1
            return ()
        event = outer.get("event")
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
        if role != "ASSISTANT" or not (kind == "AUDIO" or block.planned):
            return ()
        # This content either uses the results of the tool calls or ignores them.
        before = self._replies.end_tool_calls()
        block.reply, outputs = self._replies.begin()
        return [*before, *outputs]

    def _text_output(self, fields: JsonObject) -> Sequence[Output]:
        block = self._block(fields)
        block.text += str_field(fields, "content")
        is_transcript = block.role == "USER" and not block.planned
        if is_transcript and block.text.strip() and not self._is_echo(block.text):
            # The session assigns the text to a user turn. Pieces bring their own spaces.
            item_id = optional_str(fields, "contentId") or ""
            text = block.text if block.text[:1].isspace() else f" {block.text}"
            return [UserTranscript(item_id, text, final=True)]
        return ()

    def _is_echo(self, text: str) -> bool:
        """Return whether the service echoes our own text, perhaps in parts, before answering it."""
        last = self._replies.last
        is_pending = self._replies.pending_request is not None
        if not is_pending and last is not None and last.finished:
            # That text has been answered, so the same words now come from the person.
            self.sent_text = ""
        return text == self.sent_text or (is_pending and text.strip() in self.sent_text)

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
        interrupted = optional_str(fields, "stopReason") == "INTERRUPTED"
        return self._replies.interrupt() if interrupted else self._replies.end()

    def _usage_event(self, fields: JsonObject) -> Sequence[Output]:
        delta = object_field(object_field(fields, "details"), "delta")
        sides = []
        for side in ("input", "output"):
            counts = {
                kind: int_field(object_field(delta, side), name)
                for name, kind in _MODALITIES.items()
            }
            sides.append({kind: count for kind, count in counts.items() if count})
        return [Usage(*sides)] if any(sides) else []

    def _block(self, fields: JsonObject) -> _Block:
        block = self._open_blocks.get(optional_str(fields, "contentId") or "")
        if block is None:
            raise MalformedError("contentId")
        return block

    # Shared by all connections: a table for each session would take several kilobytes.
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
    """Return the generation stage from a field that holds JSON text."""
    try:
        model_fields = orjson.loads(fields or "{}")
    except orjson.JSONDecodeError:
        return None
    stage = model_fields.get("generationStage") if isinstance(model_fields, dict) else None
    return stage if isinstance(stage, str) else None


def _is_interruption(text: str) -> bool:
    """Return whether the text is ``{ "interrupted" : true }``, a signal and not speech."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        return bool(orjson.loads(text) == {"interrupted": True})
    except orjson.JSONDecodeError:
        return False


def _unwrap_arguments(content: str) -> str:
    """Return the arguments of a tool call, which sometimes are JSON text inside JSON text."""
    try:
        value = orjson.loads(content)
        if isinstance(value, str) and isinstance(orjson.loads(value), dict):
            return value
    except orjson.JSONDecodeError:
        pass  # The tool runner reports invalid arguments
    return content
