"""Google's Gemini Live, on the Gemini API and on Vertex AI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

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

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.providers.gemini._config": [
                "AutomaticActivity",
                "Compression",
                "ManualTurns",
                "Proactivity",
                "Thinking",
                "Transcription",
            ],
            "duologue.providers.gemini._realtime": ["Realtime"],
            "duologue.providers.gemini._vertex": ["Vertex"],
        },
    )
