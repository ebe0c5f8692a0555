"""The session object, in its legacy and its nested form: defaults and updates."""

from __future__ import annotations

import copy

from duologue.json_types import Json, JsonObject
from duologue.realtime.commands import ToolSpec
from duologue.simulators._fields import (
    flag_at,
    int_at,
    new_id,
    objects_at,
    text_at,
    value_at,
)
from duologue.simulators._openai_protocol.refusals import RefusedError, check, check_object
from duologue.simulators._openai_protocol.session_object import TurnDetection
from duologue.simulators.qwen._dialect import INPUT_RATE
from duologue.simulators.qwen._models import features_of
from duologue.simulators.qwen._schema import RATES, SESSION, TURN_DETECTION

OUTPUT_RATE = 24000
"""Hz of the agent's audio, unless the client chooses another rate."""

_DETECTION: JsonObject = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 800,
    "create_response": True,
    "interrupt_response": True,
}
_LEGACY_FIELDS = ("input_audio_format", "output_audio_format", "sample_rate")


class QwenSessionObject:
    """The session object of one session; ``value`` is what the client sees."""

    def __init__(self, model: str) -> None:
        able = self.features = features_of(model)
        self.value: JsonObject = {
            "object": "realtime.session",
            "model": model,
            "modalities": ["text", "audio"],
            "voice": able.voice,
            "instructions": "",
            "input_audio_format": "pcm",
            "output_audio_format": "pcm",
            "input_audio_transcription": {"model": able.transcriber},
            "turn_detection": dict(_DETECTION),
            "enable_search": False,
            "search_options": {},
            "tools": [],
            "tool_choice": "auto",
            "temperature": able.temperature,
            "top_p": able.top_p,
            "top_k": able.top_k,
            "repetition_penalty": 1.05,
            "presence_penalty": able.presence_penalty,
            "seed": -1,
            "id": new_id("sess"),
        }

    def update(self, change: Json, *, has_spoken: bool) -> None:
        """Merge a change, all of it or nothing.

        Args:
            change: The session object of the client.
            has_spoken: Whether the model has spoken; then its voice cannot change.

        Raises:
            RefusedError: The change is wrong.
        """
        fields = check_object(SESSION, change, "session")
        value = copy.deepcopy(self.value)
        self._check(fields, value)
        voice = value_at(fields, "audio", "output", "voice") or fields.get("voice")
        if has_spoken and voice is not None and voice != value["voice"]:
            raise RefusedError(
                "cannot_update_voice",
                "Cannot update a conversation's voice if assistant audio is present.",
                "session.voice",
            )
        _merge(value, fields)
        if isinstance(voice, str):
            value["voice"] = voice
        if value["enable_search"] and value["tools"]:
            raise _invalid("tools and enable_search can't be used together.", "session.tools")
        self.value = value

    @property
    def turn_detection(self) -> TurnDetection | None:
        """How turns are detected; None if the client ends them."""
        found = self.value["turn_detection"]
        if found is None:
            return None
        threshold = value_at(found, "threshold")
        return TurnDetection(
            threshold=float(threshold) if isinstance(threshold, int | float) else 0.5,
            prefix_ms=int_at(found, "prefix_padding_ms", default=300),
            silence_ms=int_at(found, "silence_duration_ms", default=800),
            idle_ms=int_at(found, "idle_timeout_ms") or None,
            create_response=flag_at(found, "create_response", default=True),
            interrupt_response=flag_at(found, "interrupt_response", default=True),
        )

    @property
    def input_rate(self) -> int:
        """Hz of the client's audio."""
        nested = int_at(self.value, "audio", "input", "format", "sample_rate")
        return nested or int_at(self.value, "sample_rate", default=INPUT_RATE)

    @property
    def input_wav(self) -> bool:
        """Whether the client's audio starts with the header of a WAV file."""
        return value_at(self.value, "audio", "input", "format", "type") == "wav"

    @property
    def output_rate(self) -> int:
        """Hz of the agent's audio."""
        return int_at(self.value, "audio", "output", "format", "sample_rate", default=OUTPUT_RATE)

    @property
    def transcription(self) -> str | None:
        """The model that transcribes; None if nothing is transcribed."""
        found = self.value["input_audio_transcription"]
        return None if found is None else text_at(found, "model")

    @property
    def reasoning_tokens(self) -> None:
        """None: no model of this service reports reasoning."""
        return

    @property
    def instructions(self) -> str:
        """The instructions of the model."""
        return text_at(self.value, "instructions")

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The functions that the model may call."""
        return tuple(
            ToolSpec(
                text_at(tool, "function", "name"),
                text_at(tool, "function", "description"),
                _as_object(value_at(tool, "function", "parameters"))
                or {"type": "object", "properties": {}},
            )
            for tool in objects_at(self.value, "tools")
            if tool.get("type") == "function"
        )

    def _check(self, fields: JsonObject, now: JsonObject) -> None:
        """Check what the shapes of the fields do not express."""
        able = self.features
        check_modalities(fields.get("modalities"), "session.modalities")
        if "audio" in fields:
            if not able.nested_audio:
                raise _invalid(f"{now['model']} does not support 'audio'.", "session.audio")
            self._check_nested(fields)
        for path in (("voice",), ("audio", "output", "voice")):
            if value_at(fields, *path) == "":
                raise _invalid("Voice '' is not supported.", f"session.{'.'.join(path)}")
        self._check_tools(fields, now)
        self._check_detection(fields, now)
        check_sampling(fields, "session")

    def _check_nested(self, fields: JsonObject) -> None:
        for name in _LEGACY_FIELDS:
            if name in fields:
                raise _invalid(f"'{name}' and 'audio' can't be used together.", f"session.{name}")
        if "voice" in fields and value_at(fields, "audio", "output", "voice") is not None:
            raise _invalid(
                "'voice' and 'audio.output.voice' can't be used together.", "session.voice"
            )
        for side in ("input", "output"):
            rate = value_at(fields, "audio", side, "format", "sample_rate")
            if rate is not None and rate not in RATES:
                listed = ", ".join(str(one) for one in RATES)
                raise _invalid(
                    f"Invalid sample_rate: {rate}. Supported values are: {listed}.",
                    f"session.audio.{side}.format.sample_rate",
                )
        if value_at(fields, "audio", "output", "format", "type") == "wav":
            raise _invalid("The simulator sends no WAV.", "session.audio.output.format.type")

    def _check_tools(self, fields: JsonObject, now: JsonObject) -> None:
        able = self.features
        tools = objects_at(fields, "tools")
        if tools and not able.tools:
            raise _invalid(f"{now['model']} does not support tools.", "session.tools")
        if not able.mcp and any(tool.get("type") == "mcp" for tool in tools):
            raise _invalid(f"{now['model']} does not support MCP tools.", "session.tools")

    def _check_detection(self, fields: JsonObject, now: JsonObject) -> None:
        found = fields.get("turn_detection")
        if not isinstance(found, dict):
            return
        able, model = self.features, now["model"]
        kind = text_at(found, "type") or text_at(now, "turn_detection", "type") or "server_vad"
        check(TURN_DETECTION, {"type": kind, **found}, "session.turn_detection")
        if kind == "semantic_vad" and not able.semantic_vad:
            raise _invalid(f"{model} does not support semantic_vad.", "session.turn_detection.type")
        if found.get("idle_timeout_ms") is not None and not able.idle_timeout:
            raise _invalid(
                f"{model} does not support idle_timeout_ms.",
                "session.turn_detection.idle_timeout_ms",
            )


def check_modalities(modalities: Json, path: str) -> None:
    """Check that the modalities are text, or text and audio.

    Raises:
        RefusedError: They are not.
    """
    if modalities is not None and modalities not in (
        ["text"],
        ["text", "audio"],
        ["audio", "text"],
    ):
        raise _invalid(
            f"Invalid modalities: {modalities}. Supported combinations are: ['text'] and "
            "['audio', 'text'].",
            path,
        )


def check_sampling(fields: JsonObject, path: str) -> None:
    """Check the bounds that are not part of their ranges.

    Raises:
        RefusedError: A value is such a bound.
    """
    for name, bound in (("temperature", 2.0), ("top_p", 0.0), ("repetition_penalty", 0.0)):
        if fields.get(name) == bound:
            edge = "below" if bound else "above"
            raise _invalid(f"'{name}' must be {edge} {bound:g}.", f"{path}.{name}")


def _invalid(message: str, param: str) -> RefusedError:
    return RefusedError("invalid_value", message, param)


def _as_object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _merge(value: JsonObject, fields: JsonObject) -> None:
    for name in _LEGACY_FIELDS:
        if name in fields:
            value.pop("audio", None)
    for key, new in fields.items():
        match key:
            case "voice":
                pass  # `update` sets it, because it may stand in two places
            case "audio":
                audio = _as_object(value.setdefault("audio", {}))
                for side, parts in _as_object(new).items():
                    there = _as_object(audio.setdefault(side, {}))
                    for name, part in _as_object(parts).items():
                        both = isinstance(part, dict)
                        there[name] = {**_as_object(there.get(name)), **part} if both else part  # type: ignore[dict-item]
            case "turn_detection" if isinstance(new, dict):
                old = _as_object(value[key])
                kind = new.get("type", old.get("type", "server_vad"))
                begin = old if old.get("type") == kind else _DETECTION
                value[key] = {**begin, "type": kind, **new}
            case "input_audio_transcription" if isinstance(new, dict):
                model = _as_object(value[key]).get("model") or "qwen3-asr-flash-realtime"
                value[key] = {**new, "model": new.get("model") or model}
            case "instructions":
                value[key] = new or ""
            case _:
                value[key] = new
