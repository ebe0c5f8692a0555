"""Scripted text: how a model is told to say it, and whether it did."""

from __future__ import annotations

import unicodedata

_TEMPLATE = (
    'Say exactly the following text, word for word, in its language, and nothing else:\n"""{}"""'
)


def verbatim_instructions(text: str) -> str:
    """The instructions of a response that is to say ``text`` and nothing else."""
    return _TEMPLATE.format(text.replace('"""', '"'))


def same_words(expected: str, actual: str) -> bool:
    """Whether both are the same but for case, spaces and punctuation."""
    return _normalize(expected) == _normalize(actual)


def _normalize(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c.isalnum() or unicodedata.category(c)[0] in "MS")
