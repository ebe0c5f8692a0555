"""The OpenAI Realtime session as JSON, from the options and the agent's setup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, assert_never

from duologue.json_types import Json, JsonObject
from duologue.providers._json_fields import deep_merge
from duologue.providers._openai_protocol.items import flat_tools
from duologue.providers.openai._config import (
    CustomVoice,
    ManualTurns,
    NoiseReduction,
    RealtimeConfig,
    RetentionRatio,
    SemanticVAD,
    ServerVAD,
    Transcription,
    Truncation,
    TurnDetection,
)
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import UpdateSession

RATE = 24000
"""Rate of the audio each way in Hz; the server accepts no other for PCM."""


@dataclass(frozen=True, slots=True)
class OpenAISession:
    """Builds OpenAI's session; ``extra`` is merged into it deep and last."""

    config: RealtimeConfig
    transport: Literal["webrtc", "websocket"]
    extra: Mapping[str, Json] = field(default_factory=dict, repr=False)

    def build(self, setup: SessionSetup) -> JsonObject:
        """Return the initial session."""
        return build_session(self.config, setup, transport=self.transport, extra=self.extra)

    def build_update(self, update: UpdateSession) -> JsonObject:
        """Return the session fields that change."""
        session: JsonObject = {"type": "realtime"}
        if update.instructions is not None:
            session["instructions"] = update.instructions
        if update.tools is not None:
            session["tools"] = flat_tools(update.tools)
        return session

    def build_ping(self) -> JsonObject:
        """Return a session without changes, which the server confirms."""
        return {"type": "realtime"}

    def build_turn_detection(self, detection: Json) -> JsonObject:
        """Return a session that changes only the turn detection."""
        return {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}


def build_session(
    config: RealtimeConfig,
    setup: SessionSetup,
    *,
    transport: Literal["webrtc", "websocket"] = "websocket",
    extra: Mapping[str, Json] | None = None,
) -> JsonObject:
    """Return the session as the server expects it; ``extra`` is merged into it deep and last.

    Over WebRTC the model is named here and the audio format is negotiated elsewhere; over a
    WebSocket it is the other way round. Without instructions the server uses its own.
    """
    audio_input: JsonObject = {
        "turn_detection": _turn_detection(config.turn_detection),
        "transcription": _transcription(config.transcription),
    }
    if config.noise_reduction is not None:
        audio_input["noise_reduction"] = _noise_reduction(config.noise_reduction)
    audio_output: JsonObject = {"voice": _voice(config.voice)}
    if config.speed is not None:
        audio_output["speed"] = config.speed
    session: JsonObject = {
        "type": "realtime",
        "output_modalities": ["audio"],
        "audio": {"input": audio_input, "output": audio_output},
    }
    if transport == "webrtc":
        session["model"] = config.model
    else:
        audio_input["format"] = {"type": "audio/pcm", "rate": RATE}
        audio_output["format"] = {"type": "audio/pcm", "rate": RATE}
    if setup.instructions:
        session["instructions"] = setup.instructions
    if setup.tools:
        session["tools"] = flat_tools(setup.tools)
    if config.tool_choice is not None:
        session["tool_choice"] = _tool_choice(config.tool_choice)
    if config.max_output_tokens is not None:
        session["max_output_tokens"] = config.max_output_tokens
    if config.truncation is not None:
        session["truncation"] = _truncation(config.truncation)
    if config.reasoning_effort is not None:
        session["reasoning"] = {"effort": config.reasoning_effort}
    if config.parallel_tool_calls is not None:
        session["parallel_tool_calls"] = config.parallel_tool_calls
    return deep_merge(session, extra or {})


def _turn_detection(value: TurnDetection) -> Json:
    match value:
        case ServerVAD():
            vad: JsonObject = {
                "type": "server_vad",
                "threshold": value.threshold,
                "prefix_padding_ms": value.prefix_padding_ms,
                "silence_duration_ms": value.silence_duration_ms,
                "create_response": value.create_response,
                "interrupt_response": value.interrupt_response,
            }
            if value.idle_timeout_ms is not None:
                vad["idle_timeout_ms"] = value.idle_timeout_ms
            return vad
        case SemanticVAD():
            return {
                "type": "semantic_vad",
                "eagerness": value.eagerness,
                "create_response": value.create_response,
                "interrupt_response": value.interrupt_response,
            }
        case ManualTurns():
            return None
        case _:
            assert_never(value)


def _transcription(value: Transcription | None) -> Json:
    if value is None:
        return None
    out: JsonObject = {"model": value.model}
    for name, text in (
        ("language", value.language),
        ("prompt", value.prompt),
        ("delay", value.delay),
    ):
        if text is not None:
            out[name] = text
    if value.keywords:
        out["keywords"] = list(value.keywords)
    if value.languages:
        out["languages"] = list(value.languages)
    return out


def _noise_reduction(value: NoiseReduction) -> Json:
    out: JsonObject = {"type": value.type}
    if value.strength is not None:
        out["strength"] = value.strength
    return out


def _voice(voice: str | CustomVoice) -> Json:
    return {"id": voice.id} if isinstance(voice, CustomVoice) else voice


def _tool_choice(choice: str) -> Json:
    if choice in ("auto", "none", "required"):
        return choice
    return {"type": "function", "name": choice}


def _truncation(value: Truncation) -> Json:
    if not isinstance(value, RetentionRatio):
        return value
    out: JsonObject = {"type": "retention_ratio", "retention_ratio": value.retention_ratio}
    if value.post_instructions is not None:
        out["token_limits"] = {"post_instructions": value.post_instructions}
    return out
