"""Encode the setup of a Gemini Live session as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.providers._json_fields import deep_merge as merge_objects
from duologue.providers._options import json_fields
from duologue.providers.gemini._config import AutomaticActivity, LiveConfig
from duologue.providers.gemini._contents import text_content
from duologue.providers.gemini._models import model_traits
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import Scheduling, ToolSpec, UpdateSession
from duologue.realtime.options import ManualTurns, Transcription

SCHEDULINGS: Mapping[Scheduling, str] = {
    "silent": "SILENT",
    "when_idle": "WHEN_IDLE",
    "interrupt": "INTERRUPT",
}
_COVERAGES = {
    "activity": "TURN_INCLUDES_ONLY_ACTIVITY",
    "all": "TURN_INCLUDES_ALL_INPUT",
    "activity_and_all_video": "TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
}


def setup_message(
    config: LiveConfig,
    setup: SessionSetup,
    *,
    model: str,
    handle: str | None = None,
    transparent: bool = False,
    seeded: bool = False,
) -> dict[str, JsonObject]:
    """Return the first message of a connection.

    Args:
        config: The options of the session.
        setup: Instructions, tools and history.
        model: Full resource name of the model.
        handle: Handle of the session to resume.
        transparent: Ask for transparent resumption, which only Vertex AI has.
        seeded: A history follows.
    """
    traits = model_traits(config.model)
    resumption: JsonObject = {}
    if handle is not None:
        resumption["handle"] = handle
    if transparent:
        resumption["transparent"] = True
    generation: JsonObject = {"responseModalities": ["AUDIO"]}
    if config.affective_dialog:
        generation["enableAffectiveDialog"] = True
    value: JsonObject = {
        "model": model,
        "generationConfig": generation,
        "sessionResumption": resumption,
        "realtimeInputConfig": _input_config(config),
    }
    if setup.instructions:
        value["systemInstruction"] = system_content(setup.instructions)
    if setup.tools:
        value["tools"] = tool_list(setup.tools, traits.async_tools != "none")
    for key, transcription in (
        ("inputAudioTranscription", config.transcription),
        ("outputAudioTranscription", config.output_transcription),
    ):
        if transcription is not None:
            value[key] = _transcription_config(transcription)
    if seeded and traits.seeds:
        value["historyConfig"] = {"initialHistoryInClientContent": True}
    value = merge_objects(value, json_fields(config))
    return {"setup": deep_merge(value, config.extra or {})}


def check_extra(extra: Mapping[str, Json]) -> None:
    """Reject fields that have an option of their own, or would break the session.

    Raises:
        ConfigError: ``extra`` has such a field.
    """
    value = deep_merge({"realtimeInputConfig": {}, "generationConfig": {}, "model": ""}, extra)
    if value["model"]:
        raise ConfigError("extra can't have the model: give it as model")
    if any(camel_case(name) == "sessionResumption" for name in extra):
        raise ConfigError("extra can't have sessionResumption: the session sets it itself")
    input_config, generation = value["realtimeInputConfig"], value["generationConfig"]
    detection = _find_field(input_config, "automaticActivityDetection")
    if _find_field(detection, "disabled") is not None:
        raise ConfigError("extra can't have disabled: give turn_detection=ManualTurns()")
    if _find_field(generation, "responseModalities") not in (None, ["AUDIO"]):
        raise ConfigError(
            "responseModalities can't be in extra, because Gemini answers in audio only: leave it "
            "out, or use openai.Realtime or qwen.Realtime with output='text'"
        )


def _find_field(value: Json, name: str) -> Json:
    """Return the field of an object that has this name in camelCase or snake_case."""
    if not isinstance(value, dict):
        return None
    return next((one for key, one in value.items() if camel_case(key) == name), None)


def update_message(
    config: LiveConfig, change: UpdateSession, *, extra: Mapping[str, Json]
) -> JsonObject | None:
    """Return the message that changes a session, or None if nothing changes.

    Args:
        config: The options of the session.
        change: The new instructions and tools.
        extra: JSON of the setup; its tools are kept.
    """
    update: JsonObject = {}
    if change.instructions is not None:
        update["systemInstruction"] = system_content(change.instructions)
    if change.tools is not None:
        tools: list[Json] = tool_list(
            change.tools, model_traits(config.model).async_tools != "none"
        )
        extra_tools = extra.get("tools")
        if isinstance(extra_tools, list):
            tools += extra_tools
        update["tools"] = {"tools": tools}
    return {"contextUpdate": update} if update else None


def system_content(instructions: str) -> JsonObject:
    """Return the instructions as the server takes them."""
    content = text_content(instructions)
    del content["role"]
    return content


def tool_list(tools: Sequence[ToolSpec], asynchronous: bool) -> list[Json]:
    """Return the tool declarations.

    Args:
        tools: The tools.
        asynchronous: The model can continue while a tool runs, so declare which tools allow that.
    """
    declarations: list[Json] = []
    for tool in tools:
        declaration: JsonObject = {
            "name": tool.name,
            "description": tool.description,
            "parametersJsonSchema": tool.parameters,
        }
        if asynchronous:
            declaration["behavior"] = "BLOCKING" if tool.scheduling is None else "NON_BLOCKING"
        declarations.append(declaration)
    return [{"functionDeclarations": declarations}] if declarations else []


def deep_merge(below: JsonObject, above: Mapping[str, Json]) -> JsonObject:
    """Merge two objects at every depth; ``above`` wins where both have a value.

    Lists of objects, such as tools, are joined. Names in ``above`` may be in snake_case.
    """
    value = dict(below)
    for name, one in above.items():
        key = camel_case(name) if name not in value and camel_case(name) in value else name
        old = value.get(key)
        if isinstance(old, dict) and isinstance(one, dict):
            value[key] = deep_merge(old, one)
        elif _are_objects(old) and _are_objects(one):
            value[key] = [*old, *one]
        else:
            value[key] = one
    return value


def camel_case(name: str) -> str:
    """Return a snake_case name in camelCase, as protocol buffers write it in JSON."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _are_objects(value: Json) -> TypeGuard[list[Json]]:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _input_config(config: LiveConfig) -> JsonObject:
    activity = config.turn_detection
    if isinstance(activity, ManualTurns):
        return {"automaticActivityDetection": {"disabled": True}}
    detection: JsonObject = {}
    value: JsonObject = {"automaticActivityDetection": detection}
    for key, ms in (
        ("prefixPaddingMs", activity.prefix_padding_ms),
        ("silenceDurationMs", activity.silence_duration_ms),
    ):
        if ms is not None:
            detection[key] = ms
    if activity.interrupt_response is False:
        value["activityHandling"] = "NO_INTERRUPTION"
    if isinstance(activity, AutomaticActivity):
        if activity.start_sensitivity is not None:
            sensitivity = f"START_SENSITIVITY_{activity.start_sensitivity.upper()}"
            detection["startOfSpeechSensitivity"] = sensitivity
        if activity.end_sensitivity is not None:
            sensitivity = f"END_SENSITIVITY_{activity.end_sensitivity.upper()}"
            detection["endOfSpeechSensitivity"] = sensitivity
        if activity.coverage is not None:
            value["turnCoverage"] = _COVERAGES[activity.coverage]
    return value


def _transcription_config(transcription: Transcription) -> JsonObject:
    value: JsonObject = {}
    language = [] if transcription.language is None else [transcription.language]
    languages: list[Json] = [*language, *transcription.languages]
    if languages:
        value["languageCodes"] = languages
    if transcription.keywords:
        value["customVocabulary"] = list(transcription.keywords)
    return value
