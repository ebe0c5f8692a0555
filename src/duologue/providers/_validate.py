"""Check values that programs give a provider; each error is one line."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import cast

from duologue.errors import ConfigError

_LOG = logging.getLogger(__name__)


def check_range(
    name: str, value: object, low: float, high: float, *, integer: bool = False
) -> None:
    """Raise `ConfigError` unless ``value`` is a number between ``low`` and ``high``.

    With ``integer``, it must be an int.
    """
    number = isinstance(value, int if integer else int | float) and not isinstance(value, bool)
    if not number or not low <= cast("float", value) <= high:
        kind = "an integer " if integer else ""
        raise ConfigError(f"{name} must be {kind}between {low:g} and {high:g}, not {value!r}")


def check_choice(name: str, value: object, allowed: Sequence[object], hint: str = "") -> None:
    """Raise `ConfigError` unless ``value`` is in ``allowed``; ``hint`` names alternatives."""
    # Reject 16000.0 and True: the JSON that is sent would contain them unchanged.
    good = isinstance(value, str | int | None) and not isinstance(value, bool)
    if not good or value not in allowed:
        ending = f" {hint}" if hint else ""
        choices = ", ".join(map(str, allowed))
        raise ConfigError(f"{name} must be one of {choices}{ending}, not {value!r}")


def check_voice(value: object, known: Sequence[str], hint: str = "") -> None:
    """Raise `ConfigError` unless ``value`` is a voice name; ``hint`` names an alternative.

    A name that is not ``known`` may be newer than this library, or belong to another server: log a
    warning with the known names, and let the server decide.
    """
    names = ", ".join(known)
    ending = f" {hint}" if hint else ""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigError(f"voice must be one of {names}{ending}, not {value!r}")
    if value not in known:
        _LOG.warning("voice %r is not known here; the server decides. Known are %s", value, names)


def check_mapping(name: str, value: object) -> None:
    """Raise `ConfigError` unless ``value`` is a mapping; the error never shows what it holds."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be a mapping, not a {type(value).__name__}")


def check_positive(name: str, value: float) -> None:
    """Raise `ConfigError` unless ``value`` is a finite number above 0."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be a number above 0, not {value!r}")
