"""How long text takes to be said, and where it may be cut, in every script.

Speech is timed by the weight of its text: one for each character of an alphabet, more for one that
is a syllable or a word of its own. Text is cut at spaces where its script has them, and between
grapheme clusters where it has none.
"""

from __future__ import annotations

import regex

_SYLLABLES = regex.compile(
    r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Hangul}\p{scx=Bopomofo}\p{scx=Yi}]+"
)
"""Scripts that are said at five characters a second, where a Latin one is at fifteen."""

_SYLLABLE_WEIGHT = 3

_UNSPACED = regex.compile(
    r"[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{scx=Yi}"
    r"\p{scx=Thai}\p{scx=Lao}\p{scx=Khmer}\p{scx=Myanmar}\p{scx=Tibetan}"
    r"\p{scx=Tai_Le}\p{scx=New_Tai_Lue}\p{scx=Tai_Tham}\p{scx=Javanese}\p{scx=Balinese}]"
)
"""Scripts without spaces between their words."""

_CLUSTER = regex.compile(r"\X")
_CONTEXT = 32
"""Characters before a place that decide whether a grapheme cluster ends there."""

_WORD = regex.compile(r"[\p{L}\p{N}]")


def has_letters(text: str) -> bool:
    """Whether there is anything in ``text`` that a voice can say: a letter or a digit."""
    return _WORD.search(text) is not None


def weight(text: str) -> float:
    """How long ``text`` takes to be said, in characters of the Latin script."""
    if text.isascii():
        return len(text)
    syllables = sum(map(len, _SYLLABLES.findall(text)))
    return len(text) + (_SYLLABLE_WEIGHT - 1) * syllables


def said_within(text: str, budget: float) -> str:
    """The beginning of ``text`` that weighs at most ``budget``, up to where it may be cut."""
    cut = _position(text, budget)
    if cut >= len(text):
        return text
    while cut > 0 and not _may_cut(text, cut):
        cut -= 1
    return text[:cut]


def needs_space(before: str, after: str) -> bool:
    """Whether a space is missing between two texts that follow one another."""
    if not before or not after or before[-1].isspace() or after[0].isspace():
        return False
    return _UNSPACED.match(before[-1]) is None and _UNSPACED.match(after[0]) is None


def _position(text: str, budget: float) -> int:
    """How many characters of ``text`` weigh at most ``budget``."""
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
