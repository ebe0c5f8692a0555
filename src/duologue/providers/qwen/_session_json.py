"""The Qwen Omni session as JSON, from the options and the agent's setup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.providers._json_fields import deep_merge
from duologue.providers._openai_protocol.items import nested_tools
from duologue.providers._options import json_values
from duologue.providers.qwen._config import QwenConfig
from duologue.providers.qwen._models import INPUT_RATE, OUTPUT_RATE
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import UpdateSession
from duologue.realtime.options import (
    ManualTurns,
    SemanticVAD,
    ServerVAD,
    Transcription,
    TurnDetection,
)

_SERVER_VAD: JsonObject = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 800,
    "create_response": True,
    "interrupt_response": False,
}
_SEMANTIC_VAD: JsonObject = {
    "type": "semantic_vad",
    "create_response": True,
    "interrupt_response": False,
}
"""Defaults that are always sent, because those of the service may change."""


@dataclass(frozen=True, slots=True)
class QwenSession:
    """Builds Qwen's session; ``extra`` of the options is merged into it deep and last.

    Fields are at the top level, as in the beta of OpenAI's protocol. For qwen3.8 and later, and
    with another rate than 24 kHz, audio options are in ``audio``; a session never has both forms
    (Model Studio, client events).
    """

    config: QwenConfig

    def build(self, setup: SessionSetup) -> JsonObject:
        """Return the initial session. Raise `ConfigError` as `check_tools` does."""
        config = self.config
        session: JsonObject = {"modalities": config.modalities, **self._audio()}
        session["turn_detection"] = _turn_detection(config.turn_detection)
        session["input_audio_transcription"] = self._transcription(config.transcription)
        if setup.instructions:
            session["instructions"] = setup.instructions
        if setup.tools:
            session["tools"] = nested_tools(setup.tools)
        if config.enable_search:
            session["enable_search"] = True
        if config.smooth_output is not None:
            session["smooth_output"] = config.smooth_output
        session.update(config.sampling)
        session = deep_merge(session, config.extra or {})
        if session.get("tools"):
            self.check_tools()
        return session

    def build_update(self, update: UpdateSession) -> JsonObject:
        """Return the session fields that change."""
        session: JsonObject = {}
        if update.instructions is not None:
            session["instructions"] = update.instructions
        if update.tools is not None:
            session["tools"] = nested_tools(update.tools)
        return session

    def build_ping(self) -> JsonObject:
        """Return a session without changes, which the service confirms."""
        return {"modalities": self.config.modalities}

    def build_turn_detection(self, detection: Json) -> JsonObject:
        """Return a session that changes only the turn detection."""
        return {"turn_detection": detection}

    def check_tools(self) -> None:
        """Raise `ConfigError` if search is enabled, which excludes tools."""
        search = deep_merge({"enable_search": self.config.enable_search}, self.config.extra or {})[
            "enable_search"
        ]
        if search is True:
            raise ConfigError("tools and enable_search exclude each other: leave one of them out")

    def _audio(self) -> JsonObject:
        config, traits = self.config, self.config.traits
        voice: JsonObject = {} if config.voice is None else {"voice": config.voice}
        if not traits.nested_voice and config.output_rate == OUTPUT_RATE:
            input_format, output_format = traits.formats
            return {
                "input_audio_format": input_format,
                "output_audio_format": output_format,
                **voice,
            }
        output: JsonObject = {"format": {"type": "pcm", "sample_rate": config.output_rate}}
        audio: JsonObject = {
            "input": {"format": {"type": "pcm", "sample_rate": INPUT_RATE}},
            "output": output,
        }
        if traits.nested_voice:
            output.update(voice)
            return {"audio": audio}
        return {"audio": audio, **voice}

    def _transcription(self, value: Transcription | None) -> Json:
        if value is None:
            return None
        out: JsonObject = {"model": value.model or self.config.traits.transcription}
        if value.language is not None:
            out["language"] = value.language
        return out


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
