"""One stretch of agent audio, from being asked for to having been heard."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from duologue.edges.edge import Quality

_CHARS_PER_S = 20
"""Faster than people speak: bounds what is claimed as heard where words have no times."""

_SLOW_CHARS_PER_S = 14
"""As people speak: where more is to follow, rather a word twice than one left out."""

type SpeechState = Literal["waiting", "playing", "heard", "cut", "failed"]


@dataclass(slots=True)
class _Words:
    text: str
    start: float | None
    item_id: str
    planned: bool = False


class Speech:
    """A reply, a `say` or a greeting. ``await speech`` waits until it was heard or cut.

    Awaiting gives the speech itself and raises what made it fail (`ReplyRefusedError`,
    `SessionError`). Cancelling the wait does not stop the speech; `Agent.interrupt` does.
    """

    __slots__ = (
        "_done",
        "_error",
        "_items",
        "_words",
        "epoch",
        "heard_text",
        "id",
        "interruptible",
        "played_ms",
        "quality",
        "seconds",
        "state",
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
        self._words: list[_Words] = []
        self._items: dict[str, float] = {}
        self.seconds = 0.0
        """Sound received so far; nobody can have heard more."""
        self.whole = False
        """No more sound will come."""
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
        """Heard to its end, cut, or failed."""
        return self._done.is_set()

    @property
    def interrupted(self) -> bool:
        """It was cut before its end."""
        return self.state == "cut"

    @property
    def text(self) -> str:
        """All the words made so far, heard or not."""
        return "".join(words.text for words in self._words)

    @property
    def said(self) -> str:
        """The words that the model has told as said, without what it only means to say."""
        return "".join(words.text for words in self._words if not words.planned).rstrip()

    @property
    def planned(self) -> bool:
        """Some of its words are only planned so far."""
        return any(words.planned for words in self._words)

    def plan_text(self, text: str, item_id: str) -> None:
        """Take words that the model means to say: `add_text` says them, or others, in their place.

        Until then they stand for what the sound says.
        """
        self._append(_Words(text, None, item_id, planned=True))

    def add_text(self, text: str, start: float | None = None, item_id: str = "") -> None:
        """Take the next words, of one of the model's items.

        ``start`` is where in this speech, in s, they begin to be spoken, where that is known.
        """
        planned = next((words for words in self._words if words.planned), None)
        if planned is not None and item_id == planned.item_id:
            planned.text, planned.planned = text, False
        else:
            self._append(_Words(text, start, item_id))

    def _append(self, words: _Words) -> None:
        last = self._words[-1] if self._words else None
        other = last is not None and last.item_id != words.item_id
        if last is not None and other and not last.text.endswith((" ", "\n")):
            last.text += " "
        self._words.append(words)

    def forget_words(self) -> None:
        """No sound of it has come, and all of it will come again."""
        self._words.clear()

    def begin_item(self, item_id: str) -> float:
        """Where, in seconds of this speech, the sound of one of the model's items begins."""
        return self._items.setdefault(item_id, self.seconds)

    def words_received(self) -> str:
        """What the sound received so far says, heard or not: whole words, rather one too few."""
        if self.whole:
            return self.text.rstrip()
        spoken = _spoken(
            self.text, 0.0, self.seconds, self.seconds, open_end=True, speed=_SLOW_CHARS_PER_S
        )
        return spoken.rstrip()

    def words_until(self, seconds: float, item_id: str | None = None) -> str:
        """What has been said after so many seconds of this speech: whole words, never more.

        With ``item_id``, only the words of that item.
        """
        left = len(self._said(seconds))
        parts = []
        for words in self._words:
            if item_id is None or words.item_id == item_id:
                parts.append(words.text[:left])
            left = max(0, left - len(words.text))
        return "".join(parts).rstrip()

    def _said(self, seconds: float) -> str:
        starts = [words.start for words in self._words]
        if not starts or None in starts:
            # Words often come before their sound: the less is claimed while more may follow.
            speed = _CHARS_PER_S if self.whole else _SLOW_CHARS_PER_S
            return _spoken(self.text, 0.0, self.seconds, seconds, open_end=True, speed=speed)
        text = ""
        for index, words in enumerate(self._words):
            start = words.start or 0.0
            last = index + 1 == len(self._words)
            end = self.seconds if last else starts[index + 1] or 0.0
            part = _spoken(words.text, start, end, seconds, open_end=last)
            text += part
            if part != words.text:
                break
        return text

    def finish(self, state: SpeechState, played_s: float, quality: Quality) -> None:
        """End it: what was played of it, in seconds, and how well that is known."""
        if self.done:
            return
        if state == "cut":
            self._error = None
        whole = state == "heard" and self._error is None and played_s > 0
        self.state = state if self._error is None else "failed"
        self.played_ms = int(played_s * 1000)
        self.quality = quality
        self.heard_text = self.text.rstrip() if whole else self.words_until(played_s)
        self._done.set()

    def fail_at_end(self, error: Exception) -> None:
        """No more of it will come, because of ``error``; what there is may still be played."""
        self._error = error

    def fail(self, error: Exception) -> None:
        """End it with the error that whoever awaits it will see."""
        if self.done:
            return
        self.state = "failed"
        self._error = error
        self._done.set()


def _spoken(
    text: str, start: float, end: float, now: float, *, open_end: bool, speed: int = _CHARS_PER_S
) -> str:
    """The whole words of ``text``, spoken evenly from start to end (s), that are over by now.

    With an open end more sound may follow, so that speech is assumed to be no faster than ``speed``
    characters a second.
    """
    if now <= start or end <= start:
        return "" if now <= start or open_end else text
    chars = len(text) * min(now - start, end - start) / (end - start)
    if open_end:
        chars = min(chars, (now - start) * speed)
    if chars >= len(text):
        return text
    cut = int(chars)
    if not text[cut : cut + 1].isspace():
        cut = max(text.rfind(" ", 0, cut), text.rfind("\n", 0, cut), 0)
    return text[:cut]
