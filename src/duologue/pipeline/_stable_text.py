"""Finds the part of a growing transcript that a language model can read before the turn is over.

Partial transcripts come while the person speaks, and their last words often change. What two in a
row have in common rarely does.
"""

from __future__ import annotations

from duologue.vad.words import shared_length

MIN_NEW_CHARS = 16
"""New characters that are worth a reading: each costs as much as about five words by itself."""


class StableText:
    """Follows the partial transcripts of one turn.

    Args:
        item_id: The id of the turn.
    """

    __slots__ = ("_last", "_read", "_stable", "item_id")

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        self._last = ""
        self._stable = ""
        self._read: str | None = None

    def push(self, text: str) -> None:
        """Take the next partial transcript."""
        self._stable = text[: shared_length(self._last, text)].rstrip()
        self._last = text

    def take(self) -> str | None:
        """Return the text to read now: at first none of it, later at least `MIN_NEW_CHARS` more.

        None if there is too little to read. What was returned counts as read.
        """
        if self._read is not None:
            new = len(self._stable) - shared_length(self._read, self._stable)
            if new < MIN_NEW_CHARS:
                return None
        elif len(self._stable) < MIN_NEW_CHARS:
            self._read = ""  # the conversation before the turn
            return self._read
        self._read = self._stable
        return self._read
