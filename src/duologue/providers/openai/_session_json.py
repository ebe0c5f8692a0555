"""The OpenAI Realtime session as JSON, from the options and the agent's setup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from duologue.json_types import Json, JsonObject
from duologue.providers._json_fields import deep_merge
from duologue.providers._openai_protocol.items import flat_tools
from duologue.providers._options import json_fields, json_values
from duologue.providers.openai._config import RealtimeConfig
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import UpdateSession
from duologue.realtime.options import (
    ManualTurns,
    SemanticVAD,
    ServerVAD,
    Transcription,
    TurnDetection,
)

TRANSCRIPTION_MODEL = "gpt-transcribe"

_SERVER_VAD: JsonObject = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "create_response": True,
    "interrupt_response": False,
}
_SEMANTIC_VAD: JsonObject = {
    "type": "semantic_vad",
    "eagerness": "auto",
    "create_response": True,
    "interrupt_response": False,
}
"""Defaults that are always sent, because those of the server may change."""


@dataclass(frozen=True, slots=True)
class OpenAISession:
    """Builds OpenAI's session."""

    config: RealtimeConfig

    def build(self, setup: SessionSetup) -> JsonObject:
        """Return the initial session; ``extra`` of the options is merged into it deep and last.

        Over WebRTC the model is named here and the audio format is negotiated elsewhere; over a
        WebSocket it is the other way round. Without instructions the server uses its own.
        """
        config = self.config
        audio_input: JsonObject = {
            "turn_detection": _turn_detection(config.turn_detection),
            "transcription": _transcription(config.transcription),
        }
        audio_output: JsonObject = {}
        session: JsonObject = {
            "type": "realtime",
            "output_modalities": [config.output],
            "audio": {"input": audio_input, "output": audio_output},
        }
        if config.transport == "webrtc":
            session["model"] = config.model
        else:
            audio_input["format"] = _audio_format(config)
            audio_output["format"] = _audio_format(config)
        if setup.instructions:
            session["instructions"] = setup.instructions
        if setup.tools:
            session["tools"] = flat_tools(setup.tools)
        return deep_merge(deep_merge(session, json_fields(config)), config.extra or {})

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


def _turn_detection(value: TurnDetection) -> Json:
    match value:
        case ServerVAD():
            return {**_SERVER_VAD, **json_values(value)}
        case SemanticVAD():
            return {**_SEMANTIC_VAD, **json_values(value)}
        case ManualTurns():
            return None
        case _:
            assert_never(value)


def _audio_format(config: RealtimeConfig) -> JsonObject:
    kind = f"audio/{config.audio_format}"
    return {"type": kind, "rate": config.rate} if config.law is None else {"type": kind}


def _transcription(value: Transcription | None) -> Json:
    return None if value is None else {"model": TRANSCRIPTION_MODEL, **json_values(value)}
