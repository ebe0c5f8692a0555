"""Alibaba's Qwen Omni Realtime, on Model Studio (DashScope)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

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

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.providers.qwen._config": [
                "ManualTurns",
                "SemanticVAD",
                "ServerVAD",
                "Transcription",
            ],
            "duologue.providers.qwen._realtime": ["Realtime"],
        },
    )
