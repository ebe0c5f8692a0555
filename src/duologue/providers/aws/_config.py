"""The settings of a Nova Sonic session, checked when they are given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from duologue.errors import ConfigError
from duologue.providers._validate import check_choice, check_range, check_voice
from duologue.providers.aws._capabilities import generation_of

VOICES = (
    "amy", "ambre", "arjun", "beatrice", "carlos", "carolina", "florian", "kiara", "lennart",
    "leo", "lorenzo", "lupe", "matthew", "olivia", "tiffany", "tina",
)  # fmt: skip
"""The voices of Nova 2 Sonic. Any other name is sent to the service unchanged."""
RATES = (8000, 16000, 24000)
SENSITIVITIES = ("high", "medium", "low")

MAX_OUTPUT_TOKENS = 10000
"""The largest token limit of one reply that other clients of the service send."""

type Endpointing = Literal["high", "medium", "low"]


@dataclass(frozen=True, slots=True)
class RealtimeConfig:
    """All settings of a Nova Sonic session; raises `ConfigError` for invalid ones.

    `Realtime` explains the fields. The defaults of the numbers come from the AWS guides.
    """

    model: str = "amazon.nova-2-sonic-v1:0"
    region: str = "us-east-1"
    voice: str = "matthew"
    endpointing: Endpointing = "high"
    max_tokens: int = 1024
    temperature: float = 0.7
    top_p: float = 0.9
    input_sample_rate: int = 16000
    output_sample_rate: int = 24000
    tool_choice: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError("model must be the id of a model such as amazon.nova-2-sonic-v1:0")
        if not isinstance(self.region, str) or not re.fullmatch(r"[a-z0-9-]+", self.region):
            raise ConfigError(
                f"region must be an AWS region such as us-east-1, not {self.region!r}"
            )
        check_voice(self.voice, VOICES)
        check_choice("endpointing", self.endpointing, SENSITIVITIES)
        if self.endpointing != "high" and not generation_of(self.model).has_endpointing:
            raise ConfigError(f"endpointing needs Nova 2 Sonic, not {self.model}")
        check_range("max_tokens", self.max_tokens, 1, MAX_OUTPUT_TOKENS, integer=True)
        check_range("temperature", self.temperature, 0, 1)
        check_range("top_p", self.top_p, 0, 1)
        check_choice("input_sample_rate", self.input_sample_rate, RATES)
        check_choice("output_sample_rate", self.output_sample_rate, RATES)
        choice = self.tool_choice
        if choice is not None and (not isinstance(choice, str) or choice in ("", "none")):
            raise ConfigError(
                "tool_choice must be auto, any or the name of a tool; for none, give no tools"
            )
