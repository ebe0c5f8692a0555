"""Set the word times of a voice service on the text that was sent to it (sans-IO).

A service reports tokens with times: words without their spaces, single characters, numbers written
out, pieces of one word in two messages, now and then nothing at all. The history needs the text as
it was sent, so tokens are never joined to a text: `WordAligner` walks the sent text, and a token
only says when the walk reaches the place where it was found.

    sent:    "It costs $5, I think. "
    tokens:  "It" 0.1-0.2   "costs" 0.2-0.6   "five" 0.6-0.8   "dollars" 0.8-1.2   "I" 1.5-1.6 ...
    output:  "It "          "costs "          "$5, " 0.6-1.2                       "I "

- A token that is found only further on takes the text before it along: that text was spoken from
  the first unplaced token on.
- A token that is found nowhere near is remembered by its times only.
- Output is whole words with their punctuation and spaces, or single characters in scripts without
  spaces. The last word waits until more text shows that it is complete.
- Times never go back, and are rounded up: it is better to claim a word too late than too early.
- What was never timed is output at the end of the audio by `finish`.
"""

from __future__ import annotations

import math

import regex

from duologue._word_timing import has_letters, is_unspaced
from duologue.pipeline.interfaces import SpokenText

SEARCH_CHARS = 60
"""Characters of the sent text that are searched for a token."""

_TAG = regex.compile(r"<[^<>]*>")


class WordAligner:
    """Turns the timed tokens of one reply into `SpokenText`; ``rate`` is that of its audio in Hz.

    The texts that it returns, joined, are the text that was sent.
    """

    __slots__ = (
        "_end",
        "_last_start",
        "_output",
        "_place",
        "_start",
        "_text",
        "_unplaced_start",
        "rate",
    )

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._text = ""
        self._output = 0
        """Characters of the text that were returned."""
        self._place = 0
        """Characters of the text up to the newest token that was found."""
        self._start: float | None = None
        """When the text behind ``_output`` began to be spoken, in seconds, if that is known."""
        self._end = 0.0
        self._unplaced_start: float | None = None
        """When the first of the tokens that were not found since the last one found began."""
        self._last_start = 0

    @property
    def rest(self) -> str:
        """The text that was sent and not returned yet."""
        return self._text[self._output :]

    @property
    def end(self) -> int:
        """Where the newest token ends, in samples."""
        return self._ceil(self._end)

    def send(self, text: str) -> list[SpokenText]:
        """Add text that was sent; return a word that it shows to be complete."""
        self._text += text
        return self._take_words()

    def token(self, token: str, start: float, end: float) -> list[SpokenText]:
        """Place a token that is spoken from ``start`` to ``end`` s; return the complete words."""
        token = _TAG.sub("", token).strip()
        if not token or not (math.isfinite(start) and math.isfinite(end)):
            return []
        place = self._find(token)
        if place is None:
            if has_letters(token):
                if self._unplaced_start is None:
                    self._unplaced_start = start
                self._end = max(self._end, end)
            return []
        words: list[SpokenText] = []
        begun = self._unplaced_start
        if place > self._place and self._start is not None and begun is not None:
            # The tokens between were spoken instead of the text between.
            words += self._take(self._word_start(place))
        if self._start is None:
            self._start = start if begun is None else begun
        self._unplaced_start = None
        self._place = place + len(token)
        self._end = max(end, start)
        return words + self._take_words()

    def finish(self, samples: int) -> list[SpokenText]:
        """Return the rest of the text: the audio is complete, and ``samples`` long."""
        rest, end = self.rest, self._ceil(self._end)
        if not rest:
            return []
        begun = self._unplaced_start if self._start is None else self._start
        start = max(self._last_start, min(samples, end if begun is None else self._ceil(begun)))
        if self._start is None or has_letters(self._text[self._place :]):
            end = samples  # Some of it was never timed.
        self._output = self._place = len(self._text)
        return [SpokenText(rest, start, max(start, end))]

    def _find(self, token: str) -> int | None:
        """Return where the next ``token`` is in the text; None if it is not near."""
        place = self._place
        while place < len(self._text) and self._text[place].isspace():
            place += 1
        if _same(self._text[place : place + len(token)], token):
            return place
        if not has_letters(token):
            return None
        for index in range(place + 1, min(len(self._text) - len(token), place + SEARCH_CHARS) + 1):
            begins = not self._text[index - 1].isalnum() or is_unspaced(self._text[index])
            if begins and _same(self._text[index : index + len(token)], token):
                return index
        return None

    def _word_start(self, place: int) -> int:
        while place > self._output and not self._text[place - 1].isspace():
            place -= 1
        return place

    def _take_words(self) -> list[SpokenText]:
        """Return the text up to the newest token, if the words in it are complete."""
        if self._place <= self._output or self._start is None:
            return []
        end, text = self._place, self._text
        if end == len(text):
            return []
        if text[end].isalnum() and not (is_unspaced(text[end - 1]) or is_unspaced(text[end])):
            return []  # In the middle of a word.
        while end < len(text) and not text[end].isspace() and not text[end].isalnum():
            end += 1
        if end == len(text):
            return []
        while end < len(text) and text[end].isspace():
            end += 1
        return self._take(end)

    def _take(self, end: int) -> list[SpokenText]:
        text = self._text[self._output : end]
        if not text or self._start is None:
            return []
        start = max(self._last_start, self._ceil(self._start))
        self._last_start, self._output = start, end
        self._place = max(self._place, end)
        self._start = None
        return [SpokenText(text, start, max(start, self._ceil(self._end)))]

    def _ceil(self, seconds: float) -> int:
        return max(0, math.ceil(seconds * self.rate - 1e-6))


def _same(text: str, token: str) -> bool:
    return text == token or (len(text) == len(token) and text.casefold() == token.casefold())
