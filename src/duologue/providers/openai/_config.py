"""Options of an OpenAI Realtime session, checked when they are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from duologue._g711 import Law
from duologue._optional import is_installed
from duologue.errors import ConfigError, MissingExtraError
from duologue.json_types import Json, JsonObject
from duologue.providers._openai_protocol.dialect import Transport
from duologue.providers._options import (
    NetworkOptions,
    between,
    computed_option,
    instance_of,
    one_of,
    option,
    positive,
    text,
)
from duologue.providers._validate import check_choice, check_range, check_voice
from duologue.realtime.network import ApiKey
from duologue.realtime.options import (
    ManualTurns,
    SemanticVAD,
    ServerVAD,
    Transcription,
    TurnDetection,
    check_supported,
)
from duologue.rtc.config import IceServer

VOICES = (
    "alloy", "ash", "ballad", "cedar", "coral", "echo", "marin", "sage", "shimmer", "verse",
)  # fmt: skip
REASONING_EFFORTS = ("minimal", "low", "medium", "high", "xhigh")
TRANSCRIPTION_DELAYS = ("minimal", "low", "medium", "high", "xhigh")

_NON_REASONING = ("gpt-4o", "gpt-realtime-mini", "gpt-realtime-1", "gpt-realtime-20")
"""Prefixes of model names without reasoning; ``-20`` begins a year."""

PCM_RATE = 24000
"""Rate of 16-bit PCM each way in Hz; the server accepts no other."""
G711_RATE = 8000
"""Rate of G.711 in Hz."""

MAX_OUTPUT_TOKENS = 32000
"""Maximum tokens of one reply, by the model pages (the types of the SDK still say 4096)."""

type Effort = Literal["minimal", "low", "medium", "high", "xhigh"]


@dataclass(frozen=True, slots=True)
class NoiseReduction:
    """Filter input audio at the server, for a headset or a microphone across the room."""

    type: Literal["near_field", "far_field"]
    strength: float | None = None

    def __post_init__(self) -> None:
        check_choice("noise reduction", self.type, ("near_field", "far_field"))
        if self.strength is not None and self.strength < 0:
            raise ConfigError(f"strength must be 0 or more, not {self.strength}")

    def to_json(self) -> JsonObject:
        """Return the filter as the server expects it."""
        out: JsonObject = {"type": self.type}
        if self.strength is not None:
            out["strength"] = self.strength
        return out


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


def _check_voice(_: str, value: object) -> None:
    if not isinstance(value, CustomVoice):
        check_voice(value, VOICES, "or CustomVoice(id)")


def _check_turn_detection(name: str, value: object) -> None:
    match value:
        case ServerVAD():
            fields = ("prefix_padding_ms", "silence_duration_ms", "idle_timeout_ms", "threshold")
            check_supported("OpenAI", value, (*fields, "create_response", "interrupt_response"))
            for field, low, high in (
                ("threshold", 0, 1),
                ("prefix_padding_ms", 0, 10000),
                ("silence_duration_ms", 0, 10000),
                ("idle_timeout_ms", 5000, 30000),
            ):
                if getattr(value, field) is not None:
                    check_range(field, getattr(value, field), low, high)
        case SemanticVAD():
            check_supported("OpenAI", value, ("eagerness", "create_response", "interrupt_response"))
        case ManualTurns():
            pass
        case _:
            raise ConfigError(
                f"{name} must be ServerVAD, SemanticVAD or ManualTurns, not {value!r}"
            )


def _check_transcription(name: str, value: object) -> None:
    if not isinstance(value, Transcription | None):
        raise ConfigError(f"{name} must be Transcription(model) or None, not {value!r}")
    if value is not None and value.delay is not None:
        check_choice("delay", value.delay, TRANSCRIPTION_DELAYS)


def _check_max_output_tokens(name: str, value: object) -> None:
    if value == "inf":
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} must be a number or 'inf', not {value!r}")
    check_range(name, value, 1, MAX_OUTPUT_TOKENS)


def _check_truncation(name: str, value: object) -> None:
    if isinstance(value, str):
        check_choice(name, value, ("auto", "disabled"), "or RetentionRatio")
    elif not isinstance(value, RetentionRatio):
        raise ConfigError(f"{name} must be auto, disabled or RetentionRatio(ratio), not {value!r}")


def _installed_transport() -> Transport:
    return "webrtc" if is_installed("aiortc") else "websocket"


def _check_transport(name: str, value: object) -> None:
    check_choice(name, value, ("webrtc", "websocket"))
    if value == "webrtc" and not is_installed("aiortc"):
        raise MissingExtraError(
            "transport='webrtc' needs aiortc: pip install 'duologue[openai,webrtc]'", name="aiortc"
        )


def _tool_choice_json(choice: str) -> Json:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "name": choice}


def _truncation_json(value: Truncation) -> Json:
    if not isinstance(value, RetentionRatio):
        return value
    out: JsonObject = {"type": "retention_ratio", "retention_ratio": value.retention_ratio}
    if value.post_instructions is not None:
        out["token_limits"] = {"post_instructions": value.post_instructions}
    return out


def _voice_json(value: str | CustomVoice) -> Json:
    return {"id": value.id} if isinstance(value, CustomVoice) else value


@dataclass(frozen=True)
class RealtimeConfig(NetworkOptions):
    """All options of `Realtime`."""

    model: str = option(
        "gpt-realtime-2.1",
        "any Realtime model; an unknown name goes to the server unchanged",
        check=text("the name of a model, such as gpt-realtime-2.1"),
    )
    voice: str | CustomVoice = option(
        "marin",
        f"{', '.join(VOICES)}, or `CustomVoice(id)`; another name goes to the server with a "
        "warning in the log",
        check=_check_voice,
        json="audio.output.voice",
        convert=_voice_json,
    )
    _: KW_ONLY
    output: Literal["audio", "text"] = option(
        "audio",
        "`text`: the model hears, and answers in text, which the agent's `tts` speaks, see "
        "[half-cascade](../half-cascade.md)",
        check=one_of("audio", "text"),
    )
    transport: Transport = computed_option(
        _installed_transport,
        "`webrtc` or `websocket`, see [below](#transports)",
        shown="`webrtc` if `duologue[webrtc]` is installed, else `websocket`",
        check=_check_transport,
    )
    audio_format: Literal["pcm", "pcmu", "pcma"] = option(
        "pcm",
        "`pcmu` (mu-law) or `pcma` (A-law): G.711 both ways, as [telephones](../edges/telephone.md"
        '#audio-to-the-model) have it; needs `transport="websocket"`',
        check=one_of("pcm", "pcmu", "pcma"),
    )
    video: Literal["images", "track", "off"] = option(
        "images",
        "`track`: by a video track of WebRTC, which OpenAI does not document. `off`: no images",
        check=one_of("images", "track", "off"),
    )
    fps: float = option(1.0, "images per second", check=positive)
    images_kept: int = option(
        20,
        "images that stay in the conversation; the oldest is deleted",
        check=between(1, 1000, integer=True),
    )
    max_image_side: int = option(
        1024, "pixels of an image's longer side", check=between(16, 8192, integer=True)
    )
    turn_detection: TurnDetection = option(
        ServerVAD(), "see [turns](#turns)", check=_check_turn_detection
    )
    transcription: Transcription | None = option(
        Transcription(),
        "transcribes the person's speech (`gpt-transcribe`); None: the history does not have it",
        check=_check_transcription,
    )
    noise_reduction: NoiseReduction | None = option(
        None,
        '`NoiseReduction("near_field")` or `"far_field"`',
        check=instance_of(NoiseReduction, hint="NoiseReduction(type) or None"),
        json="audio.input.noise_reduction",
        convert=NoiseReduction.to_json,
    )
    speed: float | None = option(
        None, "0.25 to 1.5", check=between(0.25, 1.5), json="audio.output.speed"
    )
    reasoning_effort: Effort | None = option(
        None,
        "minimal, low, medium, high or xhigh; `gpt-realtime-2` and later",
        check=one_of(*REASONING_EFFORTS),
        json="reasoning.effort",
    )
    max_output_tokens: int | Literal["inf"] | None = option(
        None,
        '1 to 32000, or `"inf"`',
        check=_check_max_output_tokens,
        json="max_output_tokens",
    )
    tool_choice: str | None = option(
        None,
        "auto, none, required, or a function's name",
        check=text("auto, none, required or the name of a function"),
        json="tool_choice",
        convert=_tool_choice_json,
    )
    truncation: Truncation | None = option(
        None,
        '`"auto"`, `"disabled"` or `RetentionRatio(0.8)`',
        check=_check_truncation,
        json="truncation",
        convert=_truncation_json,
    )
    parallel_tool_calls: bool | None = option(
        None, "`gpt-realtime-2` and later", json="parallel_tool_calls"
    )
    api_key: ApiKey | None = option(
        None,
        "a key, or a function that returns one for each connection, see [keys](#keys)",
        shown="`OPENAI_API_KEY`",
        secret=True,
    )
    base_url: str | None = option(
        None, "address of the service", shown="`OPENAI_BASE_URL`, else OpenAI", secret=True
    )
    ice_servers: Sequence[IceServer] = option(
        (), "`IceServer`s, for WebRTC behind a strict firewall", shown="none", secret=True
    )

    def __post_init__(self) -> None:
        """Check the options, each and together."""
        super().__post_init__()
        if self.video == "track" and self.transport != "webrtc":
            raise ConfigError(
                f"a video track needs transport='webrtc', not {self.transport!r}; 'images' works "
                "with both"
            )
        if self.law is not None and self.transport != "websocket":
            raise ConfigError(
                f"audio_format={self.audio_format!r} needs transport='websocket': WebRTC has Opus"
            )
        if (self.extra or {}).get("output_modalities", ["audio"]) != ["audio"]:
            raise ConfigError("output_modalities can't be in extra: write output='text'")
        for name in ("reasoning_effort", "parallel_tool_calls"):
            if getattr(self, name) is not None:
                self._require_reasoning(name)

    @property
    def law(self) -> Law | None:
        """The G.711 law of the audio both ways; None for 16-bit PCM."""
        laws: dict[str, Law] = {"pcmu": "mulaw", "pcma": "alaw"}
        return laws.get(self.audio_format)

    @property
    def rate(self) -> int:
        """Rate of the audio both ways, in Hz."""
        return PCM_RATE if self.law is None else G711_RATE

    def _require_reasoning(self, name: str) -> None:
        # An unknown name may be a newer model, or a deployment of one.
        if self.model == "gpt-realtime" or self.model.startswith(_NON_REASONING):
            raise ConfigError(f"{name} is for gpt-realtime-2 and later, not {self.model}")
