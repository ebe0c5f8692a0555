"""Options of a Qwen Omni session, checked when they are given."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal, cast

from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.providers._options import (
    Check,
    NetworkOptions,
    between,
    json_fields,
    one_of,
    option,
    positive,
    text,
)
from duologue.providers._validate import check_choice, check_range
from duologue.providers.qwen._models import OUTPUT_RATE, Traits, traits_of
from duologue.realtime.network import ApiKey
from duologue.realtime.options import (
    ManualTurns,
    SemanticVAD,
    ServerVAD,
    Transcription,
    TurnDetection,
    check_supported,
)

OUTPUT_RATES = (8000, 16000, 24000, 48000)
"""Rates of the agent's audio in Hz, for models that offer a choice."""
MAX_IMAGE_SIDE = 1920
"""Maximum of an image's longer side in pixels: the service accepts 1080p."""

_SAMPLING = "sampling"
"""Where `json_fields` puts the sampling parameters, which the session has at its top level."""


def _check_turn_detection(name: str, value: object) -> None:
    match value:
        case ServerVAD():
            for field, low, high in (
                ("prefix_padding_ms", 0, 10000),
                ("silence_duration_ms", 200, 6000),
                ("idle_timeout_ms", 5000, 30000),
            ):
                if getattr(value, field) is not None:
                    check_range(field, getattr(value, field), low, high)
        case SemanticVAD(silence_duration_ms=silence):
            fields = ("threshold", "silence_duration_ms", "create_response", "interrupt_response")
            check_supported("Qwen", value, fields)
            if silence is not None:
                check_range("silence_duration_ms", silence, 200, 6000)
        case ManualTurns():
            pass
        case _:
            raise ConfigError(
                f"{name} must be ServerVAD, SemanticVAD or ManualTurns, not {value!r}"
            )


def _check_transcription(name: str, value: object) -> None:
    if not isinstance(value, Transcription | None):
        raise ConfigError(f"{name} must be Transcription() or None, not {value!r}")
    if value is not None:
        check_supported("Qwen", value, ("model", "language"))


def _check_voice(name: str, value: object) -> None:
    if not (isinstance(value, str) and value.strip()):
        raise ConfigError(f"{name} must be the name of a voice, or None for the model's default")


def _as_number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{name} must be a number, not {value!r}")
    return value


def _number(*, low: float, above: bool = False, high: float | None = None) -> Check:
    """Return a check for numbers from ``low``, or ``above`` it, that are less than ``high``."""

    def check(name: str, value: object) -> None:
        number = _as_number(name, value)
        if not (number > low if above else number >= low):
            more = f"more than {low:g}" if above else f"{low:g} or more"
            raise ConfigError(f"{name} must be {more}, not {value}")
        if high is not None and not number < high:
            raise ConfigError(f"{name} must be less than {high:g}, not {value}")

    return check


def _check_temperature(name: str, value: object) -> None:
    if not 0 <= _as_number(name, value) < 2:
        raise ConfigError(f"{name} must be at least 0 and less than 2, not {value}")


def _check_top_p(name: str, value: object) -> None:
    if not 0 < _as_number(name, value) <= 1:
        raise ConfigError(f"{name} must be more than 0 and at most 1, not {value}")


def _check_seed(name: str, value: object) -> None:
    number = _as_number(name, value)
    if number < 0:
        raise ConfigError(f"{name} must be 0 or more, not {value}")
    if number >= 2**31:
        raise ConfigError(f"{name} must be less than 2**31, not {value}")


