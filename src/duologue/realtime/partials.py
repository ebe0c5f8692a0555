"""Spaces out the partial transcripts of a long turn."""

from __future__ import annotations

from duologue.realtime.outputs import UserTranscript

LONG = 2000
"""Characters up to which every partial transcript of a turn is told."""

_GROWTH = 1.05
"""Beyond that, one is told when the text has grown by a twentieth."""


class Partials:
    """Decides which transcripts of a person's turn are told.

    Each holds the whole text so far, so that telling them all would cost the square of a long
    turn's length, for whoever takes them. Final ones are always told.
    """

    __slots__ = ("_item_id", "_told")

    def __init__(self) -> None:
        self._item_id = ""
        self._told = 0

    def is_due(self, words: UserTranscript) -> bool:
        """Whether to tell ``words``: short, final, shorter than before, or enough of news."""
        length = len(words.text)
        known = words.item_id == self._item_id and not words.final
        if known and length > LONG and self._told <= length < self._told * _GROWTH:
            return False
        self._item_id, self._told = words.item_id, length
        return True
