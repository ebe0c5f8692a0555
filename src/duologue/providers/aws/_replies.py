"""Tracks the model's replies: the planned text, the audio, and later the spoken text.

The service assumes that each reply is played in real time, and reports sentence by sentence what
must have been spoken by now. That is long after the audio was made; the next reply may have begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from duologue.audio import AudioFrame, PcmDecoder
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
"""Replies kept, because spoken text may still come for them."""


@dataclass(slots=True, eq=False)
class Reply:
    """One reply; ``script`` is the text that it was asked to say word for word."""

    id: str
    item_id: str
    script: str | None = None
    planned: list[str] = field(default_factory=list)
    spoken_sentences: int = 0
    """Planned sentences that the service has reported as spoken."""
    spoken_text: str = ""
    samples: int = 0
    finished: bool = False
    """Whether its audio is complete or was interrupted."""
    interrupted: bool = False
    """Whether the person or we have interrupted it; more spoken text may never come."""
    interrupted_by_service: bool = False
    """Whether the service interrupted it, and therefore knows."""
    has_tool_calls: bool = False
    """Whether it has called tools; it says nothing more until it has their results."""
    pcm_decoder: PcmDecoder = field(default_factory=PcmDecoder)

    @property
    def is_playing(self) -> bool:
        """Whether the service has not yet reported all of it as spoken."""
        return not self.interrupted and (
            not self.finished or self.spoken_sentences < len(self.planned)
        )


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A text that was sent for the model to answer."""

    request_id: str
    script: str | None = None


class Replies:
    """All replies of one connection; ``rate`` is the Hz of their audio."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._all: deque[Reply] = deque(maxlen=_MAX_REPLIES)
        self._current: Reply | None = None
        self.pending_request: TextRequest | None = None
        """The text that the next reply answers; None if that answers the person's speech."""

    @property
    def last(self) -> Reply | None:
        """The newest reply."""
        return self._all[-1] if self._all else None

    def by_item(self, item_id: str) -> Reply | None:
        """Return the reply with this item id."""
        return next((reply for reply in self._all if reply.item_id == item_id), None)

    def cancel(self, reply_id: str) -> str | None:
        """Mark a reply as cancelled, although more of it will come; return its item id."""
        reply = next((reply for reply in self._all if reply.id == reply_id), None)
        if reply is None:
            return None
        reply.interrupted = True
        return reply.item_id

    def begin(self) -> tuple[Reply, Sequence[Output]]:
        """Return the current reply, or begin a new one."""
        if self._current is not None:
            return self._current, ()
        request, self.pending_request = self.pending_request, None
        number = uuid4().hex
        script = None if request is None else request.script
        reply = Reply(f"reply_{number}", f"item_{number}", script)
        self._current = reply
        self._all.append(reply)
        return reply, [ReplyStarted(reply.id, None if request is None else request.request_id)]

    def add_planned(self, reply: Reply, text: str) -> Sequence[Output]:
        """Add the next sentence that the reply will speak."""
        if not text.strip() or reply.finished:
            return ()
        text = _with_space(reply.planned[-1] if reply.planned else "", text)
        reply.planned.append(text)
        return [ReplyText(reply.id, reply.item_id, text, planned=True)]

    def add_spoken(self, text: str) -> Sequence[Output]:
        """Add spoken text to the reply that it belongs to."""
        reply = self._match_reply(text)
        if reply is None or not text.strip():
            return ()
        text = _with_space(reply.spoken_text, text)
        reply.spoken_text += text
        reply.spoken_sentences += 1
        return [ReplyText(reply.id, reply.item_id, text), *self._check_script(reply)]

    def add_audio(self, reply: Reply, pcm: bytes) -> Sequence[Output]:
        """Add audio to a reply, as little-endian int16."""
        if reply.finished:
            return ()
        samples = reply.pcm_decoder.push(pcm)
        if not len(samples):
            return ()
        reply.samples += len(samples)
        return [ReplyAudio(reply.id, reply.item_id, AudioFrame(samples, self._rate))]

    def add_tool_call(self, call_id: str, name: str, arguments: str) -> Sequence[Output]:
        """Add a tool call, perhaps the first of several."""
        reply, started = self.begin()
        reply.has_tool_calls = True
        return [*started, ToolCall(reply.id, call_id, name, arguments)]

    def end(self, status: Literal["completed", "cancelled"] = "completed") -> Sequence[Output]:
        """End the current reply."""
        reply, self._current = self._current, None
        if reply is None:
            return ()
        reply.finished = True
        return [ReplyDone(reply.id, status)]

    def end_tool_calls(self) -> Sequence[Output]:
        """End the current reply if it has called tools."""
        return self.end() if self._current is not None and self._current.has_tool_calls else ()

    def interrupt(self) -> Sequence[Output]:
        """Interrupt the newest reply, because the service heard the person.

        It is reported once, and only if we have not interrupted the reply before.
        """
        reply = self.last
        if reply is None:
            return ()
        first, reply.interrupted = not reply.interrupted, True
        reply.interrupted_by_service = True
        done = self.end("cancelled")
        return [ReplyInterrupted(reply.id), *done] if first else done

    def _match_reply(self, text: str) -> Reply | None:
        """Return the reply that spoken text belongs to: the first that planned it or its start."""
        unspoken = [one for one in self._all if one.spoken_sentences < len(one.planned)]
        # Most of the spoken text of an interrupted reply has come already.
        unspoken.sort(key=lambda one: one.interrupted)
        for reply in unspoken:
            planned = reply.planned[reply.spoken_sentences].strip()
            if planned.startswith(text.strip()) or same_words(planned, text):
                return reply
        return unspoken[0] if unspoken else self.last

    def _check_script(self, reply: Reply) -> Sequence[Output]:
        """Return a mismatch if a script was completely spoken, but not word for word."""
        script = reply.script
        if (
            script is None
            or reply.interrupted
            or not reply.finished
            or reply.spoken_sentences < len(reply.planned)
        ):
            return ()
        reply.script = None
        if same_words(script, reply.spoken_text):
            return ()
        return [SayMismatch(reply.id, script, reply.spoken_text)]


def _with_space(before: str, text: str) -> str:
    """Return the text with a space before it if it needs one."""
    needs_space = before and not before[-1].isspace() and not text[:1].isspace()
    return f" {text}" if needs_space else text
