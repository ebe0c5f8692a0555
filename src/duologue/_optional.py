"""Optional parts: one line that names the extra when one is missing."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from duologue.errors import MissingExtraError


def optional(module: str, extra: str) -> ModuleType:
    """Import ``module``, or raise `MissingExtraError` saying which extra to install."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{error.name} is not installed: pip install 'duologue[{extra}]'", name=error.name
        ) from error
