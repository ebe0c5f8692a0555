"""Options of a Gemini Live session; values are checked when they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from duologue.errors import ConfigError
from duologue.providers._validate import check_choice, check_range, check_voice
from duologue.providers.gemini._models import model_traits

VOICES = (
    "Achernar", "Achird", "Algenib", "Algieba", "Alnilam", "Aoede", "Autonoe", "Callirrhoe",
    "Charon", "Despina", "Enceladus", "Erinome", "Fenrir", "Gacrux", "Iapetus", "Kore",
    "Laomedeia", "Leda", "Orus", "Puck", "Pulcherrima", "Rasalgethi", "Sadachbia", "Sadaltager",
    "Schedar", "Sulafat", "Umbriel", "Vindemiatrix", "Zephyr", "Zubenelgenubi",
)  # fmt: skip
"""The prebuilt voices, from Google's page on speech generation; any other name is passed on."""

type Sensitivity = Literal["high", "low"]
type Coverage = Literal["activity", "all", "activity_and_all_video"]
type Resolution = Literal["low", "medium", "high"]
type ThinkingLevel = Literal["minimal", "low", "medium", "high"]


def _check_optional_choice(name: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None:
        check_choice(name, value, allowed)


@dataclass(frozen=True, slots=True)
class AutomaticActivity:
    """The server detects speech; None leaves a value to the server.

    Args:
        start_sensitivity: How readily speech is taken to begin.
        end_sensitivity: How readily speech is taken to end.
        prefix_padding_ms: Milliseconds of speech before its start is reported.
        silence_duration_ms: Milliseconds of silence that end the speech.
        interrupts: False keeps the service from stopping the model when the person speaks
            (`activityHandling`). Interruptions are then up to the barge-in policy, which stops the
            audio here; with ``BargeInPolicy(enabled=False)`` the model finishes.
        coverage: What belongs to a turn: the speech only (``activity``), ``all`` input, or the
            speech and all video (``activity_and_all_video``).

    Raises:
        ConfigError: a value is out of range.
    """

    start_sensitivity: Sensitivity | None = None
    end_sensitivity: Sensitivity | None = None
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    interrupts: bool = True
    coverage: Coverage | None = None

    def __post_init__(self) -> None:
        _check_optional_choice("start_sensitivity", self.start_sensitivity, ("high", "low"))
        _check_optional_choice("end_sensitivity", self.end_sensitivity, ("high", "low"))
        _check_optional_choice(
            "coverage", self.coverage, ("activity", "all", "activity_and_all_video")
        )
        for name in ("prefix_padding_ms", "silence_duration_ms"):
            value = getattr(self, name)
            if value is not None:
                check_range(name, value, 0, 60_000)


@dataclass(frozen=True, slots=True)
class ManualTurns:
    """The program ends user turns with ``Realtime.end_turn``.

    A turn begins with the first audio after the model's own turn, or with ``interrupt``; the last
    second of audio before that belongs to it.
    """


type TurnDetection = AutomaticActivity | ManualTurns


@dataclass(frozen=True, slots=True)
class Transcription:
    """Hints for transcription.

    Args:
        language_codes: BCP 47 codes of the languages that are spoken.
        custom_vocabulary: Words that the service should recognise.

    Raises:
        ConfigError: a value is one string instead of a list.
    """

    language_codes: Sequence[str] = ()
    custom_vocabulary: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("language_codes", "custom_vocabulary"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} must be a list of strings, not one string")


@dataclass(frozen=True, slots=True)
class Thinking:
    """How much the model thinks before it speaks: a level or a budget, depending on the model.

    Args:
        level: ``minimal``, ``low``, ``medium`` or ``high``.
        budget: Tokens; 0 is off, -1 leaves it to the model.

    Raises:
        ConfigError: none or both are given, or a value is out of range.
    """

    level: ThinkingLevel | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        _check_optional_choice("thinking level", self.level, ("minimal", "low", "medium", "high"))
        if (self.level is None) == (self.budget is None):
            raise ConfigError("Thinking needs either a level or a budget")
        if self.budget is not None:
            check_range("thinking budget", self.budget, -1, 65_536)


@dataclass(frozen=True, slots=True)
class Proactivity:
    """The model may ignore audio that is not meant for it.

    Args:
        audio: Let the model ignore audio.
        video: Let the model speak about what it sees, unasked.

    Raises:
        ConfigError: ``video`` without ``audio``.
    """

    audio: bool = True
    video: bool = False

    def __post_init__(self) -> None:
        if self.video and not self.audio:
            raise ConfigError("Proactivity needs audio=True for video=True")


@dataclass(frozen=True, slots=True)
class Compression:
    """How the service shortens a long context, so that a session has no time limit.

    Args:
        trigger_tokens: Tokens above which the oldest turns are dropped; None leaves it to the
            server.
        target_tokens: Tokens that are kept; None leaves it to the server.

    Raises:
        ConfigError: a value is below 1, or the target is above the trigger.
    """

    trigger_tokens: int | None = None
    target_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("trigger_tokens", "target_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more, not {value}")
        if self.trigger_tokens and self.target_tokens and self.target_tokens > self.trigger_tokens:
            raise ConfigError("target_tokens can't be above trigger_tokens")


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """All options of a Gemini Live session, as `Realtime` documents them.

    Raises:
        ConfigError: a value is invalid, or the model does not support it.
    """

    model: str = "gemini-3.8-live"
    voice: str | None = None
    language: str | None = None
    media_resolution: Resolution | None = None
    turn_detection: TurnDetection = AutomaticActivity()
    input_transcription: Transcription | None = Transcription()
    output_transcription: Transcription | None = Transcription()
    thinking: Thinking | None = None
    proactivity: Proactivity | None = None
    affective_dialog: bool = False
    compression: Compression | None = Compression()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_output_tokens: int | None = None
    seed: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model must be the name of a model, such as gemini-3.8-live")
        if self.voice is not None:
            check_voice(self.voice, VOICES)
        _check_optional_choice("media_resolution", self.media_resolution, ("low", "medium", "high"))
        if not isinstance(self.turn_detection, AutomaticActivity | ManualTurns):
            raise ConfigError("turn_detection must be AutomaticActivity or ManualTurns")
        for name, low, high in (
            ("temperature", 0, 2),
            ("top_p", 0, 1),
            ("top_k", 1, 1000),
            ("max_output_tokens", 1, 65_536),
        ):
            value = getattr(self, name)
            if value is not None:
                check_range(name, value, low, high)
        self._check_model()

    def _check_model(self) -> None:
        traits, model = model_traits(self.model), self.model
        if self.thinking is not None:
            if traits.thinking == "none":
                raise ConfigError(f"{model} does not support thinking: leave it out")
            if traits.thinking == "level" and self.thinking.level is None:
                raise ConfigError(f"{model} needs Thinking(level=...), not a budget")
            if traits.thinking == "budget" and self.thinking.budget is None:
                raise ConfigError(f"{model} needs Thinking(budget=...), not a level")
        proactivity = self.proactivity
        if proactivity is not None:
            if traits.proactivity == "none":
                raise ConfigError(f"{model} does not support proactivity: leave it out")
            if traits.proactivity == "always" and not proactivity.audio:
                raise ConfigError(f"{model} is always proactive: audio=False is an error with it")
        if self.affective_dialog and not traits.affective_dialog:
            raise ConfigError(f"{model} does not support affective dialog: leave it out")
