"""One reply as the service sends it: each sentence as planned text, audio, and spoken text."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from duologue.audio import Resampler, Samples
from duologue.clock import Clock
from duologue.simulators.nova._blocks import Blocks
from duologue.simulators.nova._playback_model import PlaybackModel, PlayedReply
from duologue.testing.scripted import CHARS_PER_S

_SENTENCE = re.compile(r"\S.*?(?:[.!?…]+[\"')\]]*(?=\s|$)|$)", re.DOTALL)


@dataclass(slots=True, eq=False)
class _TextPart:
    """Text: its sentences that have not begun, and the audio that has not been sent."""

    sentences: deque[str]
    audio: list[Samples] = field(default_factory=list)
    has_audio: bool = False
    """Whether it has any audio."""
    complete: bool = False


@dataclass(frozen=True, slots=True)
class _ToolUse:
    call_id: str
    name: str
    arguments: str


class OutgoingReply:
    """Sends one reply. Everything that arrives in one step of the event loop is sent together.

    When several sentences arrive as one text, their audio is divided in proportion to their
    lengths. Until that audio is complete, the division assumes the usual speed of speech.
    """

    def __init__(
        self,
        blocks: Blocks,
        playback: PlaybackModel,
        clock: Clock,
        *,
        rate: int,
        tool_called: Callable[[str, str, str], None],
        reply_ended: Callable[[], None],
    ) -> None:
        self._blocks = blocks
        self._playback = playback
        self._clock = clock
        self._tool_called = tool_called
        self._reply_ended = reply_ended
        self._resampler = Resampler(rate, blocks.rate)
        self._parts: deque[_TextPart | _ToolUse] = deque()
        self._played: PlayedReply | None = None
        self._sentence: str | None = None
        self._samples_left: int | None = 0
        self._sentence_samples = 0
        self._send_scheduled = False
        self._anything_sent = False
        self._complete = False
        self._backend_item_id = ""
        self.is_over = False
        """Whether it was sent completely, or interrupted."""

    def add_text(self, text: str, backend_item_id: str) -> None:
        """Add text; ``backend_item_id`` is its item in the backend's history."""
        self._backend_item_id = backend_item_id
        last = self._parts[-1] if self._parts else None
        if isinstance(last, _TextPart) and not last.has_audio and not last.complete:
            text = " ".join((*last.sentences, text))
            self._parts.pop()
        self._close_part()
        self._parts.append(_TextPart(deque(split_sentences(text))))
        self._schedule_send()

    def add_audio(self, samples: Samples) -> None:
        """Add audio at the backend's rate."""
        self._add_samples(self._resampler.push(samples))

    def add_call(self, call_id: str, name: str, arguments: str) -> None:
        """Add a tool call."""
        self._add_samples(self._resampler.flush())
        self._close_part()
        self._parts.append(_ToolUse(call_id, name, arguments))
        self._schedule_send()

    def finish(self) -> None:
        """Mark the reply as complete."""
        self._add_samples(self._resampler.flush())
        self._close_part()
        self._complete = True
        self._schedule_send()

    def interrupt(self) -> PlayedReply | None:
        """Stop sending; return the part that was sent, if any."""
        self.is_over = True
        self._parts.clear()
        if self._blocks.audio_open:
            self._blocks.close_audio("INTERRUPTED")
            self._blocks.send_usage("output", speech_s=self._sentence_samples / self._blocks.rate)
        return self._played

    def _add_samples(self, samples: Samples) -> None:
        if not len(samples):
            return
        last = self._parts[-1] if self._parts else None
        if not isinstance(last, _TextPart):
            last = _TextPart(deque([""]))
            self._parts.append(last)
        last.audio.append(samples)
        last.has_audio = True
        self._schedule_send()

    def _close_part(self) -> None:
        if self._parts and isinstance(last := self._parts[-1], _TextPart):
            last.complete = True

    def _schedule_send(self) -> None:
        if not self._send_scheduled:
            self._send_scheduled = True
            self._clock.call_at(self._clock.now(), self._send_parts)

    def _send_parts(self) -> None:
        self._send_scheduled = False
        while self._parts and not self.is_over:
            match self._parts[0]:
                case _ToolUse(call_id, name, arguments):
                    self._anything_sent = True
                    self._end_sentence(last=False)
                    self._tool_called(call_id, name, arguments)
                case _TextPart() as part:
                    self._send_text_part(part)
                    if not part.complete:
                        return
            self._parts.popleft()
        if self._complete and not self.is_over:
            if not self._anything_sent:
                # A client that waits for the end of the turn needs an audio block that ends it.
                self._blocks.open_audio()
                self._blocks.close_audio("END_TURN")
            self._end_sentence(last=True)
            self.is_over = True
            self._reply_ended()

    def _send_text_part(self, part: _TextPart) -> None:
        audio = np.concatenate(part.audio) if part.audio else np.zeros(0, np.int16)
        part.audio.clear()
        while len(audio) or (part.complete and part.sentences):
            if part.sentences and (self._samples_left == 0 or not len(audio)):
                self._begin_sentence(part, len(audio))
            size = len(audio) if self._samples_left is None else min(self._samples_left, len(audio))
            if size and self._played is not None:
                self._send_audio(self._played, audio[:size])
            audio = audio[size:]
        if part.complete:
            self._samples_left = 0

    def _begin_sentence(self, part: _TextPart, samples: int) -> None:
        """Begin the next sentence; ``samples`` of audio are there for it and for those after it."""
        self._end_sentence(last=False)
        text = part.sentences.popleft()
        if not part.sentences:
            self._samples_left = None
        elif part.complete:
            characters = sum(len(one) for one in part.sentences) + len(text)
            self._samples_left = round(samples * len(text) / characters)
        else:
            self._samples_left = round(len(text) / CHARS_PER_S * self._blocks.rate)
        if self._played is None:
            self._played = PlayedReply()
        self._played.backend_item_id = self._backend_item_id
        if text:
            self._blocks.send_planned(text)
        self._blocks.open_audio()
        self._anything_sent = True
        self._sentence, self._sentence_samples = text, 0

    def _send_audio(self, played: PlayedReply, samples: Samples) -> None:
        self._blocks.send_audio(samples)
        self._playback.add_audio(played, len(samples) / self._blocks.rate)
        self._sentence_samples += len(samples)
        if self._samples_left is not None:
            self._samples_left -= len(samples)

    def _end_sentence(self, *, last: bool) -> None:
        """End the sentence that has begun, if any."""
        if self._sentence is None or self._played is None:
            return
        self._blocks.close_audio("END_TURN" if last else "PARTIAL_TURN")
        self._blocks.send_usage("output", speech_s=self._sentence_samples / self._blocks.rate)
        self._playback.add_sentence(self._played, self._sentence, last=last)
        self._sentence = None


def split_sentences(text: str) -> list[str]:
    """Return the sentences of a text without spaces around them; at least one, perhaps empty."""
    return [found.strip() for found in _SENTENCE.findall(text)] or [""]
