"""The service's events: blocks of content, each begun, filled and ended.

From "Handling output events with the bidirectional API" in the guides of Nova 2 Sonic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from duologue.extras import require
from duologue.items import Json
from duologue.providers.aws.replies import Replies, Reply
from duologue.providers.fields import MalformedError, inner, some_text, text, whole
from duologue.realtime.outputs import Output, Usage, UserTranscript

require("orjson", "aws")
require("pybase64", "aws")

import orjson  # noqa: E402
import pybase64  # noqa: E402

from duologue.providers.json_text import decode_object  # noqa: E402

type JsonObject = dict[str, Json]

_MOST_OPEN = 16
"""Blocks that are followed at a time; the oldest is forgotten beyond it."""
_MOST_UNKNOWN = 64
_MODALITIES = {"speechTokens": "audio", "textTokens": "text"}


@dataclass(slots=True, eq=False)
class _Block:
    kind: str
    role: str
    planned: bool
    reply: Reply | None = None
    text: str = ""


class Blocks:
    """What the service tells, as outputs.

    ``called`` is told the id of every call of a tool. ``unknown`` counts events by name that are
    not of the protocol, ``malformed`` those that are not built as it says.
    """

    def __init__(self, replies: Replies, called: Callable[[str], None]) -> None:
        self._replies = replies
        self._called = called
        self._open: dict[str, _Block] = {}
        self.unknown: Counter[str] = Counter()
        self.malformed = 0
        self.sent_text = ""
        """The words that were written to the model last: it may tell them as the person's."""

    def take(self, message: bytes) -> Sequence[Output]:
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
        self.unknown[name[:80] if len(self.unknown) < _MOST_UNKNOWN else "..."] += 1

    def _start(self, fields: JsonObject) -> Sequence[Output]:
        kind, role = text(fields, "type"), text(fields, "role")
        stage = _stage(some_text(fields, "additionalModelFields"))
        block = _Block(kind, role, planned=stage == "SPECULATIVE")
        self._open[some_text(fields, "contentId") or ""] = block
        if len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]
        if role != "ASSISTANT" or not (kind == "AUDIO" or block.planned):
            return ()
        # What it says now follows the results of its tools, or takes no notice of them.
        before = self._replies.end_calls()
        block.reply, outputs = self._replies.begin()
        return [*before, *outputs]

    def _text(self, fields: JsonObject) -> Sequence[Output]:
        block = self._block(fields)
        words = text(fields, "content")
        block.text += words
        said = block.role == "USER" and not block.planned
        if said and block.text.strip() and not self._was_written(block.text):
            # The turn that it belongs to is found by who listens; pieces bring their own spaces.
            piece = some_text(fields, "contentId") or ""
            apart = block.text if block.text[:1].isspace() else f" {block.text}"
            return [UserTranscript(piece, apart, final=True)]
        return ()

    def _was_written(self, words: str) -> bool:
        """It tells what we have written to it, perhaps in parts, before it answers that."""
        last = self._replies.last
        waits = self._replies.asked is not None
        if not waits and last is not None and last.over:
            # It was answered, and the person may say the same words themselves.
            self.sent_text = ""
        return words == self.sent_text or (waits and words.strip() in self.sent_text)

    def _audio(self, fields: JsonObject) -> Sequence[Output]:
        block = self._block(fields)
        try:
            pcm = pybase64.b64decode(text(fields, "content"))
        except ValueError as error:
            raise MalformedError("content") from error
        return () if block.reply is None else self._replies.sound(block.reply, pcm)

    def _tool(self, fields: JsonObject) -> Sequence[Output]:
        call_id, name = text(fields, "toolUseId"), text(fields, "toolName")
        content = some_text(fields, "content") or "{}"
        self._called(call_id)
        return self._replies.call(call_id, name, _arguments(content))

    def _end(self, fields: JsonObject) -> Sequence[Output]:
        block = self._block(fields)
        self._open.pop(some_text(fields, "contentId") or "", None)
        stop = some_text(fields, "stopReason")
        match block.kind:
            case "AUDIO" if stop == "INTERRUPTED":
                return self._replies.interrupt()
            case "AUDIO" if stop == "END_TURN":
                return self._ended(block.reply)
            case "TOOL":
                return self._replies.interrupt() if stop == "INTERRUPTED" else ()
            case "TEXT" if block.reply is not None and stop != "INTERRUPTED":
                return self._replies.plan(block.reply, block.text)
            case "TEXT" if block.role == "ASSISTANT":
                return self._said(block, stop)
            case _:
                return ()

    def _ended(self, reply: Reply | None) -> Sequence[Output]:
        return () if reply is None or reply.over else self._replies.end()

    def _said(self, block: _Block, stop: str | None) -> Sequence[Output]:
        if _is_interruption(block.text):
            return self._replies.interrupt()
        outputs: list[Output] = []
        if not block.planned:
            outputs += self._replies.say(block.text)
        if stop == "INTERRUPTED":
            outputs += self._replies.interrupt()
        return outputs

    def _completion_end(self, fields: JsonObject) -> Sequence[Output]:
        cut = some_text(fields, "stopReason") == "INTERRUPTED"
        return self._replies.interrupt() if cut else self._replies.end()

    def _usage(self, fields: JsonObject) -> Sequence[Output]:
        delta = inner(inner(fields, "details"), "delta")
        sides = []
        for side in ("input", "output"):
            found = {kind: whole(inner(delta, side), name) for name, kind in _MODALITIES.items()}
            sides.append({kind: count for kind, count in found.items() if count})
        return [Usage(*sides)] if any(sides) else []

    def _block(self, fields: JsonObject) -> _Block:
        block = self._open.get(some_text(fields, "contentId") or "")
        if block is None:
            raise MalformedError("contentId")
        return block

    # One for all connections: a session's own table would be several kilobytes.
    _handlers: ClassVar[Mapping[str, Callable[[Blocks, JsonObject], Sequence[Output]]]] = {
        "audioOutput": _audio,
        "textOutput": _text,
        "contentStart": _start,
        "contentEnd": _end,
        "toolUse": _tool,
        "usageEvent": _usage,
        "completionStart": lambda b, _: b._replies.end(),
        "completionEnd": _completion_end,
    }


def _stage(fields: str | None) -> str | None:
    """The generation stage, from JSON text in a field of JSON."""
    try:
        found = orjson.loads(fields or "{}")
    except orjson.JSONDecodeError:
        return None
    stage = found.get("generationStage") if isinstance(found, dict) else None
    return stage if isinstance(stage, str) else None


def _is_interruption(words: str) -> bool:
    """Whether it is ``{ "interrupted" : true }``, which nobody has said."""
    if not words.lstrip().startswith("{"):
        return False
    try:
        return bool(orjson.loads(words) == {"interrupted": True})
    except orjson.JSONDecodeError:
        return False


def _arguments(content: str) -> str:
    """The arguments of a call, which sometimes come as JSON text of JSON text."""
    try:
        found = orjson.loads(content)
        if isinstance(found, str) and isinstance(orjson.loads(found), dict):
            return found
    except orjson.JSONDecodeError:
        """Whoever runs the tool says what is wrong with it."""
    return content
