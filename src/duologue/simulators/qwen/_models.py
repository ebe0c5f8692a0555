"""The differences between the models of the service (Model Studio, "Client events", 2026)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModelFeatures:
    """What one generation of models accepts, and the defaults of its sessions."""

    voice: str
    temperature: float
    top_p: float
    top_k: int
    presence_penalty: float
    transcriber: str = "qwen3-asr-flash-realtime"
    nested_audio: bool = False
    """Accepts ``audio.input`` and ``audio.output``."""
    tools: bool = False
    mcp: bool = False
    semantic_vad: bool = False
    text_items: bool = False
    idle_timeout: bool = False
    manual_transcripts: bool = True
    """Sends the complete transcript of a turn that the client has ended."""
    acknowledges_finish: bool = True
    """Answers ``session.finish`` before it closes."""


_TURBO = ModelFeatures("Chelsie", 1.0, 0.01, 20, 0.0, transcriber="gummy-realtime-v1")
_THREE = ModelFeatures("Cherry", 0.9, 1.0, 50, 0.0)
_PLUS = ModelFeatures(
    "Tina",
    0.7,
    0.8,
    20,
    1.5,
    nested_audio=True,
    tools=True,
    semantic_vad=True,
    text_items=True,
    idle_timeout=True,
)
_FLASH = ModelFeatures(
    "Tina",
    0.7,
    0.8,
    20,
    1.5,
    nested_audio=True,
    tools=True,
    semantic_vad=True,
    text_items=True,
    idle_timeout=True,
    manual_transcripts=False,
)
_LATEST = ModelFeatures(
    "Tina",
    0.7,
    0.8,
    20,
    1.5,
    nested_audio=True,
    tools=True,
    mcp=True,
    semantic_vad=True,
    text_items=True,
    idle_timeout=True,
    acknowledges_finish=False,
)

_BY_PREFIX = {
    "qwen3.8-omni": _LATEST,
    "qwen3.5-omni-flash": _FLASH,
    "qwen3.5-omni": _PLUS,
    "qwen3-omni": _THREE,
    "qwen-omni-turbo": _TURBO,
}


def features_of(model: str) -> ModelFeatures:
    """Return the features of a model by its name; those of 3.5 plus for an unknown name."""
    for prefix, abilities in _BY_PREFIX.items():
        if model.startswith(prefix):
            return abilities
    return _PLUS
