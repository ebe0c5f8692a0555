"""Options of a Qwen Omni session, checked when they are given."""

from __future__ import annotations

from dataclasses import dataclass

from duologue.errors import ConfigError
from duologue.providers._validate import check_choice, check_range
from duologue.providers.qwen._models import OUTPUT_RATE, Traits, traits_of

OUTPUT_RATES = (8000, 16000, 24000, 48000)
"""Rates of the agent's audio in Hz, for models that offer a choice."""


@dataclass(frozen=True, slots=True)
class ServerVAD:
    """The server finds turns by loudness: ``threshold`` -1 (all is speech) to 1, times in ms.

    ``idle_timeout_ms`` (5000 to 30000, qwen3.5 and later): after so long a silence the model speaks
    up by itself. ``interrupt_response``: the server stops its reply at any noise, instead of
    leaving that to `BargeInPolicy`, which distinguishes a cough from a word.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 800
    create_response: bool = True
    interrupt_response: bool = False
    idle_timeout_ms: int | None = None

    def __post_init__(self) -> None:
        check_range("threshold", self.threshold, -1, 1)
        check_range("prefix_padding_ms", self.prefix_padding_ms, 0, 10000)
        check_range("silence_duration_ms", self.silence_duration_ms, 200, 6000)
        if self.idle_timeout_ms is not None:
            check_range("idle_timeout_ms", self.idle_timeout_ms, 5000, 30000)


@dataclass(frozen=True, slots=True)
class SemanticVAD:
    """The server finds turns by what was said, and passes over a mere "mm-hm" (qwen3.5 and later).

    The other values are as in `ServerVAD`; None leaves them to the server.
    """

    threshold: float | None = None
    silence_duration_ms: int | None = None
    create_response: bool = True
    interrupt_response: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None:
            check_range("threshold", self.threshold, -1, 1)
        if self.silence_duration_ms is not None:
            check_range("silence_duration_ms", self.silence_duration_ms, 200, 6000)


@dataclass(frozen=True, slots=True)
class ManualTurns:
    """The program ends the turns of the person by ``Realtime.end_turn``."""


type TurnDetection = ServerVAD | SemanticVAD | ManualTurns


@dataclass(frozen=True, slots=True)
class Transcription:
    """The model that writes down what the person says; None takes the one that goes with it.

    ``language`` is an ISO 639-1 code.
    """

    model: str | None = None
    language: str | None = None

    def __post_init__(self) -> None:
        if self.model == "":
            raise ConfigError(
                "model must be the name of a transcription model, or None for the default"
            )


@dataclass(frozen=True, slots=True)
class QwenConfig:
    """Everything that a session of Qwen Omni can be told; raises `ConfigError`.

    None (and, for ``turn_detection`` and ``transcription``, their defaults) is explained at
    `Realtime`.
    """

    model: str = "qwen3.5-omni-plus-realtime"
    voice: str | None = None
    output_rate: int = OUTPUT_RATE
    turn_detection: TurnDetection = ServerVAD()
    transcription: Transcription | None = Transcription()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    smooth_output: bool | None = None
    enable_search: bool = False

    @property
    def traits(self) -> Traits:
        """What the model supports."""
        return traits_of(self.model)

    @property
    def sampling(self) -> dict[str, float | int]:
        """The given sampling parameters."""
        values: dict[str, float | int | None] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "max_tokens": self.max_tokens,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "seed": self.seed,
        }
        return {name: value for name, value in values.items() if value is not None}

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError(
                "model must be the name of a model, such as qwen3.5-omni-plus-realtime"
            )
        if self.voice is not None and not (isinstance(self.voice, str) and self.voice.strip()):
            raise ConfigError("voice must be the name of a voice, or None for the model's default")
        self._check_sampling()
        traits = self.traits
        if self.output_rate != OUTPUT_RATE:
            self._require("output_rate", traits.selects_rate)
            check_choice("output_rate", self.output_rate, OUTPUT_RATES)
        match self.turn_detection:
            case ServerVAD(idle_timeout_ms=idle):
                self._require("idle_timeout_ms", idle is None or traits.idle_timeout)
            case SemanticVAD():
                self._require("SemanticVAD", traits.semantic_vad)
            case ManualTurns():
                pass
            case _:
                raise ConfigError("turn_detection must be ServerVAD, SemanticVAD or ManualTurns")
        self._require("enable_search", traits.search or not self.enable_search)
        if self.smooth_output is not None and not traits.smooth_output:
            raise ConfigError(f"smooth_output is for qwen3-omni-flash, not {self.model}")
        if self.sampling and not traits.sampling:
            name = next(iter(self.sampling))
            raise ConfigError(f"{self.model} has its own {name}, which can't be changed")

    def _check_sampling(self) -> None:
        if self.temperature is not None and not 0 <= self.temperature < 2:
            raise ConfigError(
                f"temperature must be at least 0 and less than 2, not {self.temperature}"
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p must be more than 0 and at most 1, not {self.top_p}")
        if self.repetition_penalty is not None and not self.repetition_penalty > 0:
            raise ConfigError(
                f"repetition_penalty must be more than 0, not {self.repetition_penalty}"
            )
        if self.presence_penalty is not None:
            check_range("presence_penalty", self.presence_penalty, -2, 2)
        for name, value, low in (
            ("top_k", self.top_k, 0),
            ("max_tokens", self.max_tokens, 1),
            ("seed", self.seed, 0),
        ):
            if value is not None and value < low:
                raise ConfigError(f"{name} must be {low} or more, not {value}")
        if self.seed is not None and self.seed >= 2**31:
            raise ConfigError(f"seed must be less than 2**31, not {self.seed}")

    def _require(self, name: str, has_it: bool) -> None:
        if not has_it:
            raise ConfigError(f"{name} is for qwen3.5-omni and later, not {self.model}")
