"""One reply of the server: its items, its parts, and their events in the protocol's order."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from duologue.audio import Resampler, Samples
from duologue.json_types import Json, JsonObject
from duologue.simulators._fields import new_id, text_at
from duologue.simulators._openai_protocol.conversation import Conversation
from duologue.simulators._openai_protocol.dialect import GA, Dialect, Emit
from duologue.simulators._openai_protocol.schema import RATE

type Status = Literal["completed", "cancelled", "failed", "incomplete"]

_WORDS = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")

TOKEN_SAMPLES = RATE // 20
"""Samples of audio in one output token: 50 ms."""


class AudioSink(Protocol):
    """Receives the audio of replies."""

    def write(self, reply: OutgoingReply, samples: Samples) -> None:
        """Accept the next audio of the reply's open message, at 24 kHz."""

    def end_message(self, reply: OutgoingReply) -> None:
        """Accept the end of the open message, which has all its audio."""

    def end_reply(self, reply: OutgoingReply) -> None:
        """Accept the end of a reply, whatever ended it."""

    def close(self) -> None:
        """Stop, because the session is over."""


@dataclass(frozen=True, slots=True)
class ReplySpec:
    """What a reply is to be.

    ``limit`` is in tokens. ``conversation_id`` is None for a reply that is out of band.
    """

    conversation_id: str | None
    modality: Literal["audio", "text"]
    audio_format: Json
    voice: Json
    limit: int | None
    metadata: Json = None
    instructions: str | None = None
    plugins: Json = None
    """Plugins that the reply used, as its usage lists them."""


@dataclass(slots=True)
class _OpenMessage:
    """The message that is being made."""

    item: JsonObject
    output_index: int
    text: str = ""
    samples: int = 0


