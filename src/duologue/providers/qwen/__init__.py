"""Alibaba's Qwen Omni Realtime, on Model Studio (DashScope)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duologue.providers.qwen._config import ManualTurns, SemanticVAD, ServerVAD, Transcription
    from duologue.providers.qwen._realtime import Realtime

__all__ = [
    "Realtime",
    "ServerVAD",
    "SemanticVAD",
    "ManualTurns",
    "Transcription",
]

_HOMES = {"Realtime": "_realtime"}


def __getattr__(name: str) -> object:
    """Load a public name on first use, so that nobody pays for what they do not use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOMES.get(name, '_config')}"
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
