"""Google's Gemini: Live, on the Gemini API and on Vertex AI, and text models for pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue.providers.gemini._config import (
        AutomaticActivity,
        Compression,
        Proactivity,
        Thinking,
    )
    from duologue.providers.gemini._llm import LLM
    from duologue.providers.gemini._realtime import Realtime
    from duologue.providers.gemini._vertex import Vertex
    from duologue.realtime.options import ManualTurns, ServerVAD, Transcription

__all__ = [
    "LLM",
    "Realtime",
    "Vertex",
    "ServerVAD",
    "AutomaticActivity",
    "ManualTurns",
    "Transcription",
    "Thinking",
    "Proactivity",
    "Compression",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.providers.gemini._config": [
                "AutomaticActivity",
                "Compression",
                "Proactivity",
                "Thinking",
            ],
            "duologue.providers.gemini._llm": ["LLM"],
            "duologue.providers.gemini._realtime": ["Realtime"],
            "duologue.providers.gemini._vertex": ["Vertex"],
            "duologue.realtime.options": ["ManualTurns", "ServerVAD", "Transcription"],
        },
    )
