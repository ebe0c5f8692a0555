"""Checks of values that programs give a provider: one clear line for what can't work."""

from __future__ import annotations

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
