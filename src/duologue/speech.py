"""One stretch of agent audio, from its request until it was heard.

A speech has three states of progress, which differ whenever a model is ahead of the person's ear or
its connection is lost:

- received: the words and the seconds of audio that the model has made so far;
- sounded: the words that the received audio says. Models write ahead of their audio, so at any
  moment this is less than what was received. Another connection gets these words;
- heard: the words of the audio that was played.

Each connection that makes a part of a speech opens a `_Passage`. When the connection is lost,
`break_off` drops the words of that passage that have no audio, because they will never be spoken.
The next connection continues in a passage of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from duologue.edges.edge import Quality
from duologue.word_timing import has_letters, needs_space, said_within, weight

_CHARS_PER_S = 20
"""Faster than people speak: bounds what is claimed as heard where words have no times."""

_SLOW_CHARS_PER_S = 14
"""As people speak: where more is to follow, rather a word twice than one left out."""

_EXACT_S = 1e-3
"""Seconds by which two times may differ and be the same: they are counted at two rates."""

type SpeechState = Literal["waiting", "playing", "heard", "silent", "cut", "failed"]


@dataclass(slots=True)
class _Words:
    text: str
    start: float | None
    item_id: str
    planned: bool = False


@dataclass(slots=True)
class _Passage:
    """The part of a speech that one connection made: its words, and the seconds of its audio."""

    begin: float
    words: list[_Words] = field(default_factory=list)
    planned: deque[_Words] = field(default_factory=deque)
    """The entries of ``words`` that are only planned, the next one first."""
    end: float | None = None
    """Where its audio ends, in seconds of the speech; None while more may come."""
    runs: list[_Run] = field(default_factory=list)
    """Runs of ``words`` computed so far, see `Speech._runs`."""
    counted: int = 0
    """Number of ``words`` that are in ``runs``."""
    by_item: bool = False
    """Whether the times of words come from the audio of their items."""

    @property
    def text(self) -> str:
        return "".join(words.text for words in self.words)

    def forget_times(self) -> None:
        """Drop the runs, because more has changed than new words at the end."""
        self.runs, self.counted = [], 0


class _Run:
    """Words that are spoken evenly, from ``start`` to the start of the next run."""

    __slots__ = ("_text", "_weighed", "_weight", "start", "words")

    def __init__(self, start: float, words: _Words) -> None:
        self.start = start
        self.words = [words]
        self._text = ""
        self._weight = 0.0
        self._weighed = 0

    @property
    def text(self) -> str:
        self._weigh()
        return self._text

    @property
    def weight(self) -> float:
        self._weigh()
        return self._weight

    def _weigh(self) -> None:
        if self._weighed < len(self.words):
            more = "".join(words.text for words in self.words[self._weighed :])
            self._text += more
            self._weight += weight(more)
            self._weighed = len(self.words)


class Speech:
    """A reply, a `say` or a greeting. ``await speech`` waits until it was heard or cut.

    Awaiting gives the speech itself and raises what made it fail (`ReplyRefusedError`,
    `SessionError`). Cancelling the wait does not stop the speech; `Agent.interrupt` does.
    """

    __slots__ = (
        "_done",
        "_error",
        "_items",
        "_passages",
        "_played_s",
        "clipped_at",
        "epoch",
        "heard_text",
        "id",
        "interruptible",
        "played_ms",
        "quality",
        "seconds",
        "state",
        "unspoken",
        "whole",
    )

    def __init__(self, epoch: int, *, interruptible: bool = True) -> None:
        self.id = uuid4().hex
        self.epoch = epoch
        self.interruptible = interruptible
        self.state: SpeechState = "waiting"
        self.played_ms = 0
        self.heard_text = ""
        self.quality: Quality = "estimated"
        self._passages: list[_Passage] = [_Passage(0.0)]
        self._items: dict[str, float] = {}
        """Where the audio of each of the model's items begins, in seconds of this speech."""
        self._played_s = 0.0
        self.seconds = 0.0
        """Sound received so far; nobody can have heard more."""
        self.clipped_at: float | None = None
        """Seconds of audio that will be played; None for all."""
        self.whole = False
        """Whether no more audio will be played than was received so far."""
        self.unspoken: list[str] = []
        """Words that the voice left out: it made no audio for them, but for what follows."""
        self._done = asyncio.Event()
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Speech {self.id[:8]} {self.state} epoch {self.epoch} {self.played_ms} ms>"

    def __await__(self) -> Generator[object, None, Speech]:
        yield from self._done.wait().__await__()
        if self._error is not None:
            raise self._error
        return self

    @property
    def done(self) -> bool:
        """Whether it was heard to its end, cut, failed, or ended without audio."""
        return self._done.is_set()

    @property
    def interrupted(self) -> bool:
        """It was cut before its end."""
        return self.state == "cut"

    @property
    def text(self) -> str:
        """All words so far, heard or not, except those that a lost connection never spoke."""
        return "".join(words.text for words in self._all())

    @property
    def said(self) -> str:
        """The words that the model has told as said, without what it only means to say."""
        return "".join(words.text for words in self._all() if not words.planned).rstrip()

    @property
    def planned(self) -> bool:
        """Some of its words are only planned so far."""
        return bool(self._passages[-1].planned)

    @property
    def broken_off(self) -> bool:
        """Whether its source is lost; `resume` continues it."""
        return self._passages[-1].end is not None

    def plan_text(self, text: str, item_id: str) -> None:
        """Take words that the model means to say: `add_text` says them, or others, in their place.

        Until then they stand for what the sound says.
        """
        if not self.broken_off:
            words = _Words(text, None, item_id, planned=True)
            self._append(words)
            self._passages[-1].planned.append(words)

    def add_text(self, text: str, start: float | None = None, item_id: str = "") -> None:
        """Take the next words, of one of the model's items.

        ``start`` is where in this speech, in s, they begin to be spoken, where that is known.
        """
        if self.broken_off:
            return  # Late words of a lost connection, without audio.
        planned = self._passages[-1].planned
        if planned and planned[0].item_id == item_id:
            words = planned.popleft()
            words.text, words.planned = text, False
            words.start = words.start if start is None else start
            self._passages[-1].forget_times()
        else:
            self._append(_Words(text, start, item_id))

    def begin_item(self, item_id: str) -> float:
        """Where, in seconds of this speech, the sound of one of the model's items begins."""
        if item_id not in self._items:
            self._items[item_id] = self.seconds
            for passage in self._passages:
                passage.forget_times()
        return self._items[item_id]

    def last_item(self) -> str | None:
        """Return the item whose audio came last; None without audio."""
        return max(self._items, key=lambda item_id: self._items[item_id], default=None)

    def break_off(self, *, goes_on: bool = False) -> None:
        """End the current passage: drop its words that have no audio.

        With ``goes_on``, another connection continues it: keep the words of `words_received`, which
        that connection gets. Do nothing if it is broken off already.
        """
        if self.broken_off:
            return
        passage = self._passages[-1]
        speed = _SLOW_CHARS_PER_S if goes_on else _CHARS_PER_S
        left = len(self._until(passage, self.seconds, speed))
        passage.end = self.seconds
        passage.planned.clear()
        kept = []
        for words in passage.words:
            words.text, words.planned = words.text[:left], False
            left -= len(words.text)
            if words.text:
                kept.append(words)
        passage.words = kept
        passage.forget_times()

    def clip(self, seconds: float) -> None:
        """Record ``seconds`` of audio that will not be played; nor will anything after it."""
        if self.clipped_at is None:
            self.clipped_at = self.seconds
        self.seconds += seconds

    def resume(self) -> None:
        """Continue it from another connection; do nothing if it is not broken off."""
        if self.broken_off:
            self._passages.append(_Passage(self.seconds))

    def merge_items(self, item_id: str) -> None:
        """Record that a new connection knows everything received so far as one item."""
        for passage in self._passages:
            for run in self._runs(passage):
                run.words[0].start = run.start
                for words in run.words:
                    words.item_id = item_id
            passage.forget_times()
        self._items = {item_id: 0.0}

    def words_received(self) -> str:
        """What the sound received so far says, heard or not: whole words, rather one too few."""
        if self.clipped_at is not None:
            return self.words_until(self.clipped_at)
        if self.whole:
            return self.text.rstrip()
        before = "".join(passage.text for passage in self._passages[:-1])
        return (before + self._sounded(self._passages[-1])).rstrip()

    def passage_received(self) -> str | None:
        """Return `words_received` of the current passage alone; None if it has no audio."""
        passage = self._passages[-1]
        if self.seconds <= passage.begin:
            return None
        return passage.text.rstrip() if self.whole else self._sounded(passage).rstrip()

    def words_until(self, seconds: float, item_id: str | None = None) -> str:
        """What has been said after so many seconds of this speech: whole words, never more.

        With ``item_id``, only the words of that item.
        """
        parts = []
        for passage in self._passages:
            spoken = self._spoken(passage, seconds)
            if item_id is None:
                parts.append(spoken)
            else:
                left = len(spoken)
                for words in passage.words:
                    if words.item_id == item_id:
                        parts.append(words.text[:left])
                    left = max(0, left - len(words.text))
            if len(spoken) < sum(len(words.text) for words in passage.words):
                break
        return "".join(parts).rstrip()

    def heard_of(self, item_id: str) -> str:
        """Return what was heard of one of the model's items, once the speech is over."""
        return self.words_until(self._played_s, item_id)

    def finish(self, state: Literal["heard", "cut"], played_s: float, quality: Quality) -> None:
        """End it with the seconds that were played, and how well they are known.

        A speech with words but without audio ends as ``silent`` instead of ``heard``.
        """
        if self.done:
            return
        if state == "cut":
            self._error = None
        self._drop_silent_end()
        text = self.text.rstrip()
        if self._error is not None:
            self.state = "failed"
        elif state == "heard" and played_s <= 0 and text:
            self.state = "silent"
        else:
            self.state = state
        self.played_ms = int(played_s * 1000)
        self._played_s = played_s
        self.quality = quality
        heard_all = self.state == "heard" and played_s > 0 and self.clipped_at is None
        self.heard_text = text if heard_all else self.words_until(played_s)
        self._done.set()

    def fail_at_end(self, error: Exception) -> None:
        """No more of it will come, because of ``error``; what there is may still be played."""
        self._error = error
        self.break_off()

    def fail(self, error: Exception) -> None:
        """End it with the error that whoever awaits it will see."""
        if self.done:
            return
        self.state = "failed"
        self._error = error
        self._done.set()

    def _all(self) -> Iterator[_Words]:
        for passage in self._passages:
            yield from passage.words

    def _append(self, words: _Words) -> None:
        passage = self._passages[-1]
        last = passage.words[-1] if passage.words else None
        if last is not None and self._is_silent(last, words.start):
            self._drop_last(passage)
            last = passage.words[-1] if passage.words else None
        if last is None:
            before = [passage.words[-1] for passage in self._passages if passage.words]
            last = before[-1] if before else None
        joined = last is not None and last.item_id == words.item_id and len(passage.words) > 0
        if last is not None and not joined and needs_space(last.text, words.text):
            last.text += " "
            for before_it in self._passages[-2:]:
                before_it.forget_times()
        passage.words.append(words)

    def _is_silent(self, words: _Words, end: float | None) -> bool:
        """Return whether timed words with letters in them have no audio by ``end``."""
        if words.start is None or end is None or not self.seconds or words.planned:
            return False
        return end <= words.start + _EXACT_S and has_letters(words.text)

    def _drop_last(self, passage: _Passage) -> None:
        self.unspoken.append(passage.words.pop().text)
        passage.forget_times()

    def _drop_silent_end(self) -> None:
        passage = self._passages[-1]
        if self.whole and passage.words and self._is_silent(passage.words[-1], self.seconds):
            self._drop_last(passage)

    def _sounded(self, passage: _Passage) -> str:
        """Return the words of ``passage`` that its audio says, while more of both may follow."""
        if passage.end is not None:
            return passage.text
        return self._until(passage, self.seconds, _SLOW_CHARS_PER_S)

    def _spoken(self, passage: _Passage, seconds: float) -> str:
        # Words often come before their audio: claim fewer while more may follow.
        timed = all(words.start is not None for words in passage.words)
        return self._until(
            passage, seconds, _CHARS_PER_S if self.whole or timed else _SLOW_CHARS_PER_S
        )

    def _until(self, passage: _Passage, seconds: float, speed: int) -> str:
        """Return the words of ``passage`` that are over at ``seconds`` of this speech.

        More audio of the last run may come, so its speed is at most ``speed``.
        """
        runs = self._runs(passage)
        over = passage.end is not None or self.whole
        sound_end = self.seconds if passage.end is None else passage.end
        parts = []
        for run, after in zip(runs, (*runs[1:], None), strict=False):
            end = sound_end if after is None else after.start
            if seconds <= run.start:
                break
            closed = after is not None or over
            if closed and seconds >= end - _EXACT_S:
                parts.append(run.text)
                continue
            if self.clipped_at is not None and run is not runs[0]:
                break  # Of a clipped clause, rather claim no words than too many.
            if end > run.start:
                share = (min(seconds, end) - run.start) / (end - run.start)
                said = run.weight * share
                if after is None and passage.end is None:
                    said = min(said, (seconds - run.start) * speed)
                parts.append(said_within(run.text, said))
            break
        return "".join(parts)

    def _runs(self, passage: _Passage) -> Sequence[_Run]:
        """Return its words in runs with start times: their own, or those of their items."""
        if not passage.by_item and any(
            words.item_id in self._items for words in passage.words[passage.counted :]
        ):
            passage.by_item = True
            passage.forget_times()
        runs, lasting = passage.runs, True
        for words in passage.words[passage.counted :]:
            start = words.start
            other = not runs or runs[-1].words[-1].item_id != words.item_id
            if start is None and other and passage.by_item:
                start = self._items.get(words.item_id)
                if start is None:
                    # Its audio is still to come, and can't begin before now.
                    start, lasting = self.seconds, False
            if not runs:
                runs.append(_Run(max(start or 0.0, passage.begin), words))
            elif start is None or start <= runs[-1].start:
                runs[-1].words.append(words)
            else:
                runs.append(_Run(start, words))
        passage.counted = len(passage.words)
        if not lasting:
            passage.forget_times()
        return runs
