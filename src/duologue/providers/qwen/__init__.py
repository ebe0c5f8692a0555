"""Alibaba's Qwen Omni Realtime, on Model Studio (DashScope)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue.providers.qwen._realtime import Realtime
    from duologue.realtime.options import ManualTurns, SemanticVAD, ServerVAD, Transcription

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
            "duologue.realtime.options": [
                "ManualTurns",
                "SemanticVAD",
                "ServerVAD",
                "Transcription",
            ],
            "duologue.providers.qwen._realtime": ["Realtime"],
        },
    )
