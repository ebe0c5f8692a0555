"""Decode the events of one message of the Messages API; sans-IO."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4

from duologue.errors import ErrorKind, SessionError
from duologue.json_types import Json, JsonObject
from duologue.pipeline.interfaces import LLMOutput, TextDelta, TokenUsage, ToolRequest
from duologue.providers._json_fields import int_field, object_field, optional_str

_INPUT_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
"""Counts whose sum is the whole prompt: the first one leaves out what was cached."""


@dataclass(slots=True)
class _Block:
    """A block of the message, as its events have it so far."""

    start: JsonObject
    text: str = ""
    """Arguments of a call, or a thought."""
    signature: str = ""

    @property
    def kind(self) -> str:
        return optional_str(self.start, "type") or ""


@dataclass(slots=True)
class MessageStream:
    """Decodes one message: yields text at once, tool calls and token usage at the end."""

    done: bool = False
    """Whether the server has ended the message."""
    thoughts: list[JsonObject] = field(default_factory=list)
    """The blocks of thought, after `end`."""
    first_call_id: str | None = None
    """The id of the first tool call, after `end`."""
    _recognized: bool = False
    _blocks: dict[int, _Block] = field(default_factory=dict)
    _stop_reason: str = ""
    _stop_details: JsonObject = field(default_factory=dict)
    _usage: JsonObject = field(default_factory=dict)
    _spoke: bool = False

    def push(self, event: JsonObject) -> Iterator[LLMOutput]:
        """Decode the next event."""
        match event.get("type"):
            case "message_start":
                self._recognized = True
                self._count(object_field(object_field(event, "message"), "usage"))
            case "content_block_start":
                block = _Block(object_field(event, "content_block"))
                self._blocks[int_field(event, "index") or 0] = block
                if block.kind == "text":
                    yield from self._say(optional_str(block.start, "text"))
            case "content_block_delta":
                block = self._blocks.setdefault(int_field(event, "index") or 0, _Block({}))
                delta = object_field(event, "delta")
                yield from self._say(optional_str(delta, "text"))
                block.text += optional_str(delta, "partial_json") or ""
                block.text += optional_str(delta, "thinking") or ""
                block.signature += optional_str(delta, "signature") or ""
            case "message_delta":
                delta = object_field(event, "delta")
                self._stop_reason = optional_str(delta, "stop_reason") or self._stop_reason
                self._stop_details = object_field(delta, "stop_details") or self._stop_details
                self._count(object_field(event, "usage"))
            case "message_stop":
                self.done = True
            case _:
                pass  # "ping", and what later versions of the API add

    def end(self) -> Iterator[LLMOutput]:
        """End the message; yield its tool calls and the token usage.

        Raises:
            SessionError: The message is incomplete, or the model refused to go on.
        """
        calls = [self._call(block) for _, block in sorted(self._blocks.items())]
        made = [call for call in calls if call is not None]
        cut = self._stop_reason in ("max_tokens", "model_context_window_exceeded")
        complete = bool(self._stop_reason or self.done) and not cut
        if complete and self._stop_reason != "refusal":
            yield from made
        if self._usage:
            counts = [int_field(self._usage, key) or 0 for key in _INPUT_TOKENS]
            details = object_field(self._usage, "output_tokens_details")
            yield TokenUsage(
                sum(counts),
                int_field(self._usage, "output_tokens") or 0,
                cached=counts[-1],
                reasoning=int_field(details, "thinking_tokens") or 0,
            )
        self._check(made, cut=cut)
        self.thoughts = [
            thought
            for _, block in sorted(self._blocks.items())
            if (thought := _thought(block)) is not None
        ]
        self.first_call_id = made[0].call_id if made else None

    def _check(self, calls: list[ToolRequest], *, cut: bool) -> None:
        """Raise the error of a message that can't be used as it is."""
        if not self._recognized:
            raise SessionError("the server sent no answer of the Messages API", code="protocol")
        if self._stop_reason == "refusal":
            why = optional_str(self._stop_details, "explanation") or ""
            category = optional_str(self._stop_details, "category") or ""
            words = why or category or "the model refused to answer"
            raise SessionError(words, code="refusal", kind=ErrorKind.RETRY)
        if cut and (calls or not self._spoke):
            what = "called its tools" if calls else "said anything"
            raise SessionError(
                f"the model reached its limit ({self._stop_reason}) before it had {what}: "
                "raise max_output_tokens, or shorten the conversation",
                code=self._stop_reason,
            )
        if not self._stop_reason and not self.done:
            raise SessionError("the answer ended in the middle", code="connection")

    def _say(self, text: str | None) -> Iterator[LLMOutput]:
        if text:
            self._spoke = True
            yield TextDelta(text)

    def _count(self, usage: JsonObject) -> None:
        """Take the counts of an event, which are totals; those that are missing stay."""
        self._usage |= {key: value for key, value in usage.items() if value is not None}

    def _call(self, block: _Block) -> ToolRequest | None:
        name = optional_str(block.start, "name")
        if block.kind != "tool_use" or not name:
            return None
        # Servers of the same protocol may send all of it at once.
        arguments = block.text or json.dumps(object_field(block.start, "input"))
        return ToolRequest(optional_str(block.start, "id") or _new_id(), name, arguments)


def _new_id() -> str:
    return f"toolu_{uuid4().hex[:24]}"


def _thought(block: _Block) -> JsonObject | None:
    """Return a block of thought as the next request sends it back, unchanged."""
    if block.kind == "redacted_thinking":
        return block.start
    if block.kind != "thinking":
        return None
    thinking: Json = (optional_str(block.start, "thinking") or "") + block.text
    signature: Json = (optional_str(block.start, "signature") or "") + block.signature
    return {"type": "thinking", "thinking": thinking, "signature": signature}
