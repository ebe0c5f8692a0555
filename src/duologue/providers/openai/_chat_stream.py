"""Decodes the stream of a Chat Completions server; sans-IO.

Many servers speak this protocol, each a little differently: chunks without a delta or without
choices, tool calls without ids or all with the same index, an id that changes in mid-call,
arguments as an object, a whole completion where a stream was requested. The decoder skips what it
does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

from duologue.json_types import Json
from duologue.pipeline.interfaces import LLMOutput, TextDelta, TokenUsage, ToolRequest

MAX_BYTES = 8 * 1024 * 1024
"""Bytes of one chunk, or of a response that is not streamed; no chat server sends more."""


class ErrorChunk(Exception):  # noqa: N818 - the protocol's own word
    """The server reported an error within the stream."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class _PartialToolCall:
    """A tool call whose pieces are still arriving."""

    index: int
    call_id: str = ""
    name: str = ""
    arguments: str = ""

    def ends_before(self, call_id: str, name: str) -> bool:
        """Return whether a piece with this id and name, each perhaps empty, begins another call.

        An index can be missing or the same for all, so another id or name begins another call. But
        some servers repeat the name in each piece, and some make up an id for each: while the
        arguments are incomplete, such a piece continues them.
        """
        if call_id and call_id == self.call_id:
            return False
        if name and self.name and name != self.name:
            return True
        other_id = bool(call_id and self.call_id)
        named_again = bool(name and self.name)
        if not other_id and not named_again:
            return False
        if self.arguments:
            return isinstance(_loads(self.arguments), dict)
        return other_id and bool(name)


class ChatStream:
    """Decodes one response: yields text at once, tool calls and token usage at the end."""

    def __init__(self) -> None:
        self.done = False
        """Whether the server has ended the stream."""
        self.recognized = False
        """Whether anything of the protocol has arrived."""
        self._buffer = bytearray()
        self._unstreamed = bytearray()
        self._calls: list[_PartialToolCall] = []
        self._usage: TokenUsage | None = None

    def push(self, data: bytes) -> Iterator[LLMOutput]:
        """Decode the next bytes; raises `ErrorChunk` for an error that the server reports."""
        self._buffer += data
        if b"\n" in data:
            *lines, self._buffer = self._buffer.split(b"\n")
            for line in lines:
                yield from self._line(bytes(line.strip()))
        if len(self._buffer) + len(self._unstreamed) > MAX_BYTES:
            raise ErrorChunk(f"the server sent over {MAX_BYTES} bytes without a meaning", "")

    def end(self) -> Iterator[LLMOutput]:
        """End the response; yield the last text, the tool calls and the token usage."""
        yield from self._line(bytes(self._buffer.strip()))
        if not self.recognized:
            # The server does not stream: this is a whole completion, perhaps over many lines.
            yield from self._chunk(_loads(bytes(self._unstreamed)))
        for call in self._calls:
            if call.name:
                call_id = call.call_id or f"call_{uuid4().hex[:24]}"
                yield ToolRequest(call_id, call.name, call.arguments or "{}")
        if self._usage is not None:
            yield self._usage

    def _line(self, line: bytes) -> Iterator[LLMOutput]:
        if self.done or not line:
            return
        field, _, value = line.partition(b":")
        if field == b"data":
            value = value.strip()
            if value == b"[DONE]":
                self.done = self.recognized = True
            else:
                yield from self._chunk(_loads(value))
        elif field not in (b"event", b"id", b"retry", b"") and not self.recognized:
            self._unstreamed += line + b"\n"

    def _chunk(self, chunk: Json) -> Iterator[LLMOutput]:
        if not isinstance(chunk, dict):
            return
        if error := chunk.get("error"):
            code = error.get("code") if isinstance(error, dict) else None
            raise ErrorChunk(error_text(error) or "the server failed", str(code or ""))
        used = chunk.get("usage")
        if isinstance(used, dict):
            tokens = [_to_int(used.get(key)) for key in ("prompt_tokens", "completion_tokens")]
            self._usage = TokenUsage(*tokens)
        for choice in _list(chunk.get("choices")):
            self.recognized = True
            if not isinstance(choice, dict):
                continue
            delta = choice.get("delta") or choice.get("message")
            if not isinstance(delta, dict):
                continue
            text = _text(delta.get("content")) or _text(delta.get("refusal"))
            if text:
                yield TextDelta(text)
            for part in _list(delta.get("tool_calls")):
                self._extend(part)
            if isinstance(delta.get("function_call"), dict):
                self._extend({"index": 0, "function": delta["function_call"]})

    def _extend(self, part: Json) -> None:
        """Add a piece of a call: the id and name come once, the arguments in parts."""
        if not isinstance(part, dict):
            return
        function = part.get("function")
        function = function if isinstance(function, dict) else {}
        call_id, name = part.get("id"), function.get("name")
        call_id = str(call_id) if call_id not in (None, "") else ""
        name = name if isinstance(name, str) else ""
        call = self._find_call(part.get("index"), call_id, name)
        call.call_id = call.call_id or call_id
        call.name = name or call.name
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            call.arguments += arguments
        elif isinstance(arguments, dict):
            call.arguments = json.dumps(arguments, ensure_ascii=False)

    def _find_call(self, index: Json, call_id: str, name: str) -> _PartialToolCall:
        """Return the call that a piece belongs to: the latest with its index, or a new one."""
        number = index if isinstance(index, int) else None
        if number is None:
            number = self._calls[-1].index if self._calls else 0
        call = next((one for one in reversed(self._calls) if one.index == number), None)
        if call is not None and not call.ends_before(call_id, name):
            return call
        call = _PartialToolCall(number)
        self._calls.append(call)
        return call


def error_text(error: object) -> str:
    """Return the text of an error, in any of the forms that servers use."""
    if isinstance(error, str):
        return error
    if isinstance(error, dict):
        for key in ("message", "error", "detail"):
            if words := error_text(error.get(key)):
                return words
    return ""


def _loads(text: bytes | str) -> Json:
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _list(value: Json) -> Sequence[Json]:
    return value if isinstance(value, list) else ()


def _to_int(value: Json) -> int:
    return int(value) if isinstance(value, int | float) and value == value else 0


def _text(content: Json) -> str:
    """Return the text of a content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in _list(content) if isinstance(part, dict)]
    return "".join(part for part in parts if isinstance(part, str))
