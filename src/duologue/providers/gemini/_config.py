"""Options of a Gemini Live session; values are checked when they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from duologue.errors import ConfigError
from duologue.json_types import JsonObject
from duologue.providers._options import (
    NetworkOptions,
    audio_only,
    between,
    instance_of,
    one_of,
    option,
    positive,
    text,
    voice_name,
)
from duologue.providers._validate import check_choice, check_range
from duologue.providers.gemini._models import model_traits
from duologue.providers.gemini._vertex import Vertex
from duologue.realtime.network import ApiKey
from duologue.realtime.options import (
    ManualTurns,
    ServerVAD,
    Transcription,
    check_supported,
)

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
class AutomaticActivity(ServerVAD):
    """`ServerVAD` with the options that only Gemini has; None leaves a value to the server.

    Args:
        start_sensitivity: How readily speech is taken to begin.
        end_sensitivity: How readily speech is taken to end.
        coverage: What belongs to a turn: the speech only (``activity``), ``all`` input, or the
            speech and all video (``activity_and_all_video``).

    Raises:
        ConfigError: a value is out of range.
    """

    start_sensitivity: Sensitivity | None = None
    end_sensitivity: Sensitivity | None = None
    coverage: Coverage | None = None

    def __post_init__(self) -> None:
        ServerVAD.__post_init__(self)
        _check_optional_choice("start_sensitivity", self.start_sensitivity, ("high", "low"))
        _check_optional_choice("end_sensitivity", self.end_sensitivity, ("high", "low"))
        _check_optional_choice(
            "coverage", self.coverage, ("activity", "all", "activity_and_all_video")
        )


type TurnDetection = ServerVAD | ManualTurns

_SERVER_VAD_FIELDS = ("prefix_padding_ms", "silence_duration_ms", "interrupt_response")
_ACTIVITY_FIELDS = ("start_sensitivity", "end_sensitivity", "coverage")


def _check_turn_detection(name: str, value: object) -> None:
    if isinstance(value, ServerVAD):
        check_supported("Gemini", value, (*_SERVER_VAD_FIELDS, *_ACTIVITY_FIELDS))
    elif not isinstance(value, ManualTurns):
        raise ConfigError(
            f"{name} must be ServerVAD, AutomaticActivity or ManualTurns, not {value!r}"
        )


def _check_transcription(name: str, value: object) -> None:
    if not isinstance(value, Transcription | None):
        raise ConfigError(f"{name} must be Transcription() or None, not {value!r}")
    if value is not None:
        check_supported("Gemini", value, ("language", "languages", "keywords"))


def _check_compression(name: str, value: object) -> None:
    if not isinstance(value, Compression | None):
        raise ConfigError(f"{name} must be Compression() or None, not {value!r}")


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

    def to_json(self) -> JsonObject:
        """Return the value as the server expects it."""
        value: JsonObject = {}
        if self.level is not None:
            value["thinkingLevel"] = self.level.upper()
        if self.budget is not None:
            value["thinkingBudget"] = self.budget
        return value


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

    def to_json(self) -> JsonObject:
        """Return the value as the server expects it."""
        video: JsonObject = {"proactiveVideo": True} if self.video else {}
        return {"proactiveAudio": self.audio, **video}


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

    def to_json(self) -> JsonObject:
        """Return the value as the server expects it."""
        window: JsonObject = {}
        if self.target_tokens is not None:
            window["targetTokens"] = self.target_tokens
        value: JsonObject = {"slidingWindow": window}
        if self.trigger_tokens is not None:
            value["triggerTokens"] = self.trigger_tokens
        return value


@dataclass(frozen=True)
class LiveConfig(NetworkOptions):
    """All options of `Realtime`.

    Raises:
        ConfigError: a value is invalid, or the model does not support it.
    """

    model: str = option(
        "gemini-3.8-live",
        "see [models](#models)",
        check=text("the name of a model, such as gemini-3.8-live"),
    )
    voice: str | None = option(
        None,
        "one of the 30 prebuilt ones: Kore, Puck, Charon, Leda, Aoede, Zephyr, ...; another name "
        "goes to the service with a warning in the log",
        check=voice_name(*VOICES),
        json="generationConfig.speechConfig.voiceConfig.prebuiltVoiceConfig.voiceName",
    )
    _: KW_ONLY
    output: Literal["audio"] = option(
        "audio", "the models answer in audio only", check=audio_only("Gemini")
    )
    turn_detection: TurnDetection = option(
        ServerVAD(), "see [turns](#turns-and-barge-in)", check=_check_turn_detection
    )
    transcription: Transcription | None = option(
        Transcription(),
        "hints for the transcripts of the person; None: no transcripts, and the history does not "
        "have the person's words",
        check=_check_transcription,
    )
    output_transcription: Transcription | None = option(
        Transcription(),
        "hints for the transcripts of the model; None: no transcripts, so what the model said is "
        "unknown",
        check=_check_transcription,
    )
    video: Literal["images", "off"] = option(
        "images", "`off`: no images", check=one_of("images", "off")
    )
    fps: float = option(1.0, "images per second; Google recommends 1", check=positive)
    media_resolution: Resolution | None = option(
        None,
        "`low`, `medium` or `high`; see [video](#video)",
        check=one_of("low", "medium", "high"),
        json="generationConfig.mediaResolution",
        convert=lambda value: f"MEDIA_RESOLUTION_{value.upper()}",
    )
    skip_unchanged: bool = option(False, "leave out images that show nothing new")
    language: str | None = option(
        None,
        "of the model's speech, as BCP 47: `de-DE`",
        json="generationConfig.speechConfig.languageCode",
    )
    thinking: Thinking | None = option(
        None,
        '`Thinking(level="low")` or `Thinking(budget=256)`, depending on the [model](#models)',
        check=instance_of(Thinking, hint="Thinking(level) or Thinking(budget=...)"),
        json="generationConfig.thinkingConfig",
        convert=Thinking.to_json,
    )
    proactivity: Proactivity | None = option(
        None,
        "`Proactivity()`: the model may ignore what is not meant for it; "
        "`Proactivity(video=True)`: it may speak about what it sees",
        check=instance_of(Proactivity, hint="Proactivity()"),
        json="proactivity",
        convert=Proactivity.to_json,
    )
    affective_dialog: bool = option(False, "adapt the voice to the mood of the person")
    compression: Compression | None = option(
        Compression(),
        "drop the oldest turns of a long context; see [limits](#limits-and-new-connections)",
        check=_check_compression,
        json="contextWindowCompression",
        convert=Compression.to_json,
    )
    temperature: float | None = option(
        None, "0 to 2", check=between(0, 2), json="generationConfig.temperature"
    )
    top_p: float | None = option(None, "0 to 1", check=between(0, 1), json="generationConfig.topP")
    top_k: int | None = option(
        None, "1 to 1000", check=between(1, 1000), json="generationConfig.topK"
    )
    max_output_tokens: int | None = option(
        None, "1 to 65536", check=between(1, 65_536), json="generationConfig.maxOutputTokens"
    )
    seed: int | None = option(None, "any", json="generationConfig.seed")
    labels: Mapping[str, str] | None = option(
        None,
        "labels for billing; Gemini API only",
        json="labels",
        convert=dict,
    )
    report_truncation: bool = option(
        True, "tell the model [what was not heard](#what-the-model-is-sent)"
    )
    api_key: ApiKey | None = option(
        None,
        "a key, or a function that returns one for each connection; see [access](#access)",
        shown="`GEMINI_API_KEY`, `GOOGLE_API_KEY`",
        secret=True,
    )
    token: str | None = option(None, "an ephemeral token; see [access](#access)", secret=True)
    vertex: Vertex | None = option(None, "a project on Vertex AI; see [access](#access)")
    base_url: str | None = option(
        None,
        "address of the service; `GOOGLE_VERTEX_BASE_URL` for Vertex AI",
        shown="`GOOGLE_GEMINI_BASE_URL`, else Google",
        secret=True,
    )
    api_version: str | None = option(
        None,
        "`v1`; `v1alpha` with a token, or for options that only it has; `v1beta1` on Vertex AI",
    )

    def __post_init__(self) -> None:
        """Check the options, each and for the model."""
        super().__post_init__()
        if self.vertex is not None and self.labels:
            raise ConfigError("Vertex AI does not support labels: leave them out")
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
