"""Guess the tokens of a transcript from an earlier one, so that a decoder checks many at once.

A turn is transcribed again and again while the person speaks, and most of it stays the same. A
decoder that is given the tokens of the last transcript computes what it would have chosen after
each of them in one run, instead of one run a token:

    the last transcript    What time does the swimming .
    the decoder's choice   What time does the swimming pool
                           `------- they agree -------' `-- decided by the decoder

All tokens that agree are decided, and so is the decoder's own choice at the first difference. The
result is what the decoder would have written without the guess; only a wrong guess costs time.
After a difference the rest of the guess is tried again from the place where it seems to continue.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_RETRY_TOKENS = 8
"""Tokens offered at once after a difference: a wrong guess of this length costs half a token."""
_MAX_SKIPPED = 6
"""Tokens of the guess that may be missing from the new transcript in one place."""


class Draft:
    """Offers tokens to a decoder, and compares them with the decoder's choices."""

    __slots__ = ("_limit", "_offered", "_replaced", "_rest")

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self._rest = list(tokens)
        self._limit = len(self._rest)
        self._offered: list[int] = []
        self._replaced: list[int] = []
        """The token that seemed to be replaced, until the guess is seen to go on behind it."""

    def offer(self) -> list[int]:
        """Return the tokens that probably follow those decided so far; none without a guess."""
        self._offered, self._rest = self._rest[: self._limit], self._rest[self._limit :]
        self._limit = MAX_RETRY_TOKENS
        return self._offered

    def settle(self, choices: Sequence[int]) -> list[int]:
        """Return the tokens that are decided now: at least one.

        Args:
            choices: What the decoder chose after the last decided token, and after each token
                offered.
        """
        agreed = 0
        while agreed < len(self._offered) and choices[agreed] == self._offered[agreed]:
            agreed += 1
        chosen = choices[agreed]
        rest = self._offered[agreed:] + self._rest
        if not agreed:
            rest = self._replaced + rest
        self._replaced = []
        if chosen in rest[:_MAX_SKIPPED]:
            rest = rest[rest.index(chosen) + 1 :]
        elif rest:
            self._replaced, rest = rest[:1], rest[1:]
        self._rest, self._offered = rest, []
        return list(choices[: agreed + 1])