@dataclass(slots=True, eq=False)
class OutgoingReply:
    """One reply in progress: a ``response`` of the protocol."""

    dialect: ClassVar[Dialect] = GA

    spec: ReplySpec
    emit: Emit
    conversation: Conversation
    audio_sink: AudioSink
    input_tokens: JsonObject
    input_rate: int
    """Hz of the audio that `add_audio` is given."""
    id: str = field(default_factory=lambda: new_id("resp"))
    phase: str = ""
    """Phase of the next message: ``commentary`` or ``final_answer``; "" without phases."""
    status: str = "in_progress"
    samples: int = 0
    """Samples of audio made so far, at 24 kHz."""
    text_tokens: int = 0
    """Tokens of its text, its tool calls and the reasoning before them."""
    reasoning_tokens: int | None = None
    """How many of ``text_tokens`` are reasoning; None for a model without reasoning."""
    _output: list[JsonObject] = field(default_factory=list)
    _message: _OpenMessage | None = None
    _resampler: Resampler | None = None

    @property
    def ended(self) -> bool:
        """Whether the reply has ended."""
        return self.status != "in_progress"

    @property
    def in_band(self) -> bool:
        """Whether the reply belongs to the conversation."""
        return self.spec.conversation_id is not None

    @property
    def tokens(self) -> int:
        """Output tokens made so far."""
        return self.text_tokens + -(-self.samples // TOKEN_SAMPLES)

    @property
    def item_id(self) -> str:
        """The id of the open message, or ""."""
        return str(self._message.item["id"]) if self._message is not None else ""

    @property
    def event_fields(self) -> JsonObject:
        """The fields that every event about a part of the open message has."""
        message = self._message
        assert message is not None  # noqa: S101 - only read while it is open
        return {
            "response_id": self.id,
            "item_id": message.item["id"],
            "output_index": message.output_index,
            "content_index": 0,
        }

    def begin(self) -> None:
        """Send ``response.created``."""
        self.emit("response.created", {"response": self.to_json()})

    def add_text(self, text: str) -> None:
        """Add text, or the transcript of audio."""
        message = self._open_message()
        message.text += text
        names = self.dialect
        name = names.text if self.spec.modality == "text" else names.transcript
        for word in _WORDS.findall(text):
            self.text_tokens += 1
            self.emit(f"response.{name}.delta", {**self.event_fields, **names.delta_fields(word)})

    def add_audio(self, samples: Samples) -> None:
        """Add audio, at ``input_rate``."""
        if self.spec.modality == "text":
            return
        self._open_message()
        if self._resampler is None:
            self._resampler = Resampler(self.input_rate, RATE)
        self._write_audio(self._resampler.push(samples))

    def add_tool_call(self, call_id: str, name: str, arguments: str) -> None:
        """Add a tool call, which is an item of its own."""
        self._close_message("completed")
        item: JsonObject = {
            "id": new_id("item"),
            "type": "function_call",
            "status": "in_progress",
            "name": name,
            "call_id": call_id,
            "arguments": "",
        }
        index = self._add_item(item)
        self.text_tokens += len(arguments) // 4 + 1
        place: JsonObject = {
            "response_id": self.id,
            "item_id": item["id"],
            "output_index": index,
            "call_id": call_id,
        }
        half = len(arguments) // 2
        for delta in (arguments[:half], arguments[half:]):
            if delta:
                piece = self.dialect.delta_fields(delta)
                self.emit("response.function_call_arguments.delta", {**place, **piece})
        done: JsonObject = {**place, "name": name, "arguments": arguments}
        self.emit("response.function_call_arguments.done", done)
        item["arguments"] = arguments
        self._finish_item(item, index, "completed")

    def end(self, status: Status, details: Json = None) -> None:
        """End the reply; do nothing if it has ended."""
        if self.ended:
            return
        self._close_message("completed" if status == "completed" else "incomplete")
        self.status = status
        self.send_done(details)
        self.audio_sink.end_reply(self)

    def send_done(self, details: Json) -> None:
        """Send ``response.done``."""
        self.emit("response.done", {"response": self.to_json(details)})

    def to_json(self, details: Json = None) -> JsonObject:
        """Return the response object in its current state."""
        spec = self.spec
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": details,
            "output": [dict(item) for item in self._output],
            "conversation_id": spec.conversation_id,
            "output_modalities": [spec.modality],
            "max_output_tokens": "inf" if spec.limit is None else spec.limit,
            "audio": {"output": {"format": spec.audio_format, "voice": spec.voice}},
            "usage": self._usage() if self.ended else None,
            "metadata": spec.metadata,
        }

    def _write_audio(self, samples: Samples) -> None:
        message = self._message
        if message is None or not len(samples):
            return
        message.samples += len(samples)
        self.samples += len(samples)
        self.conversation.audio_ms[str(message.item["id"])] = message.samples * 1000 // RATE
        self.audio_sink.write(self, samples)

    def _open_message(self) -> _OpenMessage:
        if self._message is not None:
            return self._message
        item: JsonObject = {
            "id": new_id("item"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        if self.phase:
            item["phase"] = self.phase
        message = _OpenMessage(item, self._add_item(item))
        self._message = message
        item["content"] = [self._content()]
        self.emit("response.content_part.added", {**self.event_fields, "part": self._part()})
        return message

    def _add_item(self, item: JsonObject) -> int:
        if self.dialect.item_objects:
            item["object"] = "realtime.item"
        self._output.append(item)
        index = len(self._output) - 1
        self.emit(
            "response.output_item.added",
            {"response_id": self.id, "output_index": index, "item": dict(item)},
        )
        if self.in_band:
            before = self.conversation.append(item)
            fields = self.dialect.item_fields(before, item)
            self.emit(f"conversation.item.{self.dialect.item_added}", fields)
        return index

    def _close_message(self, status: str) -> None:
        message = self._message
        if message is None:
            return
        names = self.dialect
        if self.spec.modality == "text":
            self.emit(f"response.{names.text}.done", {**self.event_fields, "text": message.text})
        else:
            if self._resampler is not None:
                self._write_audio(self._resampler.flush())
                self._resampler = None
            self.audio_sink.end_message(self)
            events: list[tuple[str, JsonObject]] = [
                (names.audio, self.event_fields),
                (names.transcript, {**self.event_fields, "transcript": message.text}),
            ]
            for name, fields in reversed(events) if names.transcript_first else events:
                self.emit(f"response.{name}.done", fields)
        self.emit("response.content_part.done", {**self.event_fields, "part": self._part()})
        message.item["content"] = [self._content()]
        self._finish_item(message.item, message.output_index, status)
        self._message = None

    def _finish_item(self, item: JsonObject, index: int, status: str) -> None:
        item["status"] = status
        done = self.dialect.item_done
        if done is not None and self.in_band and item in self.conversation.items:
            at = self.conversation.items.index(item)
            # The service sends null here for the second item of a conversation, too.
            before = text_at(self.conversation.items[at - 1], "id") if at > 1 else None
            self.emit(f"conversation.item.{done}", self.dialect.item_fields(before, item))
        self.emit(
            "response.output_item.done",
            {"response_id": self.id, "output_index": index, "item": dict(item)},
        )

    def _content(self) -> JsonObject:
        text = self._message.text if self._message is not None else ""
        if self.spec.modality == "text":
            return {"type": self.dialect.text, "text": text}
        return {"type": self.dialect.audio, "transcript": text}

    def _part(self) -> JsonObject:
        text = self._message.text if self._message is not None else ""
        if self.spec.modality == "text":
            return {"type": "text", "text": text}
        return {"type": "audio", "transcript": text}

    def _usage(self) -> JsonObject:
        audio = -(-self.samples // TOKEN_SAMPLES)
        counts = self.input_tokens
        made: JsonObject = {"text_tokens": self.text_tokens, "audio_tokens": audio}
        if self.reasoning_tokens is not None:
            made["reasoning_tokens"] = self.reasoning_tokens
        total = sum(count for count in counts.values() if isinstance(count, int))
        return {
            "total_tokens": total + self.text_tokens + audio,
            "input_tokens": total,
            "output_tokens": self.text_tokens + audio,
            "input_token_details": {
                **counts,
                "cached_tokens": 0,
                "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": made,
        }
