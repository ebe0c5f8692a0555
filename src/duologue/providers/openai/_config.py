"""Options of an OpenAI Realtime session, checked when they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from duologue.errors import ConfigError
from duologue.providers._validate import check_choice, check_range, check_voice

VOICES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse",
)  # fmt: skip
REASONING_EFFORTS = ("minimal", "low", "medium", "high", "xhigh")
TRANSCRIPTION_DELAYS = ("minimal", "low", "medium", "high", "xhigh")

_NON_REASONING = ("gpt-4o", "gpt-realtime-mini", "gpt-realtime-1", "gpt-realtime-20")
"""Prefixes of model names without reasoning; ``-20`` begins a year."""

MAX_OUTPUT_TOKENS = 32000
"""Maximum tokens of one reply, by the model pages (the types of the SDK still say 4096)."""

type Effort = Literal["minimal", "low", "medium", "high", "xhigh"]


@dataclass(frozen=True, slots=True)
class ServerVAD:
    """The server finds turns by loudness: ``threshold`` 0 to 1, times in ms.

    ``idle_timeout_ms`` (5000 to 30000): after so long a silence the model speaks up by itself.
    ``interrupt_response``: the server stops its reply at any noise, instead of leaving that to
    `BargeInPolicy`, which distinguishes a cough from a word.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500
    create_response: bool = True
    interrupt_response: bool = False
    idle_timeout_ms: int | None = None

    def __post_init__(self) -> None:
        check_range("threshold", self.threshold, 0, 1)
        check_range("prefix_padding_ms", self.prefix_padding_ms, 0, 10000)
        check_range("silence_duration_ms", self.silence_duration_ms, 0, 10000)
        if self.idle_timeout_ms is not None:
            check_range("idle_timeout_ms", self.idle_timeout_ms, 5000, 30000)


@dataclass(frozen=True, slots=True)
class SemanticVAD:
    """The server finds turns by what was said.

    It waits at most 8 s (``eagerness`` ``low``), 4 s (``medium``, the same as ``auto``) or 2 s
    (``high``). ``interrupt_response`` is as in `ServerVAD`.
    """

    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = False

    def __post_init__(self) -> None:
        check_choice("eagerness", self.eagerness, ("low", "medium", "high", "auto"))


@dataclass(frozen=True, slots=True)
class ManualTurns:
    """The program ends the turns of the person by ``Realtime.end_turn``."""


type TurnDetection = ServerVAD | SemanticVAD | ManualTurns


@dataclass(frozen=True, slots=True)
class Transcription:
    """The model that writes down what the person says, beside the one that talks.

    ``language`` and ``languages`` are ISO 639-1 codes; ``keywords`` and ``languages`` are for
    ``gpt-transcribe`` and ``gpt-live-transcribe``, ``delay`` is for ``gpt-realtime-whisper``.
    """

    model: str = "gpt-transcribe"
    language: str | None = None
    prompt: str | None = None
    delay: str | None = None
    keywords: Sequence[str] = ()
    languages: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError(
                "model must be the name of a transcription model, such as gpt-transcribe"
            )
        if self.delay is not None:
            check_choice("delay", self.delay, TRANSCRIPTION_DELAYS)
        for name, words in (("keywords", self.keywords), ("languages", self.languages)):
            if isinstance(words, str):
                raise ConfigError(f"{name} must be a list of strings, not one string")


@dataclass(frozen=True, slots=True)
class NoiseReduction:
    """Filter input audio at the server, for a headset or a microphone across the room."""

    type: Literal["near_field", "far_field"]
    strength: float | None = None

    def __post_init__(self) -> None:
        check_choice("noise reduction", self.type, ("near_field", "far_field"))
        if self.strength is not None and self.strength < 0:
            raise ConfigError(f"strength must be 0 or more, not {self.strength}")


