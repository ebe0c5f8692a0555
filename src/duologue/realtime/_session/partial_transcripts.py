"""Limit how often partial transcripts of a long turn are passed on."""

from __future__ import annotations

from duologue.realtime.outputs import UserTranscript

MAX_UNFILTERED = 2000
"""Characters up to which every partial transcript of a turn is passed on."""

_GROWTH = 1.05
"""Factor by which a longer transcript must have grown since the last one that was passed on."""


class PartialsFilter:
    """Decides which transcripts of a user turn are passed on.

    Each transcript holds the whole text so far, so passing on all of them would cost the square of
    a long turn's length. Final transcripts are always passed on.
    """

    __slots__ = ("_item_id", "_passed")

    def __init__(self) -> None:
        self._item_id = ""
        self._passed = 0

    def is_due(self, words: UserTranscript) -> bool:
        """Return whether to pass on ``words``: they are short, final, shorter, or grown enough."""
        length = len(words.text)
        known = words.item_id == self._item_id and not words.final
        if known and length > MAX_UNFILTERED and self._passed <= length < self._passed * _GROWTH:
            return False
        self._item_id, self._passed = words.item_id, length
        return True
