"""What each family of Qwen's Omni models can do, by the pages of Model Studio."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from duologue.errors import ConfigError

INPUT_RATE = 16000
"""Hz of the person's sound."""
OUTPUT_RATE = 24000
"""Hz of the model's sound, if nothing else is asked for."""
LIFETIME_S = 120 * 60.0
"""How long a session lives, then the service closes it (Model Studio, Qwen-Omni-Realtime)."""
IDLE_TIMEOUT_S = 300.0
"""A session in which nothing happens for so long is closed; pings are nothing."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What the models of a family take, beside sound and pictures."""

    family: str
    text_items: bool = False
    """Text as items of the conversation."""
    tools: bool = False
    search: bool = False
    semantic_vad: bool = False
    idle_timeout: bool = False
    sampling: bool = True
    smooth_output: bool = False
    formats: tuple[str, str] = ("pcm", "pcm")
    """Names of the formats of the person's sound and the model's."""
    selects_rate: bool = False
    """The rate of the model's sound can be chosen."""
    nested_voice: bool = False
    """What concerns sound is always in ``audio``, the voice as well."""
    needs_workspace: bool = False
    transcription: str = "qwen3-asr-flash-realtime"
    transcribes_manual_turns: bool = True
    """What the person said is written down in manual turns as well."""


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
    """What ``model`` can do; one that is not known is taken for the newest of its version or less.

    Raises `ConfigError` for models that are spoken to in another way.
    """
    if any(part in model for part in _OTHER_FAMILIES):
        raise ConfigError(
            f"{model} is not an Omni model: take one such as qwen3.5-omni-plus-realtime"
        )
    if model.startswith("qwen-omni-turbo"):
        return _OMNI_TURBO
    found = _VERSION.match(model)
    if found is None:
        return _OMNI_35_PLUS
    version = int(found[1]), int(found[2] or 0)
    if version >= (3, 8):
        return _OMNI_38
    if version >= (3, 5):
        return _OMNI_35_FLASH if found[3] == "flash" else _OMNI_35_PLUS
    return _OMNI_3_FLASH
