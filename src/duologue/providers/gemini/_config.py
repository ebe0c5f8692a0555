"""What a Gemini Live session is set up with: values checked when they are given."""

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
"""The prebuilt ones, by Google's page on speech generation; another name is passed on."""

type Sensitivity = Literal["high", "low"]
type Coverage = Literal["activity", "all", "activity_and_all_video"]
type Resolution = Literal["low", "medium", "high"]
type ThinkingLevel = Literal["minimal", "low", "medium", "high"]


def _check_optional_choice(name: str, value: str | None, allowed: Sequence[str]) -> None:
    if value is not None:
        check_choice(name, value, allowed)


@dataclass(frozen=True, slots=True)
class AutomaticActivity:
    """The server finds when the person speaks; times in ms, None leaves a value to the server.

    ``interrupts=False``: the service does not stop the model for the person's voice
    (`activityHandling`). Interruptions are left to the barge-in policy, which stops it here; with
    ``BargeInPolicy(enabled=False)`` the model finishes.
    ``coverage``: what belongs to a turn, beside the speech: nothing, ``all`` input, or the speech
    and ``activity_and_all_video``.
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
    """The program ends the turns of the person by ``Realtime.end_turn``.

    A turn begins with the first sound when the model's own turn is over, or with ``interrupt``; a
    second of what was said before belongs to it.
    """


type TurnDetection = AutomaticActivity | ManualTurns


@dataclass(frozen=True, slots=True)
class Transcription:
    """What helps the server to write down what was said: ``language_codes`` are BCP 47."""

    language_codes: Sequence[str] = ()
    custom_vocabulary: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("language_codes", "custom_vocabulary"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} takes a list of strings, not one string")


@dataclass(frozen=True, slots=True)
class Thinking:
    """How much the model thinks before it speaks, for models that can: one of the two.

    ``budget`` is in tokens: 0 is off, -1 leaves it to the model.
    """

    level: ThinkingLevel | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        _check_optional_choice("thinking level", self.level, ("minimal", "low", "medium", "high"))
        if (self.level is None) == (self.budget is None):
            raise ConfigError("Thinking takes a level or a budget")
        if self.budget is not None:
            check_range("thinking budget", self.budget, -1, 65_536)


@dataclass(frozen=True, slots=True)
class Proactivity:
    """The model may leave unanswered what is not meant for it; ``video``: speak of a picture."""

    audio: bool = True
    video: bool = False

    def __post_init__(self) -> None:
        if self.video and not self.audio:
            raise ConfigError("Proactivity takes video=True only together with audio=True")


@dataclass(frozen=True, slots=True)
class Compression:
    """How a context that grows long is shortened, so that a session has no time limit; in tokens.

    None are left to the server: beyond ``trigger_tokens`` the oldest turns go until
    ``target_tokens`` are left.
    """

    trigger_tokens: int | None = None
    target_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("trigger_tokens", "target_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} takes 1 or more, not {value}")
        if self.trigger_tokens and self.target_tokens and self.target_tokens > self.trigger_tokens:
            raise ConfigError("target_tokens can't be above trigger_tokens")


@dataclass(frozen=True, slots=True)
class LiveConfig:
    """Everything that a session of Gemini Live can be told; raises `ConfigError`.

    None is explained at `Realtime`.
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
            raise ConfigError("model takes the name of a model, such as gemini-3.8-live")
        if self.voice is not None:
            check_voice(self.voice, VOICES)
        _check_optional_choice("media_resolution", self.media_resolution, ("low", "medium", "high"))
        if not isinstance(self.turn_detection, AutomaticActivity | ManualTurns):
            raise ConfigError("turn_detection takes AutomaticActivity or ManualTurns")
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
                raise ConfigError(f"{model} takes no thinking: leave it out")
            if traits.thinking == "level" and self.thinking.level is None:
                raise ConfigError(f"{model} takes Thinking(level=...), not a budget")
            if traits.thinking == "budget" and self.thinking.budget is None:
                raise ConfigError(f"{model} takes Thinking(budget=...), not a level")
        proactivity = self.proactivity
        if proactivity is not None:
            if traits.proactivity == "none":
                raise ConfigError(f"{model} takes no proactivity: leave it out")
            if traits.proactivity == "always" and not proactivity.audio:
                raise ConfigError(f"{model} is always proactive: audio=False is an error there")
        if self.affective_dialog and not traits.affective_dialog:
            raise ConfigError(f"{model} has no affective dialog: leave it out")
