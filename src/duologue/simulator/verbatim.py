"""Text that a model is told to say word for word."""

from __future__ import annotations

import re

_EXACTLY = re.compile(r"\b(?:exactly|verbatim)\b", re.IGNORECASE)
_QUOTED = re.compile(r'"""\s*(.*?)\s*"""', re.DOTALL)


def asked_verbatim(instructions: str) -> str | None:
    """The text in triple quotes that is to be said exactly or verbatim; None when none is."""
    quoted = _QUOTED.search(instructions)
    if quoted is None or not _EXACTLY.search(instructions):
        return None
    return quoted[1]
