"""Cuts a stream of words into pieces that can be spoken as soon as they are there."""

from __future__ import annotations

import re

FIRST_PAUSE_CHARS = 6
"""The first piece may end at a comma once it has so many characters: it is heard sooner."""
FIRST_PHRASE_CHARS = 14
"""And before a word that begins a new phrase, once it has so many."""
LONG_CHARS = 120
"""A sentence longer than this is cut at its next comma."""

_ABBREVIATIONS = frozenset(
    ["mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "e.g.", "i.e.", "etc.", "no."]
)
_END = re.compile(r"[.!?…]+[\"')\]]*(?=\s)|\n")
_PAUSE = re.compile(r"[,;:](?=\s)")
_PHRASE = re.compile(
    r"\s(?=(?:and|but|or|so|because|that|which|who|when|where|while|if|is|are|was|were|can|will"
    r"|would|has|have|at|in|on|with|from|for|by|about|between|to)\s)",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[*_`#]+")


class Clauses:
    """Takes deltas, gives clauses; what they contain together is all the text, markup left out.

    With ``hurry`` the first clause is as short as can be spoken by itself: a language model makes
    words hardly faster than they are spoken, and the person is waiting for the first of them.
    """

    __slots__ = ("_first", "_held")

    def __init__(self, *, hurry: bool = True) -> None:
        self._held = ""
        self._first = hurry

    def push(self, delta: str) -> list[str]:
        """Take the next words; return the clauses that are complete, each with its spaces."""
        self._held += _MARKUP.sub("", delta)
        clauses = []
        while (cut := self._cut()) is not None:
            clause, self._held = self._held[:cut], self._held[cut:]
            if clause.strip():
                clauses.append(clause)
                self._first = False
        return clauses

    def flush(self) -> list[str]:
        """No more words will come: what is left."""
        rest, self._held = self._held, ""
        return [rest] if rest.strip() else []

    def _cut(self) -> int | None:
        end = self._sentence()
        before = len(self._held) if end is None else end
        if not self._first:
            return end if end is not None else self._pause(LONG_CHARS, before)
        early = self._pause(FIRST_PAUSE_CHARS, before) or self._phrase(before)
        return early if early is not None else end

    def _sentence(self) -> int | None:
        for match in _END.finditer(self._held):
            if not self._is_abbreviation(match.end()):
                return self._with_space(match.end())
        return None

    def _phrase(self, before: int) -> int | None:
        for match in _PHRASE.finditer(self._held, 0, before):
            if match.start() >= FIRST_PHRASE_CHARS:
                return match.end()
        return None

    def _pause(self, least: int, before: int) -> int | None:
        for match in _PAUSE.finditer(self._held, 0, before):
            if match.end() >= least:
                return self._with_space(match.end())
        return None

    def _with_space(self, end: int) -> int:
        while end < len(self._held) and self._held[end].isspace():
            end += 1
        return end

    def _is_abbreviation(self, end: int) -> bool:
        words = self._held[:end].split()
        return bool(words) and words[-1].lower() in _ABBREVIATIONS
