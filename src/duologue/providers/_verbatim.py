"""Scripted text: instructions to say it verbatim, and the check that the model did."""

from __future__ import annotations

import unicodedata

_TEMPLATE = (
    'Say exactly the following text, word for word, in its language, and nothing else:\n"""{}"""'
)


def verbatim_instructions(text: str) -> str:
    """Return the instructions for a response that says ``text`` and nothing else."""
    return _TEMPLATE.format(text.replace('"""', '"'))


def same_words(expected: str, actual: str) -> bool:
    """Return whether both texts are equal apart from case, spaces and punctuation."""
    return _normalize(expected) == _normalize(actual)


def _normalize(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c.isalnum() or unicodedata.category(c)[0] in "MS")
