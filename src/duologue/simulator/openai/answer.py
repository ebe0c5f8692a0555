"""One response: its items and parts, and every event about them in the order of the protocol."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from duologue.audio import Resampler, Samples
from duologue.items import Json
from duologue.simulator.fields import Object, new_id, text_at
from duologue.simulator.openai.conversation import Conversation
from duologue.simulator.openai.dialect import GA, Dialect, Emit
from duologue.simulator.openai.schema import RATE

type Status = Literal["completed", "cancelled", "failed", "incomplete"]

_WORDS = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")

TOKEN_SAMPLES = RATE // 20
"""Sound of one output token: 50 ms."""


class Voice(Protocol):
    """Where the sound of a response goes."""

    def speak(self, answer: Answer, samples: Samples) -> None:
        """The next sound of the answer's open message, at 24 kHz."""

    def pause(self, answer: Answer) -> None:
        """The open message has all its sound."""

    def end(self, answer: Answer) -> None:
        """The response has ended, in whatever way."""

    def close(self) -> None:
        """Stop, because the session is over."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a response is to be; ``limit`` in tokens, ``conversation_id`` None when out of band."""

    conversation_id: str | None
    modality: Literal["audio", "text"]
    audio_format: Json
    voice: Json
    limit: int | None
    metadata: Json = None
    instructions: str | None = None
    plugins: Json = None
    """What else it was made with, as its usage tells it."""


@dataclass(slots=True)
class _Message:
    """The message that is being made."""

    item: Object
    output_index: int
    text: str = ""
    samples: int = 0


