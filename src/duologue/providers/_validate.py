"""Checks of values that programs give a provider: one clear line for what can't work."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import cast

from duologue.errors import ConfigError

_LOG = logging.getLogger(__name__)


def check_range(
    name: str, value: object, low: float, high: float, *, integer: bool = False
) -> None:
    """Raise `ConfigError` unless ``value`` is a number, ``low`` to ``high``, ``whole`` if so."""
    number = isinstance(value, int if integer else int | float) and not isinstance(value, bool)
    if not number or not low <= cast("float", value) <= high:
        kind = "a whole number of " if integer else ""
        raise ConfigError(f"{name} takes {kind}{low:g} to {high:g}, not {value!r}")


def check_choice(name: str, value: object, allowed: Sequence[object], hint: str = "") -> None:
    """Raise `ConfigError` unless ``value`` is allowed; ``more`` says what else would be."""
    # Reject 16000.0 and True: the JSON that is sent would contain them unchanged.
    good = isinstance(value, str | int | None) and not isinstance(value, bool)
    if not good or value not in allowed:
        ending = f" {hint}" if hint else ""
        raise ConfigError(f"{name} takes {', '.join(map(str, allowed))}{ending}, not {value!r}")


def check_voice(value: object, known: Sequence[str], hint: str = "") -> None:
    """Raise `ConfigError` unless ``value`` is the name of a voice; ``more`` names an alternative.

    A name that is not ``known`` may be newer than this library, or belong to another server: log a
    warning with the known names, and let the server decide.
    """
    names = ", ".join(known)
    ending = f" {hint}" if hint else ""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigError(f"voice takes {names}{ending}, not {value!r}")
    if value not in known:
        _LOG.warning("voice %r is not known here; the server decides. Known are %s", value, names)


def check_positive(name: str, value: float) -> None:
    """Raise `ConfigError` unless ``value`` is a finite number above 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} takes a number above 0, not {value!r}")


def check_secret(name: str, value: str) -> str:
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
