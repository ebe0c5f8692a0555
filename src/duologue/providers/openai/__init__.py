"""OpenAI, and every server that speaks its protocols."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duologue.providers.openai._config import (
        CustomVoice,
        ManualTurns,
        NoiseReduction,
        RetentionRatio,
        SemanticVAD,
        ServerVAD,
        Transcription,
    )
    from duologue.providers.openai._llm import LLM
    from duologue.providers.openai._realtime import Realtime

__all__ = [
    "LLM",
    "Realtime",
    "ServerVAD",
    "SemanticVAD",
    "ManualTurns",
    "Transcription",
    "NoiseReduction",
    "RetentionRatio",
    "CustomVoice",
]

_HOMES = {"LLM": "_llm", "Realtime": "_realtime"}


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
