"""The configuration of a session: the client's ``setup`` and the changes of ``contextUpdate``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from duologue.json_types import Json, JsonObject
from duologue.realtime.commands import ToolSpec
from duologue.simulators._fields import flag_at, int_at, objects_at, text_at, value_at
from duologue.simulators.gemini._json_shapes import POLICY, RefusedError, camel
from duologue.simulators.gemini._models import ModelRules, rules_of

type Behavior = Literal["BLOCKING", "NON_BLOCKING"]

INVALID_ARGUMENT = "Request contains an invalid argument."
"""The service's message for most invalid requests."""

_FRAME_MS = 20
_PREFIX_MS = 300
_THRESHOLDS = {"HIGH": 0.5, "LOW": 0.9}
_SILENCE_MS = {"HIGH": 500, "LOW": 1000}
_MAX_MS = 60_000


@dataclass(frozen=True, slots=True)
class Detection:
    """How turns are detected. Times in ms; ``start_frames`` loud frames of 20 ms begin a turn."""

    threshold: float
    prefix_ms: int
    silence_ms: int
    start_frames: int


@dataclass(frozen=True, slots=True)
class Compression:
    """Above ``trigger`` tokens, drop the oldest turns down to ``target``."""

    trigger: int
    target: int


@dataclass(frozen=True, slots=True)
class Setup:
    """A valid setup. ``value`` is its JSON with names in camelCase."""

    value: JsonObject
    vertex: bool = False

    @property
    def model(self) -> str:
        """The model, with the path before its name."""
        return text_at(self.value, "model")

    @property
    def rules(self) -> ModelRules:
        """The rules of that model."""
        return rules_of(self.model)

    @property
    def text_output(self) -> bool:
        """Whether the model replies in text instead of audio."""
        return value_at(self.value, "generationConfig", "responseModalities") == ["TEXT"]

    @property
    def transcribes_input(self) -> bool:
        """Whether the client wants the user's transcripts."""
        return "inputAudioTranscription" in self.value

    @property
    def transcribes_output(self) -> bool:
        """Whether the client wants the transcripts of the model's audio."""
        return "outputAudioTranscription" in self.value

    @property
    def sends_thoughts(self) -> bool:
        """Whether the model sends its thoughts."""
        config = value_at(self.value, "generationConfig", "thinkingConfig")
        if not self.rules.sends_thoughts or value_at(config, "thinkingBudget") == 0:
            return False
        return flag_at(config, "includeThoughts", default=True)

    @property
    def manual(self) -> bool:
        """Whether the client marks the start and end of user turns."""
        config = value_at(self.value, "realtimeInputConfig", "automaticActivityDetection")
        return flag_at(config, "disabled")

    @property
    def detection(self) -> Detection | None:
        """How turns are detected; None if the client marks them."""
        if self.manual:
            return None
        config = value_at(self.value, "realtimeInputConfig", "automaticActivityDetection")
        # The SDK's types say that unspecified means HIGH, and LOW on Vertex AI.
        default = "LOW" if self.vertex else "HIGH"
        start = text_at(config, "startOfSpeechSensitivity").rpartition("_")[2]
        end = text_at(config, "endOfSpeechSensitivity").rpartition("_")[2]
        silence = _SILENCE_MS.get(end, _SILENCE_MS[default])
        needed = int_at(config, "prefixPaddingMs", default=2 * _FRAME_MS)
        return Detection(
            threshold=_THRESHOLDS.get(start, _THRESHOLDS[default]),
            prefix_ms=_MAX_MS if self.covers_all else _PREFIX_MS,
            silence_ms=int_at(config, "silenceDurationMs", default=silence),
            start_frames=max(1, -(-needed // _FRAME_MS)),
        )

    @property
    def interrupts(self) -> bool:
        """Whether the user's speech interrupts the model."""
        handling = text_at(self.value, "realtimeInputConfig", "activityHandling")
        return handling != "NO_INTERRUPTION"

    @property
    def covers_all(self) -> bool:
        """Whether turns include the silence before the speech."""
        coverage = text_at(self.value, "realtimeInputConfig", "turnCoverage")
        return coverage == "TURN_INCLUDES_ALL_INPUT"

    @property
    def resumable(self) -> bool:
        """Whether the client wants handles to resume the session."""
        return "sessionResumption" in self.value

    @property
    def handle(self) -> str:
        """The handle of the session to resume; empty for a new session."""
        return text_at(self.value, "sessionResumption", "handle")

    @property
    def transparent(self) -> bool:
        """Whether the client wants to know which of its messages a handle includes."""
        return flag_at(self.value, "sessionResumption", "transparent")

    @property
    def compression(self) -> Compression | None:
        """When and how far the context is compressed; None for never."""
        config = value_at(self.value, "contextWindowCompression")
        if config is None:
            return None
        # The trigger is 80 % of the model's context in the API's reference, and the target half of
        # the trigger in the SDK's types.
        trigger = int_at(config, "triggerTokens") or 104_857
        return Compression(trigger, int_at(config, "slidingWindow", "targetTokens") or trigger // 2)

    @property
    def begins_with_history(self) -> bool:
        """Whether the first ``clientContent`` is history and gets no reply."""
        return flag_at(self.value, "historyConfig", "initialHistoryInClientContent")

    @property
    def vad_signal(self) -> bool:
        """Whether the client wants to know when speech starts and ends."""
        return flag_at(self.value, "explicitVadSignal")

    @property
    def image_tokens(self) -> int:
        """Tokens that one image costs."""
        resolution = text_at(self.value, "generationConfig", "mediaResolution")
        return 64 if resolution.endswith("LOW") else 258

    @property
    def system_instruction(self) -> str:
        """The system instruction."""
        parts = objects_at(self.value, "systemInstruction", "parts")
        return "\n".join(text_at(part, "text") for part in parts if text_at(part, "text"))

    @property
    def declarations(self) -> list[JsonObject]:
        """The declarations of the functions that the model may call."""
        return [
            function
            for tool in objects_at(self.value, "tools")
            for function in objects_at(tool, "functionDeclarations")
        ]

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The functions that the model may call."""
        return tuple(
            ToolSpec(text_at(one, "name"), text_at(one, "description"), _parameters(one))
            for one in self.declarations
        )

    def behavior(self, name: str) -> Behavior:
        """Return whether the model waits for the result of that function."""
        for one in self.declarations:
            if text_at(one, "name") == name and text_at(one, "behavior") in _BEHAVIORS:
                return _BEHAVIORS[text_at(one, "behavior")]
        return "NON_BLOCKING" if self.rules.non_blocking_by_default else "BLOCKING"

    def with_update(self, change: JsonObject) -> Setup:
        """Return the setup with changed instructions or tools."""
        value = dict(self.value)
        if "systemInstruction" in change:
            value["systemInstruction"] = change["systemInstruction"]
        if "tools" in change:
            value["tools"] = value_at(change, "tools", "tools") or []
        return Setup(value, self.vertex)


_BEHAVIORS: Mapping[str, Behavior] = {"BLOCKING": "BLOCKING", "NON_BLOCKING": "NON_BLOCKING"}


def validate_setup(
    value: JsonObject, *, vertex: bool, version: str, unknown: frozenset[str]
) -> Setup:
    """Check a client's setup; ``unknown`` models are refused. Raises `RefusedError`."""
    setup = Setup(value, vertex)
    model = setup.model
    if not model:
        raise RefusedError("setup.model is required.")
    if not model.startswith(("models/", "publishers/", "projects/")):
        raise RefusedError(f"Invalid model name: {model[:40]}")
    if model.rpartition("/")[2] in unknown:
        raise RefusedError(
            f"{model} is not found for API version {version}, or is not supported for "
            "bidiGenerateContent. Call ListModels to see the list of available models.",
            POLICY,
        )
    _check_generation(setup)
    _check_numbers(setup)
    rules = setup.rules
    if (
        not rules.proactive_audio_optional
        and value_at(value, "proactivity", "proactiveAudio") is False
    ):
        raise RefusedError(INVALID_ARGUMENT)
    return setup


def _check_generation(setup: Setup) -> None:
    rules, generation = setup.rules, value_at(setup.value, "generationConfig")
    modalities = value_at(generation, "responseModalities")
    requested = modalities if isinstance(modalities, list) and modalities else ["AUDIO"]
    if requested not in (["AUDIO"], ["TEXT"]) or (requested == ["TEXT"] and not rules.text_output):
        shown = ", ".join(str(one) for one in requested)
        raise RefusedError(
            f"The requested combination of response modalities ({shown}) is not supported by the "
            "model."
        )
    if not rules.thinking_level and value_at(generation, "thinkingConfig", "thinkingLevel"):
        raise RefusedError("Thinking level is not supported for this model.")
    if not rules.affective_dialog and value_at(generation, "enableAffectiveDialog"):
        raise RefusedError(INVALID_ARGUMENT)


def _check_numbers(setup: Setup) -> None:
    config = value_at(setup.value, "realtimeInputConfig", "automaticActivityDetection")
    for name in ("prefixPaddingMs", "silenceDurationMs"):
        if not 0 <= int_at(config, name) <= _MAX_MS:
            raise RefusedError(INVALID_ARGUMENT)
    compression = setup.compression
    if compression is not None and not 0 <= compression.target < compression.trigger:
        raise RefusedError(INVALID_ARGUMENT)


def _parameters(function: JsonObject) -> JsonObject:
    """Return the JSON schema of a function's arguments, which may also come as a `Schema`.

    `Schema` is the protocol's own form, with types in capitals.
    """
    schema = function.get("parametersJsonSchema")
    if not isinstance(schema, dict):
        schema = _json_schema(function.get("parameters"))
    return schema if isinstance(schema, dict) else {"type": "object", "properties": {}}


def _json_schema(value: Json) -> Json:
    match value:
        case dict():
            return {camel(key): _schema_value(key, one) for key, one in value.items()}
        case list():
            return [_json_schema(one) for one in value]
        case _:
            return value


def _schema_value(key: str, value: Json) -> Json:
    if key == "type" and isinstance(value, str):
        return value.lower()
    if key == "properties" and isinstance(value, dict):
        return {name: _json_schema(one) for name, one in value.items()}
    return _json_schema(value)


def content_text(content: JsonObject) -> str:
    """Return the text of a content."""
    parts = objects_at(content, "parts")
    return " ".join(text_at(part, "text") for part in parts if text_at(part, "text"))
