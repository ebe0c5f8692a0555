"""One stretch of agent audio, from its request until the person has heard it.

A speech has three states of progress, which differ whenever a model is ahead of the person's ear or
its connection is lost:

- received: the text and the seconds of audio that the model has made so far;
- spoken: the text that the received audio says. Models write ahead of their audio, so at any moment
  this is less than the text received. Another connection gets this text;
- heard: the text of the audio that was played.

Each connection that makes a part of a speech opens a `_Passage`. When the connection is lost,
`break_off` drops the text of that passage that has no audio, because it will never be spoken. The
next connection continues in a passage of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import uuid4

from duologue._word_timing import has_letters, needs_space, prefix_within, weight
from duologue.quality import Quality

_MAX_CHARS_PER_S = 20
"""Faster than people speak: limits what counts as heard where the text has no times."""

_TYPICAL_CHARS_PER_S = 14
"""As fast as people speak: used where more follows, to repeat a word rather than omit one."""

_TIME_TOLERANCE_S = 1e-3
"""Seconds that two equal times may differ, because they are counted at two sample rates."""

_SHOWN_CHARS = 40
"""Characters of its text that `repr` shows."""

type SpeechState = Literal["waiting", "playing", "heard", "silent", "cut", "failed"]


@dataclass(slots=True)
class _TextPiece:
    text: str
    start: float | None
    item_id: str
    planned: bool = False
    end: float | None = None


@dataclass(slots=True)
class _Passage:
    """The part of a speech that one connection made: its text, and its seconds of audio."""

    start: float
    pieces: list[_TextPiece] = field(default_factory=list)
    planned_pieces: deque[_TextPiece] = field(default_factory=deque)
    """The entries of ``pieces`` that are only planned, in order."""
    end: float | None = None
    """Where its audio ends, in seconds of the speech; None while more may come."""
    runs: list[_Run] = field(default_factory=list)
    """Runs of ``pieces`` computed so far, see `Speech._runs`."""
    pieces_in_runs: int = 0
    """Number of ``pieces`` that are in ``runs``."""
    timed_by_item: bool = False
    """Whether the times of the text come from the audio of its items."""

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    def drop_runs(self) -> None:
        """Drop the runs, because more has changed than new text at the end."""
        self.runs, self.pieces_in_runs = [], 0


class _Run:
    """Text that is spoken at an even rate, from ``start`` to ``end`` or the start of the next run.

    With an ``end`` there may be a pause before the next run, in which nothing is spoken.
    """

    __slots__ = ("_pieces_weighed", "_text", "_weight", "end", "pieces", "start")

    def __init__(self, start: float, piece: _TextPiece) -> None:
        self.start = start
        self.end = piece.end
        self.pieces = [piece]
        self._text = ""
        self._weight = 0.0
        self._pieces_weighed = 0

    @property
    def text(self) -> str:
        self._weigh()
        return self._text

    @property
    def weight(self) -> float:
        self._weigh()
        return self._weight

    def add(self, piece: _TextPiece) -> None:
        """Add text that has no time of its own, so that it ends where ``piece`` does."""
        self.pieces.append(piece)
        self.end = piece.end

    def _weigh(self) -> None:
        if self._pieces_weighed < len(self.pieces):
            more = "".join(piece.text for piece in self.pieces[self._pieces_weighed :])
            self._text += more
            self._weight += weight(more)
            self._pieces_weighed = len(self.pieces)


class Speech:
    """A reply, a `say` or a greeting. ``await speech`` waits until it was heard or cut.

    Awaiting returns the speech itself and raises the error that made it fail (`ReplyRefusedError`,
    `SessionError`). Cancelling the wait does not stop the speech; `Agent.interrupt` does.
    """

    __slots__ = (
        "_done",
        "_error",
        "_items",
        "_passages",
        "_played_s",
        "clipped_at",
        "complete",
        "epoch",
        "heard_text",
        "id",
        "interruptible",
        "is_shown",
        "played_ms",
        "quality",
        "seconds",
        "state",
        "unspoken",
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
        """Seconds of audio received so far; the person cannot have heard more."""
        self.clipped_at: float | None = None
        """Seconds of audio that will be played; None for all."""
        self.complete = False
        """Whether the audio received so far is all that will be played."""
        self.is_shown = False
        """Whether its text is not spoken, but shown to the person as it comes."""
        self.unspoken: list[str] = []
        """Text that the voice left out: it made no audio for it, but did for what follows."""
        self._done = asyncio.Event()
        self._error: Exception | None = None

    def __repr__(self) -> str:
        text = self.heard_text or self.text
        shown = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
        progress = f"{self.state} epoch {self.epoch} {self.played_ms} ms"
        return f"<Speech {self.id[:8]} {progress} {shown!r}>"

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
        """Whether it was cut before its end."""
        return self.state == "cut"

    @property
    def text(self) -> str:
        """All text so far, heard or not, except what a lost connection never spoke."""
        return "".join(piece.text for piece in self._all_pieces())

    @property
    def confirmed_text(self) -> str:
        """The text that the model reported as spoken, without what is only planned."""
        return "".join(piece.text for piece in self._all_pieces() if not piece.planned).rstrip()

    @property
    def has_planned_text(self) -> bool:
        """Whether some of its text is only planned so far."""
        return bool(self._passages[-1].planned_pieces)

    @property
    def is_broken_off(self) -> bool:
        """Whether its connection was lost; `resume` continues it."""
        return self._passages[-1].end is not None

    def plan_text(self, text: str, item_id: str) -> None:
        """Add text that the model plans to say.

        It counts as the text of the audio until `add_text` replaces it by what was really said.
        """
        if not self.is_broken_off:
            piece = _TextPiece(text, None, item_id, planned=True)
            self._append(piece)
            self._passages[-1].planned_pieces.append(piece)

    def add_text(
        self,
        text: str,
        start: float | None = None,
        item_id: str = "",
        *,
        end: float | None = None,
    ) -> None:
        """Add the next text of one of the model's items.

        Args:
            text: The text.
            start: Where it begins to be spoken, in seconds of this speech, if that is known.
            item_id: The model's item.
            end: Where its last word ends, if that is known; else where the next text begins.
        """
        if self.is_broken_off:
            return  # Late text of a lost connection, which has no audio.
        planned = self._passages[-1].planned_pieces
        if planned and planned[0].item_id == item_id:
            piece = planned.popleft()
            piece.text, piece.planned = text, False
            piece.start = piece.start if start is None else start
            piece.end = end
            self._passages[-1].drop_runs()
        else:
            self._append(_TextPiece(text, start, item_id, end=end))

    def begin_item(self, item_id: str) -> float:
        """Return where the audio of one of the model's items begins, in seconds of this speech."""
        if item_id not in self._items:
            self._items[item_id] = self.seconds
            for passage in self._passages:
                passage.drop_runs()
        return self._items[item_id]

    def last_item(self) -> str | None:
        """Return the item of the newest audio; None without audio."""
        return max(self._items, key=lambda item_id: self._items[item_id], default=None)

    def break_off(self, *, continues: bool = False) -> None:
        """End the current passage: drop its text that has no audio.

        If another connection ``continues`` it, keep exactly the text of `spoken_text`, which that
        connection gets. Do nothing if the speech is broken off already.
        """
        if self.is_broken_off:
            return
        passage = self._passages[-1]
        speed = _TYPICAL_CHARS_PER_S if continues else _MAX_CHARS_PER_S
        left = len(self._passage_text_until(passage, self.seconds, speed))
        passage.end = self.seconds
        passage.planned_pieces.clear()
        kept = []
        for piece in passage.pieces:
            piece.text, piece.planned = piece.text[:left], False
            left -= len(piece.text)
            if piece.text:
                kept.append(piece)
        passage.pieces = kept
        passage.drop_runs()

    def clip(self, seconds: float) -> None:
        """Record ``seconds`` of audio that will not be played, nor will anything after them."""
        if self.clipped_at is None:
            self.clipped_at = self.seconds
        self.seconds += seconds

    def resume(self) -> None:
        """Continue from another connection; do nothing if the speech is not broken off."""
        if self.is_broken_off:
            self._passages.append(_Passage(self.seconds))

    def merge_items(self, item_id: str) -> None:
        """Record that a new connection knows everything received so far as one item."""
        if self.is_shown:
            for piece in self._all_pieces():
                piece.item_id = item_id
            return
        for passage in self._passages:
            for run in self._runs(passage):
                run.pieces[0].start = run.start
                run.pieces[-1].end = run.end
                for piece in run.pieces:
                    piece.item_id = item_id
            passage.drop_runs()
        self._items = {item_id: 0.0}

    def spoken_text(self) -> str:
        """Return what the audio received so far says: whole words, at most one too few."""
        if self.clipped_at is not None:
            return self.text_until(self.clipped_at)
        if self.complete:
            return self.text.rstrip()
        before = "".join(passage.text for passage in self._passages[:-1])
        return (before + self._sounded_text(self._passages[-1])).rstrip()

    def passage_spoken_text(self) -> str | None:
        """Return `spoken_text` of the current passage alone; None if it has no audio."""
        passage = self._passages[-1]
        if self.is_shown:
            return passage.text.rstrip() or None
        if self.seconds <= passage.start:
            return None
        return passage.text.rstrip() if self.complete else self._sounded_text(passage).rstrip()

    def text_until(self, seconds: float, item_id: str | None = None) -> str:
        """Return what has been said after ``seconds`` of this speech: whole words, never more.

        With ``item_id``, return only the text of that item.
        """
        parts = []
        for passage in self._passages:
            spoken = self._text_heard_by(passage, seconds)
            if item_id is None:
                parts.append(spoken)
            else:
                left = len(spoken)
                for piece in passage.pieces:
                    if piece.item_id == item_id:
                        parts.append(piece.text[:left])
                    left = max(0, left - len(piece.text))
            if len(spoken) < sum(len(piece.text) for piece in passage.pieces):
                break
        return "".join(parts).rstrip()

    def heard_text_of(self, item_id: str) -> str:
        """Return what was heard of one of the model's items, once the speech is over."""
        return self.text_until(self._played_s, item_id)

    def finish(self, state: Literal["heard", "cut"], played_s: float, quality: Quality) -> None:
        """End the speech.

        A speech with text but without audio ends as ``silent`` instead of ``heard``, unless its
        text was shown.

        Args:
            state: How it ended.
            played_s: Seconds of audio that were played.
            quality: How well ``played_s`` is known.
        """
        if self.done:
            return
        if state == "cut":
            self._error = None
        self._drop_silent_end()
        text = self.text.rstrip()
        if self._error is not None:
            self.state = "failed"
        elif state == "heard" and played_s <= 0 and text and not self.is_shown:
            self.state = "silent"
        else:
            self.state = state
        self.played_ms = int(played_s * 1000 + 1e-6)  # 4.06 * 1000 is 4059.999...
        self._played_s = played_s
        self.quality = "read" if self.is_shown else quality
        heard_all = self.state == "heard" and played_s > 0 and self.clipped_at is None
        self.heard_text = text if heard_all else self.text_until(played_s)
        self._done.set()

    def fail_at_end(self, error: Exception) -> None:
        """Record that ``error`` ends it after the audio received so far, which is still played."""
        self._error = error
        self.break_off()

    def fail(self, error: Exception) -> None:
        """End it now with ``error``, which awaiting it raises."""
        if self.done:
            return
        self.state = "failed"
        self._error = error
        self._done.set()

    def _all_pieces(self) -> Iterator[_TextPiece]:
        for passage in self._passages:
            yield from passage.pieces

    def _append(self, piece: _TextPiece) -> None:
        passage = self._passages[-1]
        last = passage.pieces[-1] if passage.pieces else None
        if last is not None and self._is_silent(last, piece.start):
            self._drop_last_piece(passage)
            last = passage.pieces[-1] if passage.pieces else None
        if last is None:
            before = [passage.pieces[-1] for passage in self._passages if passage.pieces]
            last = before[-1] if before else None
        joined = last is not None and last.item_id == piece.item_id and len(passage.pieces) > 0
        if last is not None and not joined and needs_space(last.text, piece.text):
            last.text += " "
            for earlier in self._passages[-2:]:
                earlier.drop_runs()
        passage.pieces.append(piece)

    def _is_silent(self, piece: _TextPiece, end: float | None) -> bool:
        """Return whether timed text with letters in it has no audio by ``end``."""
        if piece.start is None or end is None or not self.seconds or piece.planned:
            return False
        if piece.end is not None:
            return False  # The voice has said where it is.
        return end <= piece.start + _TIME_TOLERANCE_S and has_letters(piece.text)

    def _drop_last_piece(self, passage: _Passage) -> None:
        self.unspoken.append(passage.pieces.pop().text)
        passage.drop_runs()

    def _drop_silent_end(self) -> None:
        passage = self._passages[-1]
        if self.complete and passage.pieces and self._is_silent(passage.pieces[-1], self.seconds):
            self._drop_last_piece(passage)

    def _sounded_text(self, passage: _Passage) -> str:
        """Return the text of ``passage`` that its audio says, while more of both may follow."""
        if passage.end is not None:
            return passage.text
        return self._passage_text_until(passage, self.seconds, _TYPICAL_CHARS_PER_S)

    def _text_heard_by(self, passage: _Passage, seconds: float) -> str:
        # Text often comes before its audio, so claim less while more may follow.
        timed = all(piece.start is not None for piece in passage.pieces)
        return self._passage_text_until(
            passage, seconds, _MAX_CHARS_PER_S if self.complete or timed else _TYPICAL_CHARS_PER_S
        )

    def _passage_text_until(self, passage: _Passage, seconds: float, speed: int) -> str:
        """Return the text of ``passage`` that has been spoken at ``seconds`` of this speech.

        More audio of the last run may come, so assume that it is spoken at ``speed`` at most.
        """
        if self.is_shown:
            return passage.text
        runs = self._runs(passage)
        over = passage.end is not None or self.complete
        sound_end = self.seconds if passage.end is None else passage.end
        parts = []
        for run, after in zip(runs, (*runs[1:], None), strict=False):
            end = sound_end if after is None else after.start
            closed = after is not None or over
            if run.end is not None:
                end = max(run.start, run.end) if after is None else min(end, run.end)
                closed = True
            if seconds <= run.start:
                break
            if closed and seconds >= end - _TIME_TOLERANCE_S:
                parts.append(run.text)
                continue
            if self.clipped_at is not None and run is not runs[0]:
                break  # Claim no text of a clipped clause rather than too much.
            if end > run.start:
                share = (min(seconds, end) - run.start) / (end - run.start)
                spoken = run.weight * share
                if after is None and passage.end is None and run.end is None:
                    spoken = min(spoken, (seconds - run.start) * speed)
                parts.append(prefix_within(run.text, spoken))
            break
        return "".join(parts)

    def _runs(self, passage: _Passage) -> Sequence[_Run]:
        """Return its text in runs with start times: the text's own, or those of its items."""
        if not passage.timed_by_item and any(
            piece.item_id in self._items for piece in passage.pieces[passage.pieces_in_runs :]
        ):
            passage.timed_by_item = True
            passage.drop_runs()
        runs, lasting = passage.runs, True
        for piece in passage.pieces[passage.pieces_in_runs :]:
            start = piece.start
            other = not runs or runs[-1].pieces[-1].item_id != piece.item_id
            if start is None and other and passage.timed_by_item:
                start = self._items.get(piece.item_id)
                if start is None:
                    # The item has no audio yet, so its audio cannot begin before now.
                    start, lasting = self.seconds, False
            if not runs:
                runs.append(_Run(max(start or 0.0, passage.start), piece))
            elif start is None or start <= runs[-1].start:
                runs[-1].add(piece)
            else:
                runs.append(_Run(start, piece))
        passage.pieces_in_runs = len(passage.pieces)
        if not lasting:
            passage.drop_runs()
        return runs
