"""The families of Qwen's Omni models, according to the pages of Model Studio."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from duologue.errors import ConfigError

INPUT_RATE = 16000
"""Rate of the input audio in Hz."""
OUTPUT_RATE = 24000
"""Default rate of the agent's audio in Hz."""
LIFETIME_S = 120 * 60.0
"""Seconds after which the service closes a session (Model Studio, Qwen-Omni-Realtime)."""
IDLE_TIMEOUT_S = 300.0
"""Seconds without activity after which the service closes a session; pings do not count."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What the models of a family support, besides audio and images."""

    family: str
    text_items: bool = False
    """Whether conversation items can be text."""
    tools: bool = False
    search: bool = False
    semantic_vad: bool = False
    idle_timeout: bool = False
    sampling: bool = True
    smooth_output: bool = False
    formats: tuple[str, str] = ("pcm", "pcm")
    """Names of the formats of the input audio and the agent's audio."""
    selects_rate: bool = False
    """Whether the rate of the agent's audio can be chosen."""
    nested_voice: bool = False
    """Whether audio options are always in ``audio``, including the voice."""
    needs_workspace: bool = False
    transcription: str = "qwen3-asr-flash-realtime"
    transcribes_manual_turns: bool = True
    """Whether the user's words are also transcribed in manual turns."""


_OMNI_35_PLUS = Traits(
    "qwen3.5-omni-plus",
    text_items=True,
    tools=True,
    search=True,
    semantic_vad=True,
    idle_timeout=True,
    selects_rate=True,
)
_OMNI_35_FLASH = replace(_OMNI_35_PLUS, family="qwen3.5-omni-flash", transcribes_manual_turns=False)
_OMNI_38 = replace(_OMNI_35_PLUS, family="qwen3.8-omni", nested_voice=True, needs_workspace=True)
_OMNI_3_FLASH = Traits(
    "qwen3-omni-flash",
    smooth_output=True,
    formats=("pcm16", "pcm24"),
    transcription="gummy-realtime-v1",
)
_OMNI_TURBO = Traits(
    "qwen-omni-turbo",
    sampling=False,
    formats=("pcm16", "pcm16"),
    transcription="gummy-realtime-v1",
)

_VERSION = re.compile(r"qwen(\d+)(?:\.(\d+))?-omni-(\w+)")
_OTHER_FAMILIES = ("qwen-audio", "livetranslate", "-asr-", "-tts-")


def traits_of(model: str) -> Traits:
    """Return what ``model`` supports; an unknown one is treated as the newest of its version or
    lower.

    Raises:
        ConfigError: The model uses another protocol.
    """
    if any(part in model for part in _OTHER_FAMILIES):
        raise ConfigError(
            f"{model} is not an Omni model: take one such as qwen3.5-omni-plus-realtime"
        )
    if model.startswith("qwen-omni-turbo"):
        return _OMNI_TURBO
    match = _VERSION.match(model)
    if match is None:
        return _OMNI_35_PLUS
    version = int(match[1]), int(match[2] or 0)
    if version >= (3, 8):
        return _OMNI_38
    if version >= (3, 5):
        return _OMNI_35_FLASH if match[3] == "flash" else _OMNI_35_PLUS
    return _OMNI_3_FLASH
