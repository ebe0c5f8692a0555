"""Checks of values that programs give a provider: one clear line for what can't work."""

from __future__ import annotations

import math
from collections.abc import Sequence

from duologue.realtime.errors import ConfigError


def within(name: str, value: float, low: float, high: float) -> None:
    """Raise `ConfigError` unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ConfigError(f"{name} takes {low:g} to {high:g}, not {value}")


def one_of(name: str, value: str, allowed: Sequence[str], more: str = "") -> None:
    """Raise `ConfigError` unless ``value`` is allowed; ``more`` says what else would be."""
    if value not in allowed:
        ending = f" {more}" if more else ""
        raise ConfigError(f"{name} takes {', '.join(allowed)}{ending}, not {value!r}")


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
