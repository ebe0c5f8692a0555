"""Checks of values that programs give a provider: one clear line for what can't work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from duologue.realtime.errors import ConfigError


def within(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Raise `ConfigError` unless ``value`` is a number, ``low`` to ``high``, ``whole`` if so."""
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not low <= cast("float", value) <= high:
        kind = "a whole number of " if whole else ""
        raise ConfigError(f"{name} takes {kind}{low:g} to {high:g}, not {value!r}")


def one_of(name: str, value: object, allowed: Sequence[object], more: str = "") -> None:
    """Raise `ConfigError` unless ``value`` is allowed; ``more`` says what else would be."""
    if value not in allowed:
        ending = f" {more}" if more else ""
        raise ConfigError(f"{name} takes {', '.join(map(str, allowed))}{ending}, not {value!r}")


def rate(name: str, value: float) -> None:
    """Raise `ConfigError` unless ``value`` is a finite number above 0."""
    if not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} takes a number above 0, not {value!r}")


def secret(name: str, value: str) -> str:
    """A key without the line end that files have; raises `ConfigError`, which never shows it.

    It goes into a header, so it has to be printable ASCII: HTTP clients show the whole header in
    their errors when it is not.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name} takes a string, not {type(value).__name__}")
    value = value.strip()
    if not (value.isascii() and all(letter.isprintable() and letter != " " for letter in value)):
        raise ConfigError(f"{name} takes letters, digits and signs only: this is no key")
    return value
