"""The setup of a Gemini Live session as JSON, from the config and what the agent wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from duologue.items import Json
from duologue.providers.gemini.config import (
    AutomaticActivity,
    LiveConfig,
    Transcription,
)
from duologue.providers.gemini.contents import text_content
from duologue.providers.gemini.models import traits_of
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import Scheduling, ToolSpec

type JsonObject = dict[str, Json]

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
    extra: Mapping[str, Json] | None = None,
) -> JsonObject:
    """The first message; ``model`` is its full name, ``handle`` of the session to resume.

    ``extra`` is merged into it deep and last.
    """
    traits = traits_of(config.model)
    resumption: JsonObject = {}
    if handle is not None:
        resumption["handle"] = handle
    if transparent:
        resumption["transparent"] = True
    value: JsonObject = {
        "model": model,
        "generationConfig": _generation(config),
        "sessionResumption": resumption,
        "realtimeInputConfig": _input_config(config),
    }
    if setup.instructions:
        value["systemInstruction"] = system_content(setup.instructions)
    if setup.tools:
        value["tools"] = tool_list(setup.tools, traits.async_tools != "none")
    if config.compression is not None:
        window: JsonObject = {}
        if config.compression.target_tokens is not None:
            window["targetTokens"] = config.compression.target_tokens
        compression: JsonObject = {"slidingWindow": window}
        if config.compression.trigger_tokens is not None:
            compression["triggerTokens"] = config.compression.trigger_tokens
        value["contextWindowCompression"] = compression
    for key, transcription in (
        ("inputAudioTranscription", config.input_transcription),
        ("outputAudioTranscription", config.output_transcription),
    ):
        if transcription is not None:
            value[key] = _transcription(transcription)
    if config.proactivity is not None:
        proactivity: JsonObject = {"proactiveAudio": config.proactivity.audio}
        if config.proactivity.video:
            proactivity["proactiveVideo"] = True
        value["proactivity"] = proactivity
    if handle is None and setup.history and traits.seeds:
        value["historyConfig"] = {"initialHistoryInClientContent": True}
    if config.labels:
        value["labels"] = dict(config.labels)
    return {"setup": merged(value, extra or {})}


def system_content(instructions: str) -> JsonObject:
    """The instructions, as the server takes them."""
    content = text_content(instructions)
    del content["role"]
    return content


def tool_list(tools: Sequence[ToolSpec], asynchronous: bool) -> list[Json]:
    """The tools; a model that need not wait for them is told of which it is to do so."""
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


def merged(below: JsonObject, above: Mapping[str, Json]) -> JsonObject:
    """Both objects as one, at every depth; where both have a value, ``above`` wins."""
    value = dict(below)
    for key, one in above.items():
        old = value.get(key)
        if isinstance(old, dict) and isinstance(one, dict):
            value[key] = merged(old, one)
        else:
            value[key] = one
    return value


def _generation(config: LiveConfig) -> JsonObject:
    value: JsonObject = {"responseModalities": ["AUDIO"]}
    for key, number in (
        ("temperature", config.temperature),
        ("topP", config.top_p),
        ("topK", config.top_k),
        ("maxOutputTokens", config.max_output_tokens),
        ("seed", config.seed),
    ):
        if number is not None:
            value[key] = number
    speech: JsonObject = {}
    if config.voice is not None:
        speech["voiceConfig"] = {"prebuiltVoiceConfig": {"voiceName": config.voice}}
    if config.language is not None:
        speech["languageCode"] = config.language
    if speech:
        value["speechConfig"] = speech
    if config.media_resolution is not None:
        value["mediaResolution"] = f"MEDIA_RESOLUTION_{config.media_resolution.upper()}"
    if config.thinking is not None:
        thinking: JsonObject = {}
        if config.thinking.level is not None:
            thinking["thinkingLevel"] = config.thinking.level.upper()
        if config.thinking.budget is not None:
            thinking["thinkingBudget"] = config.thinking.budget
        value["thinkingConfig"] = thinking
    if config.affective_dialog:
        value["enableAffectiveDialog"] = True
    return value


def _input_config(config: LiveConfig) -> JsonObject:
    activity = config.turn_detection
    if not isinstance(activity, AutomaticActivity):
        return {"automaticActivityDetection": {"disabled": True}}
    detection: JsonObject = {}
    for key, sensitivity, prefix in (
        ("startOfSpeechSensitivity", activity.start_sensitivity, "START_SENSITIVITY_"),
        ("endOfSpeechSensitivity", activity.end_sensitivity, "END_SENSITIVITY_"),
    ):
        if sensitivity is not None:
            detection[key] = f"{prefix}{sensitivity.upper()}"
    for key, ms in (
        ("prefixPaddingMs", activity.prefix_padding_ms),
        ("silenceDurationMs", activity.silence_duration_ms),
    ):
        if ms is not None:
            detection[key] = ms
    value: JsonObject = {"automaticActivityDetection": detection}
    if not activity.interrupts:
        value["activityHandling"] = "NO_INTERRUPTION"
    if activity.coverage is not None:
        value["turnCoverage"] = _COVERAGES[activity.coverage]
    return value


def _transcription(transcription: Transcription) -> JsonObject:
    value: JsonObject = {}
    if transcription.language_codes:
        value["languageCodes"] = list(transcription.language_codes)
    if transcription.custom_vocabulary:
        value["customVocabulary"] = list(transcription.custom_vocabulary)
    return value
