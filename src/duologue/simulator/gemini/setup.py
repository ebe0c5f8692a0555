"""What a session is to be: the client's ``setup``, and what ``contextUpdate`` makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from duologue.items import Json
from duologue.realtime.commands import ToolSpec
from duologue.simulator.fields import Object, flag_at, inside, int_at, objects_at, text_at
from duologue.simulator.gemini.models import ModelRules, rules_of
from duologue.simulator.gemini.shapes import POLICY, RefusedError, camel

type Behavior = Literal["BLOCKING", "NON_BLOCKING"]

GENERAL = "Request contains an invalid argument."
"""What the service says of most that is wrong."""

_FRAME_MS = 20
_PREFIX_MS = 300
_LOUD = {"HIGH": 0.5, "LOW": 0.9}
_SILENCE_MS = {"HIGH": 500, "LOW": 1000}
_MOST_MS = 60_000


@dataclass(frozen=True, slots=True)
class Detection:
    """How turns are found; times in ms, ``start_frames`` loud frames of 20 ms begin one."""

    threshold: float
    prefix_ms: int
    silence_ms: int
    start_frames: int


@dataclass(frozen=True, slots=True)
class Compression:
    """From ``trigger`` tokens on, the oldest turns are dropped down to ``target``."""

    trigger: int
    target: int


@dataclass(frozen=True, slots=True)
class Setup:
    """A setup that is good. ``value`` is as it came, with names in camelCase."""

    value: Object
    vertex: bool = False

    @property
    def model(self) -> str:
        """The model, with the path before its name."""
        return text_at(self.value, "model")

    @property
    def rules(self) -> ModelRules:
        """What holds for that model."""
        return rules_of(self.model)

    @property
    def text(self) -> bool:
        """The model answers in text, not in sound."""
        return inside(self.value, "generationConfig", "responseModalities") == ["TEXT"]

    @property
    def heard_words(self) -> bool:
        """The client wants the person's words."""
        return "inputAudioTranscription" in self.value

    @property
    def said_words(self) -> bool:
        """The client wants the words of the model's sound."""
        return "outputAudioTranscription" in self.value

    @property
    def thinks(self) -> bool:
        """Whether the model sends its thoughts."""
        config = inside(self.value, "generationConfig", "thinkingConfig")
        if not self.rules.thinks or inside(config, "thinkingBudget") == 0:
            return False
        return flag_at(config, "includeThoughts", default=True)

    @property
    def manual(self) -> bool:
        """The client says when the person speaks."""
        config = inside(self.value, "realtimeInputConfig", "automaticActivityDetection")
        return flag_at(config, "disabled")

    @property
    def detection(self) -> Detection | None:
        """How turns are found; None when the client says it."""
        if self.manual:
            return None
        config = inside(self.value, "realtimeInputConfig", "automaticActivityDetection")
        # The SDK's types say: unspecified is HIGH, and LOW on Vertex.
        usual = "LOW" if self.vertex else "HIGH"
        start = text_at(config, "startOfSpeechSensitivity").rpartition("_")[2]
        end = text_at(config, "endOfSpeechSensitivity").rpartition("_")[2]
        silence = _SILENCE_MS.get(end, _SILENCE_MS[usual])
        needed = int_at(config, "prefixPaddingMs", default=2 * _FRAME_MS)
        return Detection(
            threshold=_LOUD.get(start, _LOUD[usual]),
            prefix_ms=_MOST_MS if self.covers_all else _PREFIX_MS,
            silence_ms=int_at(config, "silenceDurationMs", default=silence),
            start_frames=max(1, -(-needed // _FRAME_MS)),
        )

    @property
    def interrupts(self) -> bool:
        """The person's speech stops the model's."""
        handling = text_at(self.value, "realtimeInputConfig", "activityHandling")
        return handling != "NO_INTERRUPTION"

    @property
    def covers_all(self) -> bool:
        """Turns include the silence before the speech."""
        coverage = text_at(self.value, "realtimeInputConfig", "turnCoverage")
        return coverage == "TURN_INCLUDES_ALL_INPUT"

    @property
    def resumable(self) -> bool:
        """The client wants handles by which it can come back."""
        return "sessionResumption" in self.value

    @property
    def handle(self) -> str:
        """The handle of the session that is to go on; empty for a new one."""
        return text_at(self.value, "sessionResumption", "handle")

    @property
    def transparent(self) -> bool:
        """The client wants to know which of its messages a handle includes."""
        return flag_at(self.value, "sessionResumption", "transparent")

    @property
    def compression(self) -> Compression | None:
        """When and how far the context is cut."""
        found = inside(self.value, "contextWindowCompression")
        if found is None:
            return None
        # The API's reference says: 80 % of the model's limit; the SDK's types: half of it is kept.
        trigger = int_at(found, "triggerTokens") or 104_857
        return Compression(trigger, int_at(found, "slidingWindow", "targetTokens") or trigger // 2)

    @property
    def seeded(self) -> bool:
        """The first ``clientContent`` is history, and is not answered."""
        return flag_at(self.value, "historyConfig", "initialHistoryInClientContent")

    @property
    def vad_signal(self) -> bool:
        """The client wants to be told when speech starts and ends."""
        return flag_at(self.value, "explicitVadSignal")

    @property
    def image_tokens(self) -> int:
        """What a picture costs."""
        resolution = text_at(self.value, "generationConfig", "mediaResolution")
        return 64 if resolution.endswith("LOW") else 258

    @property
    def system_instruction(self) -> str:
        """What the model is told."""
        parts = objects_at(self.value, "systemInstruction", "parts")
        return "\n".join(text_at(part, "text") for part in parts if text_at(part, "text"))

    @property
    def declarations(self) -> list[Object]:
        """The functions that the model may call, as they were declared."""
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
        """Whether the model waits for the answer of that function."""
        for one in self.declarations:
            if text_at(one, "name") == name and text_at(one, "behavior") in _BEHAVIORS:
                return _BEHAVIORS[text_at(one, "behavior")]
        return "NON_BLOCKING" if self.rules.non_blocking else "BLOCKING"

    def updated(self, change: Object) -> Setup:
        """The setup with other instructions or tools."""
        value = dict(self.value)
        if "systemInstruction" in change:
            value["systemInstruction"] = change["systemInstruction"]
        if "tools" in change:
            value["tools"] = inside(change, "tools", "tools") or []
        return Setup(value, self.vertex)


_BEHAVIORS: Mapping[str, Behavior] = {"BLOCKING": "BLOCKING", "NON_BLOCKING": "NON_BLOCKING"}


def setup_of(value: Object, *, vertex: bool, version: str, unknown: frozenset[str]) -> Setup:
    """The setup that a client asks for; ``unknown`` models are refused. Raises `RefusedError`."""
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
    if not rules.silent and inside(value, "proactivity", "proactiveAudio") is False:
        raise RefusedError(GENERAL)
    return setup


def _check_generation(setup: Setup) -> None:
    rules, generation = setup.rules, inside(setup.value, "generationConfig")
    modalities = inside(generation, "responseModalities")
    wanted = modalities if isinstance(modalities, list) and modalities else ["AUDIO"]
    if wanted not in (["AUDIO"], ["TEXT"]) or (wanted == ["TEXT"] and not rules.text):
        shown = ", ".join(str(one) for one in wanted)
        raise RefusedError(
            f"The requested combination of response modalities ({shown}) is not supported by the "
            "model."
        )
    if not rules.thinking_level and inside(generation, "thinkingConfig", "thinkingLevel"):
        raise RefusedError("Thinking level is not supported for this model.")
    if not rules.affective and inside(generation, "enableAffectiveDialog"):
        raise RefusedError(GENERAL)


def _check_numbers(setup: Setup) -> None:
    config = inside(setup.value, "realtimeInputConfig", "automaticActivityDetection")
    for name in ("prefixPaddingMs", "silenceDurationMs"):
        if not 0 <= int_at(config, name) <= _MOST_MS:
            raise RefusedError(GENERAL)
    compression = setup.compression
    if compression is not None and not 0 <= compression.target < compression.trigger:
        raise RefusedError(GENERAL)


def _parameters(function: Object) -> dict[str, Json]:
    """The JSON schema of a function's arguments: of `Schema`, types in capitals, or as it is."""
    schema = function.get("parametersJsonSchema")
    if not isinstance(schema, dict):
        schema = _json_schema(function.get("parameters"))
    return schema if isinstance(schema, dict) else {"type": "object", "properties": {}}


def _json_schema(value: Json) -> Json:
    match value:
        case dict():
            return {camel(key): _below(key, one) for key, one in value.items()}
        case list():
            return [_json_schema(one) for one in value]
        case _:
            return value


def _below(key: str, value: Json) -> Json:
    if key == "type" and isinstance(value, str):
        return value.lower()
    if key == "properties" and isinstance(value, dict):
        return {name: _json_schema(one) for name, one in value.items()}
    return _json_schema(value)


def texts_of(content: Object) -> str:
    """The words of a content."""
    parts = objects_at(content, "parts")
    return " ".join(text_at(part, "text") for part in parts if text_at(part, "text"))
