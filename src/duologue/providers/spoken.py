"""Scripted text: how a model is told to say it, and whether it did."""

from __future__ import annotations

import unicodedata

_TELL = (
    'Say exactly the following text, word for word, in its language, and nothing else:\n"""{}"""'
)


def instructions_to_say(text: str) -> str:
    """The instructions of a response that is to say ``text`` and nothing else."""
    return _TELL.format(text.replace('"""', '"'))


def same_words(wanted: str, said: str) -> bool:
    """Whether both are the same but for case, spaces and punctuation."""
    return _bare(wanted) == _bare(said)


def _bare(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c.isalnum() or unicodedata.category(c)[0] in "MS")
