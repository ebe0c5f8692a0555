"""Estimate how long text takes to say, and find where it may be cut, in every script.

Speech is timed by the weight of its text: 1 for each character of an alphabet, 3 for a character
that is a syllable or a word. Text is cut at spaces, or between grapheme clusters in a script
without spaces.
"""

from __future__ import annotations

import regex

_SYLLABLES = regex.compile(
    r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Hangul}\p{scx=Bopomofo}\p{scx=Yi}]+"
)
"""Scripts that are spoken at five characters a second; the Latin script is at fifteen."""

_SYLLABLE_WEIGHT = 3

_UNSPACED = regex.compile(
    r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{scx=Yi}"
    r"\p{scx=Thai}\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}\p{scx=Tibetan}"
    r"\p{scx=Tai_Le}\p{scx=New_Tai_Lue}\p{scx=Tai_Tham}\p{scx=Javanese}\p{scx=Balinese}]"
)
"""Scripts without spaces between their words."""

_CLUSTER = regex.compile(r"\X")
_CONTEXT = 32
"""Characters before a position that decide whether a grapheme cluster ends there."""

_WORD = regex.compile(r"[\p{L}\p{N}]")


def has_letters(text: str) -> bool:
    """Return whether ``text`` has anything that a voice can say: a letter or a digit."""
    return _WORD.search(text) is not None


def is_unspaced(character: str) -> bool:
    """Return whether a character is of a script without spaces between its words."""
    return _UNSPACED.match(character) is not None


def weight(text: str) -> float:
    """Return how long ``text`` takes to say, in characters of the Latin script."""
    if text.isascii():
        return len(text)
    syllables = sum(map(len, _SYLLABLES.findall(text)))
    return len(text) + (_SYLLABLE_WEIGHT - 1) * syllables


def prefix_within(text: str, budget: float) -> str:
    """Return the beginning of ``text`` that weighs at most ``budget``, cut where it may be."""
    cut = _position(text, budget)
    if cut >= len(text):
        return text
    while cut > 0 and not _may_cut(text, cut):
        cut -= 1
    return text[:cut]


def needs_space(before: str, after: str) -> bool:
    """Return whether a space is missing between two consecutive texts."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return False
    return _UNSPACED.match(before[-1]) is None and _UNSPACED.match(after[0]) is None


def _position(text: str, budget: float) -> int:
    """Return how many characters of ``text`` weigh at most ``budget`` together."""
    if text.isascii():
        return max(0, int(budget))
    place = 0
    for run in _SYLLABLES.finditer(text):
        begin, end = int(run.start()), int(run.end())
        light = begin - place
        if budget < light:
            break
        budget -= light
        place, length = end, end - begin
        if budget < length * _SYLLABLE_WEIGHT:
            return begin + int(budget / _SYLLABLE_WEIGHT)
        budget -= length * _SYLLABLE_WEIGHT
    return max(0, min(len(text), place + int(budget)))


def _may_cut(text: str, cut: int) -> bool:
    if text[cut].isspace():
        return True
    if _UNSPACED.match(text, cut - 1) is None and _UNSPACED.match(text, cut) is None:
        return False
    return any(one.end() == cut for one in _CLUSTER.finditer(text, max(0, cut - _CONTEXT), cut + 2))
