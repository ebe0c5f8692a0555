"""The model's replies as they come: planned, spoken, and, once it was played, what was said.

The service plays each reply in its mind, and tells sentence by sentence what it has said so far,
long after it was made; the next reply may have begun by then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

import numpy as np

from duologue.audio import AudioFrame
from duologue.providers._verbatim import same_words
from duologue.realtime.outputs import (
    Output,
    ReplyAudio,
    ReplyDone,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SayMismatch,
    ToolCall,
)

_MAX_REPLIES = 16
"""Replies whose words may still come."""


@dataclass(slots=True, eq=False)
class Reply:
    """One reply; ``wanted`` is the scripted text that it was told to say."""

    id: str
    item_id: str
    script: str | None = None
    planned: list[str] = field(default_factory=list)
    spoken_sentences: int = 0
    """Sentences that were planned and have been said since."""
    spoken_text: str = ""
    samples: int = 0
    finished: bool = False
    """It was made to its end, or cut."""
    interrupted: bool = False
    """It was cut, by the person or by us: more words may never come."""
    interrupted_by_service: bool = False
    """The service has cut it, so it knows of that."""
    has_tool_calls: bool = False
    """It has called tools, and says no more before it has their results."""
    half_sample: bytes = b""
    """Half a sample of its sound."""

    @property
    def is_playing(self) -> bool:
        """As far as the service has told, it is not said to its end yet."""
        return not self.interrupted and (
            not self.finished or self.spoken_sentences < len(self.planned)
        )


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A text that was sent to be answered."""

    request_id: str
    script: str | None = None


class Replies:
    """All replies of one connection; ``rate`` is Hz of their sound."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._all: deque[Reply] = deque(maxlen=_MAX_REPLIES)
        self._current: Reply | None = None
        self.pending_request: TextRequest | None = None
        """What the next reply will answer; None for what the person has said."""

    @property
    def last(self) -> Reply | None:
        """The newest reply."""
        return self._all[-1] if self._all else None

    def by_item(self, item_id: str) -> Reply | None:
        """The reply that is this item of the conversation."""
        return next((one for one in self._all if one.item_id == item_id), None)

    def cancel(self, reply_id: str) -> str | None:
        """We have cancelled a reply, which goes on coming all the same; returns its item."""
        reply = next((one for one in self._all if one.id == reply_id), None)
        if reply is None:
            return None
        reply.interrupted = True
        return reply.item_id

    def begin(self) -> tuple[Reply, Sequence[Output]]:
        """Something of a reply comes: of the one that is being made, or of a new one."""
        if self._current is not None:
            return self._current, ()
        asked, self.pending_request = self.pending_request, None
        number = uuid4().hex
        wanted = None if asked is None else asked.script
        reply = Reply(f"reply_{number}", f"item_{number}", wanted)
        self._current = reply
        self._all.append(reply)
        return reply, [ReplyStarted(reply.id, None if asked is None else asked.request_id)]

    def add_planned(self, reply: Reply, text: str) -> Sequence[Output]:
        """The next sentence that it is about to say."""
        if not text.strip() or reply.finished:
            return ()
        text = _with_space(reply.planned[-1] if reply.planned else "", text)
        reply.planned.append(text)
        return [ReplyText(reply.id, reply.item_id, text, planned=True)]

    def add_spoken(self, text: str) -> Sequence[Output]:
        """What was said, of whichever reply it was."""
        reply = self._match_reply(text)
        if reply is None or not text.strip():
            return ()
        text = _with_space(reply.spoken_text, text)
        reply.spoken_text += text
        reply.spoken_sentences += 1
        words = ReplyText(reply.id, reply.item_id, text)
        return [words, *self._check_script(reply)]

    def add_audio(self, reply: Reply, pcm: bytes) -> Sequence[Output]:
        """Its next sound, as little-endian int16."""
        if reply.finished:
            return ()
        pcm = reply.half_sample + pcm
        even = len(pcm) & ~1
        reply.half_sample, pcm = pcm[even:], pcm[:even]
        if not pcm:
            return ()
        samples = np.frombuffer(pcm, "<i2")
        reply.samples += len(samples)
        return [ReplyAudio(reply.id, reply.item_id, AudioFrame(samples, self._rate))]

    def add_tool_call(self, call_id: str, name: str, arguments: str) -> Sequence[Output]:
        """It calls a tool, perhaps the first of several."""
        reply, began = self.begin()
        reply.has_tool_calls = True
        return [*began, ToolCall(reply.id, call_id, name, arguments)]

    def end(self, status: Literal["completed", "cancelled"] = "completed") -> Sequence[Output]:
        """The one that is being made is complete, or was cut."""
        reply, self._current = self._current, None
        if reply is None:
            return ()
        reply.finished = True
        return [ReplyDone(reply.id, status)]

    def end_tool_calls(self) -> Sequence[Output]:
        """The one that is being made has called its tools, if it did, and that was all of it."""
        return self.end() if self._current is not None and self._current.has_tool_calls else ()

    def interrupt(self) -> Sequence[Output]:
        """The service has heard the person, and stopped: told once, and not when we were first."""
        reply = self.last
        if reply is None:
            return ()
        first, reply.interrupted = not reply.interrupted, True
        reply.interrupted_by_service = True
        done = self.end("cancelled")
        return [ReplyInterrupted(reply.id), *done] if first else done

    def _match_reply(self, text: str) -> Reply | None:
        """The reply that these words were said in: the first that planned them, or began to."""
        waiting = [one for one in self._all if one.spoken_sentences < len(one.planned)]
        # Of one that was cut, the words have mostly come already.
        waiting.sort(key=lambda one: one.interrupted)
        for reply in waiting:
            planned = reply.planned[reply.spoken_sentences].strip()
            if planned.startswith(text.strip()) or same_words(planned, text):
                return reply
        return waiting[0] if waiting else self.last

    def _check_script(self, reply: Reply) -> Sequence[Output]:
        """Whether scripted text was said as it was written, once all of it was said."""
        wanted = reply.script
        if (
            wanted is None
            or reply.interrupted
            or not reply.finished
            or reply.spoken_sentences < len(reply.planned)
        ):
            return ()
        reply.script = None
        if same_words(wanted, reply.spoken_text):
            return ()
        return [SayMismatch(reply.id, wanted, reply.spoken_text)]


def _with_space(before: str, text: str) -> str:
    """The next words, with a space before them where there is none."""
    close = before and not before[-1].isspace() and not text[:1].isspace()
    return f" {text}" if close else text
