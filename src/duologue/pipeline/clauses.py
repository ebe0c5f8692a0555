"""Cuts a stream of words into pieces that can be spoken as soon as they are there."""

from __future__ import annotations

import re

FIRST_CHARS = 18
"""The first piece may end at a comma once it has so many characters: it is heard sooner."""
LONG_CHARS = 120
"""A sentence longer than this is cut at its next comma."""

_ABBREVIATIONS = frozenset(
    ["mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "e.g.", "i.e.", "etc.", "no."]
)
_END = re.compile(r"[.!?…]+[\"')\]]*(?=\s)|\n")
_PAUSE = re.compile(r"[,;:](?=\s)")
_MARKUP = re.compile(r"[*_`#]+")


class Clauses:
    """Takes deltas, gives clauses; what they contain together is all the text, markup left out."""

    __slots__ = ("_first", "_held")

    def __init__(self) -> None:
        self._held = ""
        self._first = True

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
        for match in _END.finditer(self._held):
            if not self._is_abbreviation(match.end()):
                end = match.end()
                pause = self._pause(FIRST_CHARS, end) if self._first else None
                return pause or self._with_space(end)
        return self._pause(FIRST_CHARS if self._first else LONG_CHARS, len(self._held))

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
