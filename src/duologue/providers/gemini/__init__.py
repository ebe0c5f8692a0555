"""Google's Gemini Live, on the Gemini API and on Vertex AI."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duologue.providers.gemini._config import (
        AutomaticActivity,
        Compression,
        ManualTurns,
        Proactivity,
        Thinking,
        Transcription,
    )
    from duologue.providers.gemini._realtime import Realtime
    from duologue.providers.gemini._vertex import Vertex

__all__ = [
    "Realtime",
    "Vertex",
    "AutomaticActivity",
    "ManualTurns",
    "Transcription",
    "Thinking",
    "Proactivity",
    "Compression",
]

_MODULES = {"Realtime": "_realtime", "Vertex": "_vertex"}


def __getattr__(name: str) -> object:
    """Load a public name on first use, so that nobody pays for what they do not use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_MODULES.get(name, '_config')}"
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