@dataclass(frozen=True)
class QwenConfig(NetworkOptions):
    """All options of `Realtime`."""

    model: str = option(
        "qwen3.5-omni-plus-realtime",
        "see [models](#models)",
        check=text("the name of a model, such as qwen3.5-omni-plus-realtime"),
    )
    voice: str | None = option(
        None,
        "the name of a voice; the default is Tina (qwen3.5, qwen3.8), Cherry (qwen3-omni-flash) "
        "or Chelsie (turbo). A name that the model does not have ends the session",
        check=_check_voice,
    )
    _: KW_ONLY
    output: Literal["audio", "text"] = option(
        "audio",
        "`text`: the model hears, and answers in text, which the agent's `tts` speaks, see "
        "[half-cascade](../half-cascade.md)",
        check=one_of("audio", "text"),
    )
    turn_detection: TurnDetection = option(
        ServerVAD(), "see [turns](#turns)", check=_check_turn_detection
    )
    transcription: Transcription | None = option(
        Transcription(),
        "transcribes the person's speech; None: the history does not have it",
        check=_check_transcription,
    )
    video: Literal["images", "off"] = option(
        "images", "`off`: no images", check=one_of("images", "off")
    )
    fps: float = option(1.0, "images per second; the service recommends 1", check=positive)
    max_image_side: int = option(
        1280,
        f"pixels of an image's longer side, to {MAX_IMAGE_SIDE}",
        check=between(16, MAX_IMAGE_SIDE, integer=True),
    )
    output_rate: int = option(
        OUTPUT_RATE,
        "rate of the agent's audio in Hz: 8000, 16000, 24000 or 48000; qwen3.5 and later",
    )
    temperature: float | None = option(
        None, "0 to less than 2", check=_check_temperature, json=f"{_SAMPLING}.temperature"
    )
    top_p: float | None = option(
        None, "more than 0 to 1", check=_check_top_p, json=f"{_SAMPLING}.top_p"
    )
    top_k: int | None = option(None, "0 or more", check=_number(low=0), json=f"{_SAMPLING}.top_k")
    max_output_tokens: int | None = option(
        None, "1 or more", check=_number(low=1), json=f"{_SAMPLING}.max_tokens"
    )
    repetition_penalty: float | None = option(
        None,
        "more than 0",
        check=_number(low=0, above=True),
        json=f"{_SAMPLING}.repetition_penalty",
    )
    presence_penalty: float | None = option(
        None, "-2 to 2", check=between(-2, 2), json=f"{_SAMPLING}.presence_penalty"
    )
    seed: int | None = option(None, "0 or more", check=_check_seed, json=f"{_SAMPLING}.seed")
    smooth_output: bool | None = option(
        None,
        "True for a spoken style, False for a written one; qwen3-omni-flash",
        json="smooth_output",
    )
    enable_search: bool = option(
        False,
        "the model searches the web by itself; qwen3.5 and later, and not together with tools",
    )
    idle: Literal["silence", "roll_over"] = option(
        "silence",
        "or `roll_over`, see [quiet sessions](#quiet-sessions)",
        check=one_of("silence", "roll_over"),
    )
    api_key: ApiKey | None = option(
        None,
        "a key, or a function that returns one for each connection",
        shown="`DASHSCOPE_API_KEY`",
        secret=True,
    )
    workspace: str | None = option(
        None, "see [addresses](#addresses)", shown="`DASHSCOPE_WORKSPACE`"
    )
    region: str | None = option(
        None, "see [addresses](#addresses)", shown="`DASHSCOPE_REGION` or `cn-beijing`"
    )
    base_url: str | None = option(
        None, "another address of the service, see [addresses](#addresses)", secret=True
    )

    @property
    def traits(self) -> Traits:
        """What the model supports."""
        return traits_of(self.model)

    @property
    def modalities(self) -> list[Json]:
        """The modalities of replies, as the service names them."""
        return ["text"] if self.output == "text" else ["text", "audio"]

    @property
    def sampling(self) -> JsonObject:
        """The given sampling parameters, by their names in the session."""
        return cast("JsonObject", json_fields(self).get(_SAMPLING, {}))

    def __post_init__(self) -> None:
        """Check the options, each and for the model."""
        super().__post_init__()
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
        if "audio" not in cast("list[str]", (self.extra or {}).get("modalities", ["audio"])):
            raise ConfigError("modalities without audio can't be in extra: write output='text'")
        self._require("enable_search", traits.search or not self.enable_search)
        if self.smooth_output is not None and not traits.smooth_output:
            raise ConfigError(f"smooth_output is for qwen3-omni-flash, not {self.model}")
        if self.sampling and not traits.sampling:
            name = next(iter(self.sampling)).replace("max_tokens", "max_output_tokens")
            raise ConfigError(f"{self.model} has its own {name}, which can't be changed")

    def _require(self, name: str, supported: bool) -> None:
        if not supported:
            raise ConfigError(f"{name} is for qwen3.5-omni and later, not {self.model}")
