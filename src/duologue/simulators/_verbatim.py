"""Finds text that a model is instructed to say word for word."""

from __future__ import annotations

import re

_EXACTLY = re.compile(r"\b(?:exactly|verbatim)\b", re.IGNORECASE)
_QUOTED = re.compile(r'"""\s*(.*?)\s*"""', re.DOTALL)


def quoted_verbatim(instructions: str) -> str | None:
    """Return the text in triple quotes if the instructions say "exactly" or "verbatim"."""
    quoted = _QUOTED.search(instructions)
    if quoted is None or not _EXACTLY.search(instructions):
        return None
    return quoted[1]