@dataclass(frozen=True, slots=True)
class RetentionRatio:
    """How the server shortens an overlong conversation: the share of it that is kept.

    ``post_instructions`` is the maximum number of tokens after the instructions.
    """

    retention_ratio: float
    post_instructions: int | None = None

    def __post_init__(self) -> None:
        check_range("retention_ratio", self.retention_ratio, 0, 1)
        if self.post_instructions is not None and self.post_instructions < 1:
            raise ConfigError(f"post_instructions must be 1 or more, not {self.post_instructions}")


type Truncation = Literal["auto", "disabled"] | RetentionRatio


@dataclass(frozen=True, slots=True)
class CustomVoice:
    """A custom voice, by the id that OpenAI gave it (``voice_...``)."""

    id: str

    def __post_init__(self) -> None:
        if not self.id:
            raise ConfigError("id must be the id of a voice, such as voice_1234")


@dataclass(frozen=True, slots=True)
class RealtimeConfig:
    """Everything that a session of OpenAI Realtime can be told; raises `ConfigError`.

    None (and, for ``turn_detection`` and ``transcription``, their defaults) is explained at
    `Realtime`.
    """

    model: str = "gpt-realtime-2.1"
    voice: str | CustomVoice = "marin"
    turn_detection: TurnDetection = ServerVAD()
    transcription: Transcription | None = Transcription()
    noise_reduction: NoiseReduction | None = None
    speed: float | None = None
    reasoning_effort: Effort | None = None
    max_output_tokens: int | str | None = None
    tool_choice: str | None = None
    truncation: Truncation | None = None
    parallel_tool_calls: bool | None = None

    def __post_init__(self) -> None:
        _check_string("model", self.model, "the name of a model, such as gpt-realtime-2.1")
        if not isinstance(self.voice, CustomVoice):
            check_voice(self.voice, VOICES, "or CustomVoice(id)")
        if not isinstance(self.turn_detection, ServerVAD | SemanticVAD | ManualTurns):
            raise ConfigError("turn_detection must be ServerVAD, SemanticVAD or ManualTurns")
        if not isinstance(self.transcription, Transcription | None):
            raise ConfigError(
                f"transcription must be Transcription(model) or None, not {self.transcription!r}"
            )
        if not isinstance(self.noise_reduction, NoiseReduction | None):
            raise ConfigError(
                "noise_reduction must be NoiseReduction(type) or None, "
                f"not {self.noise_reduction!r}"
            )
        if self.speed is not None:
            check_range("speed", self.speed, 0.25, 1.5)
        if self.reasoning_effort is not None:
            check_choice("reasoning_effort", self.reasoning_effort, REASONING_EFFORTS)
            self._require_reasoning("reasoning_effort")
        if self.parallel_tool_calls is not None:
            self._require_reasoning("parallel_tool_calls")
        limit = self.max_output_tokens
        if limit is not None and limit != "inf":
            if isinstance(limit, bool) or not isinstance(limit, int):
                raise ConfigError(f"max_output_tokens must be a number or 'inf', not {limit!r}")
            check_range("max_output_tokens", limit, 1, MAX_OUTPUT_TOKENS)
        if self.tool_choice is not None:
            choices = "auto, none, required or the name of a function"
            _check_string("tool_choice", self.tool_choice, choices)
        if isinstance(self.truncation, str):
            check_choice("truncation", self.truncation, ("auto", "disabled"), "or RetentionRatio")
        elif not isinstance(self.truncation, RetentionRatio | None):
            raise ConfigError(
                "truncation must be auto, disabled or RetentionRatio(ratio), "
                f"not {self.truncation!r}"
            )

    def _require_reasoning(self, name: str) -> None:
        # An unknown name may be a newer model, or a deployment of one.
        if self.model == "gpt-realtime" or self.model.startswith(_NON_REASONING):
            raise ConfigError(f"{name} is for gpt-realtime-2 and later, not {self.model}")


def _check_string(name: str, value: object, what: str) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} must be {what}, not {value!r}")
