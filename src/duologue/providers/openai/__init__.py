"""OpenAI, and every server that speaks its protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duologue._lazy import lazy_names

if TYPE_CHECKING:
    from duologue.providers.openai._config import CustomVoice, NoiseReduction, RetentionRatio
    from duologue.providers.openai._llm import LLM
    from duologue.providers.openai._realtime import Realtime
    from duologue.providers.openai._stt import STT
    from duologue.providers.openai._tts import TTS
    from duologue.realtime.options import ManualTurns, SemanticVAD, ServerVAD, Transcription

__all__ = [
    "LLM",
    "STT",
    "TTS",
    "Realtime",
    "ServerVAD",
    "SemanticVAD",
    "ManualTurns",
    "Transcription",
    "NoiseReduction",
    "RetentionRatio",
    "CustomVoice",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "duologue.providers.openai._config": [
                "CustomVoice",
                "NoiseReduction",
                "RetentionRatio",
            ],
            "duologue.providers.openai._llm": ["LLM"],
            "duologue.providers.openai._realtime": ["Realtime"],
            "duologue.providers.openai._stt": ["STT"],
            "duologue.providers.openai._tts": ["TTS"],
            "duologue.realtime.options": [
                "ManualTurns",
                "SemanticVAD",
                "ServerVAD",
                "Transcription",
            ],
        },
    )