@dataclass(slots=True, eq=False)
class Answer:
    """One response under way."""

    dialect: ClassVar[Dialect] = GA

    wanted: Wanted
    emit: Emit
    conversation: Conversation
    voice: Voice
    input_tokens: Object
    rate: int
    """Hz of the sound that it is given."""
    id: str = field(default_factory=lambda: new_id("resp"))
    phase: str = ""
    """Phase of its next message: ``commentary`` or ``final_answer``; "" if the model has none."""
    status: str = "in_progress"
    samples: int = 0
    """Sound made so far, at 24 kHz."""
    words: int = 0
    """Tokens of its text, its calls and the thoughts before them."""
    reasoning: int | None = None
    """How many of ``words`` are thoughts; None for a model without thoughts."""
    _output: list[Object] = field(default_factory=list)
    _message: _Message | None = None
    _resampler: Resampler | None = None

    @property
    def over(self) -> bool:
        """It has ended."""
        return self.status != "in_progress"

    @property
    def in_band(self) -> bool:
        """It belongs to the conversation."""
        return self.wanted.conversation_id is not None

    @property
    def tokens(self) -> int:
        """Made so far."""
        return self.words + -(-self.samples // TOKEN_SAMPLES)

    @property
    def item_id(self) -> str:
        """The message that is being made; empty when none is."""
        return str(self._message.item["id"]) if self._message is not None else ""

    @property
    def place(self) -> Object:
        """Where the open message is: the fields that every event about a part has."""
        message = self._message
        assert message is not None  # noqa: S101 - asked for by what has opened it
        return {
            "response_id": self.id,
            "item_id": message.item["id"],
            "output_index": message.output_index,
            "content_index": 0,
        }

    def begin(self) -> None:
        """Tell that it is there."""
        self.emit("response.created", {"response": self.shown()})

    def say(self, text: str) -> None:
        """The next words."""
        message = self._open()
        message.text += text
        names = self.dialect
        name = names.text if self.wanted.modality == "text" else names.transcript
        for word in _WORDS.findall(text):
            self.words += 1
            self.emit(f"response.{name}.delta", {**self.place, **names.piece(word)})

    def speak(self, samples: Samples) -> None:
        """The next sound."""
        if self.wanted.modality == "text":
            return
        self._open()
        if self._resampler is None:
            self._resampler = Resampler(self.rate, RATE)
        self._sound(self._resampler.push(samples))

    def call(self, call_id: str, name: str, arguments: str) -> None:
        """A call of a function: an item of its own."""
        self._close("completed")
        item: Object = {
            "id": new_id("item"),
            "type": "function_call",
            "status": "in_progress",
            "name": name,
            "call_id": call_id,
            "arguments": "",
        }
        index = self._add(item)
        self.words += len(arguments) // 4 + 1
        place: Object = {
            "response_id": self.id,
            "item_id": item["id"],
            "output_index": index,
            "call_id": call_id,
        }
        half = len(arguments) // 2
        for delta in (arguments[:half], arguments[half:]):
            if delta:
                piece = self.dialect.piece(delta)
                self.emit("response.function_call_arguments.delta", {**place, **piece})
        done: Object = {**place, "name": name, "arguments": arguments}
        self.emit("response.function_call_arguments.done", done)
        item["arguments"] = arguments
        self._finish(item, index, "completed")

    def end(self, status: Status, details: Json = None) -> None:
        """It is over."""
        if self.over:
            return
        self._close("completed" if status == "completed" else "incomplete")
        self.status = status
        self.tell_done(details)
        self.voice.end(self)

    def tell_done(self, details: Json) -> None:
        """Tell that it is over."""
        self.emit("response.done", {"response": self.shown(details)})

    def shown(self, details: Json = None) -> Object:
        """The response object as it is now."""
        wanted = self.wanted
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": details,
            "output": [dict(item) for item in self._output],
            "conversation_id": wanted.conversation_id,
            "output_modalities": [wanted.modality],
            "max_output_tokens": "inf" if wanted.limit is None else wanted.limit,
            "audio": {"output": {"format": wanted.audio_format, "voice": wanted.voice}},
            "usage": self._usage() if self.over else None,
            "metadata": wanted.metadata,
        }

    def _sound(self, samples: Samples) -> None:
        message = self._message
        if message is None or not len(samples):
            return
        message.samples += len(samples)
        self.samples += len(samples)
        self.conversation.audio_ms[str(message.item["id"])] = message.samples * 1000 // RATE
        self.voice.speak(self, samples)

    def _open(self) -> _Message:
        if self._message is not None:
            return self._message
        item: Object = {
            "id": new_id("item"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        if self.phase:
            item["phase"] = self.phase
        message = _Message(item, self._add(item))
        self._message = message
        item["content"] = [self._content()]
        self.emit("response.content_part.added", {**self.place, "part": self._part()})
        return message

    def _add(self, item: Object) -> int:
        if self.dialect.objects:
            item["object"] = "realtime.item"
        self._output.append(item)
        index = len(self._output) - 1
        self.emit(
            "response.output_item.added",
            {"response_id": self.id, "output_index": index, "item": dict(item)},
        )
        if self.in_band:
            before = self.conversation.append(item)
            told = self.dialect.placed(before, item)
            self.emit(f"conversation.item.{self.dialect.item}", told)
        return index

    def _close(self, status: str) -> None:
        message = self._message
        if message is None:
            return
        names = self.dialect
        if self.wanted.modality == "text":
            self.emit(f"response.{names.text}.done", {**self.place, "text": message.text})
        else:
            if self._resampler is not None:
                self._sound(self._resampler.flush())
                self._resampler = None
            self.voice.pause(self)
            told: list[tuple[str, Object]] = [
                (names.audio, self.place),
                (names.transcript, {**self.place, "transcript": message.text}),
            ]
            for name, fields in reversed(told) if names.transcript_first else told:
                self.emit(f"response.{name}.done", fields)
        self.emit("response.content_part.done", {**self.place, "part": self._part()})
        message.item["content"] = [self._content()]
        self._finish(message.item, message.output_index, status)
        self._message = None

    def _finish(self, item: Object, index: int, status: str) -> None:
        item["status"] = status
        done = self.dialect.item_done
        if done is not None and self.in_band and item in self.conversation.items:
            at = self.conversation.items.index(item)
            # The service sends null here for the second item of a conversation, too.
            before = text_at(self.conversation.items[at - 1], "id") if at > 1 else None
            self.emit(f"conversation.item.{done}", self.dialect.placed(before, item))
        self.emit(
            "response.output_item.done",
            {"response_id": self.id, "output_index": index, "item": dict(item)},
        )

    def _content(self) -> Object:
        text = self._message.text if self._message is not None else ""
        if self.wanted.modality == "text":
            return {"type": self.dialect.text, "text": text}
        return {"type": self.dialect.audio, "transcript": text}

    def _part(self) -> Object:
        text = self._message.text if self._message is not None else ""
        if self.wanted.modality == "text":
            return {"type": "text", "text": text}
        return {"type": "audio", "transcript": text}

    def _usage(self) -> Object:
        audio = -(-self.samples // TOKEN_SAMPLES)
        given = self.input_tokens
        made: Object = {"text_tokens": self.words, "audio_tokens": audio}
        if self.reasoning is not None:
            made["reasoning_tokens"] = self.reasoning
        total = sum(count for count in given.values() if isinstance(count, int))
        return {
            "total_tokens": total + self.words + audio,
            "input_tokens": total,
            "output_tokens": self.words + audio,
            "input_token_details": {
                **given,
                "cached_tokens": 0,
                "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 0, "image_tokens": 0},
            },
            "output_token_details": made,
        }
