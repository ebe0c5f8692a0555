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
from duologue.providers.spoken import same_words
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

_REMEMBERED = 16
"""Replies whose words may still come."""


@dataclass(slots=True, eq=False)
class Reply:
    """One reply; ``wanted`` is the scripted text that it was told to say."""

    id: str
    item_id: str
    wanted: str | None = None
    planned: list[str] = field(default_factory=list)
    told: int = 0
    """Sentences that were planned and have been said since."""
    said: str = ""
    samples: int = 0
    over: bool = False
    """It was made to its end, or cut."""
    cut: bool = False
    """It was cut, by the person or by us: more words may never come."""
    told_cut: bool = False
    """The service has cut it, so it knows of that."""
    calls: bool = False
    """It has called tools, and says no more before it has their results."""
    rest: bytes = b""
    """Half a sample of its sound."""

    @property
    def playing(self) -> bool:
        """As far as the service has told, it is not said to its end yet."""
        return not self.cut and (not self.over or self.told < len(self.planned))


@dataclass(frozen=True, slots=True)
class Asked:
    """A text that was sent to be answered."""

    request_id: str
    wanted: str | None = None


class Replies:
    """All replies of one connection; ``rate`` is Hz of their sound."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._all: deque[Reply] = deque(maxlen=_REMEMBERED)
        self._open: Reply | None = None
        self.asked: Asked | None = None
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
        reply.cut = True
        return reply.item_id

    def begin(self) -> tuple[Reply, Sequence[Output]]:
        """Something of a reply comes: of the one that is being made, or of a new one."""
        if self._open is not None:
            return self._open, ()
        asked, self.asked = self.asked, None
        number = uuid4().hex
        wanted = None if asked is None else asked.wanted
        reply = Reply(f"reply_{number}", f"item_{number}", wanted)
        self._open = reply
        self._all.append(reply)
        return reply, [ReplyStarted(reply.id, None if asked is None else asked.request_id)]

    def plan(self, reply: Reply, text: str) -> Sequence[Output]:
        """The next sentence that it is about to say."""
        if not text.strip() or reply.over:
            return ()
        text = _apart(reply.planned[-1] if reply.planned else "", text)
        reply.planned.append(text)
        return [ReplyText(reply.id, reply.item_id, text, planned=True)]

    def say(self, text: str) -> Sequence[Output]:
        """What was said, of whichever reply it was."""
        reply = self._of(text)
        if reply is None or not text.strip():
            return ()
        text = _apart(reply.said, text)
        reply.said += text
        reply.told += 1
        words = ReplyText(reply.id, reply.item_id, text)
        return [words, *self._checked(reply)]

    def sound(self, reply: Reply, pcm: bytes) -> Sequence[Output]:
        """Its next sound, as little-endian int16."""
        if reply.over:
            return ()
        pcm = reply.rest + pcm
        even = len(pcm) & ~1
        reply.rest, pcm = pcm[even:], pcm[:even]
        if not pcm:
            return ()
        samples = np.frombuffer(pcm, "<i2")
        reply.samples += len(samples)
        return [ReplyAudio(reply.id, reply.item_id, AudioFrame(samples, self._rate))]

    def call(self, call_id: str, name: str, arguments: str) -> Sequence[Output]:
        """It calls a tool, perhaps the first of several."""
        reply, began = self.begin()
        reply.calls = True
        return [*began, ToolCall(reply.id, call_id, name, arguments)]

    def end(self, status: Literal["completed", "cancelled"] = "completed") -> Sequence[Output]:
        """The one that is being made is complete, or was cut."""
        reply, self._open = self._open, None
        if reply is None:
            return ()
        reply.over = True
        return [ReplyDone(reply.id, status)]

    def end_calls(self) -> Sequence[Output]:
        """The one that is being made has called its tools, if it did, and that was all of it."""
        return self.end() if self._open is not None and self._open.calls else ()

    def interrupt(self) -> Sequence[Output]:
        """The service has heard the person, and stopped: told once, and not when we were first."""
        reply = self.last
        if reply is None:
            return ()
        first, reply.cut = not reply.cut, True
        reply.told_cut = True
        done = self.end("cancelled")
        return [ReplyInterrupted(reply.id), *done] if first else done

    def _of(self, text: str) -> Reply | None:
        """The reply that these words were said in: the first that planned them, or began to."""
        waiting = [one for one in self._all if one.told < len(one.planned)]
        # Of one that was cut, the words have mostly come already.
        waiting.sort(key=lambda one: one.cut)
        for reply in waiting:
            planned = reply.planned[reply.told].strip()
            if planned.startswith(text.strip()) or same_words(planned, text):
                return reply
        return waiting[0] if waiting else self.last

    def _checked(self, reply: Reply) -> Sequence[Output]:
        """Whether scripted text was said as it was written, once all of it was said."""
        wanted = reply.wanted
        if wanted is None or reply.cut or not reply.over or reply.told < len(reply.planned):
            return ()
        reply.wanted = None
        if same_words(wanted, reply.said):
            return ()
        return [SayMismatch(reply.id, wanted, reply.said)]


def _apart(before: str, text: str) -> str:
    """The next words, with a space before them where there is none."""
    close = before and not before[-1].isspace() and not text[:1].isspace()
    return f" {text}" if close else text
