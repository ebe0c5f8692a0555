"""The session object, in both of its shapes: what it begins with, and what is made of it."""

from __future__ import annotations

import copy

from duologue.items import Json
from duologue.realtime.commands import ToolSpec
from duologue.simulator.fields import Object, flag_at, inside, int_at, new_id, objects_at, text_at
from duologue.simulator.openai.configuration import TurnDetection
from duologue.simulator.openai.shapes import RefusedError, check, check_object
from duologue.simulator.qwen.dialect import HEARD_RATE
from duologue.simulator.qwen.models import abilities_of
from duologue.simulator.qwen.schema import RATES, SESSION, TURN_DETECTION

OUTPUT_RATE = 24000
"""Hz of the agent's sound unless the client wants another."""

_DETECTION: Object = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 800,
    "create_response": True,
    "interrupt_response": True,
}
_OLD_SHAPE = ("input_audio_format", "output_audio_format", "sample_rate")


class Configuration:
    """The session object of one session. ``value`` is what the client is shown."""

    def __init__(self, model: str) -> None:
        able = self.abilities = abilities_of(model)
        self.value: Object = {
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

    def update(self, change: Json, *, spoken: bool) -> None:
        """Merge a change, all of it or nothing. Raises `RefusedError`.

        ``spoken``: the model has spoken, and its voice stays.
        """
        given = check_object(SESSION, change, "session")
        value = copy.deepcopy(self.value)
        self._check(given, value)
        voice = inside(given, "audio", "output", "voice") or given.get("voice")
        if spoken and voice is not None and voice != value["voice"]:
            raise RefusedError(
                "cannot_update_voice",
                "Cannot update a conversation's voice if assistant audio is present.",
                "session.voice",
            )
        _merge(value, given)
        if isinstance(voice, str):
            value["voice"] = voice
        if value["enable_search"] and value["tools"]:
            raise _wrong("tools and enable_search can't be used together.", "session.tools")
        self.value = value

    @property
    def turn_detection(self) -> TurnDetection | None:
        """How turns are found; None when the client ends them."""
        found = self.value["turn_detection"]
        if found is None:
            return None
        threshold = inside(found, "threshold")
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
        """Hz of the client's sound."""
        nested = int_at(self.value, "audio", "input", "format", "sample_rate")
        return nested or int_at(self.value, "sample_rate", default=HEARD_RATE)

    @property
    def input_wav(self) -> bool:
        """The client's sound begins with the header of a WAV file."""
        return inside(self.value, "audio", "input", "format", "type") == "wav"

    @property
    def output_rate(self) -> int:
        """Hz of the agent's sound."""
        return int_at(self.value, "audio", "output", "format", "sample_rate", default=OUTPUT_RATE)

    @property
    def transcription(self) -> str | None:
        """The model that transcribes; None when nothing does."""
        found = self.value["input_audio_transcription"]
        return None if found is None else text_at(found, "model")

    @property
    def reasoning_tokens(self) -> None:
        """None: no model of this service reports thoughts."""
        return

    @property
    def instructions(self) -> str:
        """What the model is told."""
        return text_at(self.value, "instructions")

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The functions that the model may call."""
        return tuple(
            ToolSpec(
                text_at(tool, "function", "name"),
                text_at(tool, "function", "description"),
                _object(inside(tool, "function", "parameters"))
                or {"type": "object", "properties": {}},
            )
            for tool in objects_at(self.value, "tools")
            if tool.get("type") == "function"
        )

    def _check(self, given: Object, now: Object) -> None:
        """What the shapes of the fields don't say."""
        able = self.abilities
        check_modalities(given.get("modalities"), "session.modalities")
        if "audio" in given:
            if not able.nested_audio:
                raise _wrong(f"{now['model']} does not support 'audio'.", "session.audio")
            self._check_nested(given)
        for path in (("voice",), ("audio", "output", "voice")):
            if inside(given, *path) == "":
                raise _wrong("Voice '' is not supported.", f"session.{'.'.join(path)}")
        self._check_tools(given, now)
        self._check_detection(given, now)
        check_sampling(given, "session")

    def _check_nested(self, given: Object) -> None:
        for name in _OLD_SHAPE:
            if name in given:
                raise _wrong(f"'{name}' and 'audio' can't be used together.", f"session.{name}")
        if "voice" in given and inside(given, "audio", "output", "voice") is not None:
            raise _wrong(
                "'voice' and 'audio.output.voice' can't be used together.", "session.voice"
            )
        for side in ("input", "output"):
            rate = inside(given, "audio", side, "format", "sample_rate")
            if rate is not None and rate not in RATES:
                listed = ", ".join(str(one) for one in RATES)
                raise _wrong(
                    f"Invalid sample_rate: {rate}. Supported values are: {listed}.",
                    f"session.audio.{side}.format.sample_rate",
                )
        if inside(given, "audio", "output", "format", "type") == "wav":
            raise _wrong("The simulator sends no WAV.", "session.audio.output.format.type")

    def _check_tools(self, given: Object, now: Object) -> None:
        able = self.abilities
        tools = objects_at(given, "tools")
        if tools and not able.tools:
            raise _wrong(f"{now['model']} does not support tools.", "session.tools")
        if not able.mcp and any(tool.get("type") == "mcp" for tool in tools):
            raise _wrong(f"{now['model']} does not support MCP tools.", "session.tools")

    def _check_detection(self, given: Object, now: Object) -> None:
        found = given.get("turn_detection")
        if not isinstance(found, dict):
            return
        able, model = self.abilities, now["model"]
        kind = text_at(found, "type") or text_at(now, "turn_detection", "type") or "server_vad"
        check(TURN_DETECTION, {"type": kind, **found}, "session.turn_detection")
        if kind == "semantic_vad" and not able.semantic_vad:
            raise _wrong(f"{model} does not support semantic_vad.", "session.turn_detection.type")
        if found.get("idle_timeout_ms") is not None and not able.idle_timeout:
            raise _wrong(
                f"{model} does not support idle_timeout_ms.",
                "session.turn_detection.idle_timeout_ms",
            )


def check_modalities(modalities: Json, path: str) -> None:
    """Raise `RefusedError` unless there is text among them."""
    if modalities is not None and modalities not in (
        ["text"],
        ["text", "audio"],
        ["audio", "text"],
    ):
        raise _wrong(
            f"Invalid modalities: {modalities}. Supported combinations are: ['text'] and "
            "['audio', 'text'].",
            path,
        )


def check_sampling(given: Object, path: str) -> None:
    """Raise `RefusedError` for a bound that does not belong to its range."""
    for name, bound in (("temperature", 2.0), ("top_p", 0.0), ("repetition_penalty", 0.0)):
        if given.get(name) == bound:
            edge = "below" if bound else "above"
            raise _wrong(f"'{name}' must be {edge} {bound:g}.", f"{path}.{name}")


def _wrong(message: str, param: str) -> RefusedError:
    return RefusedError("invalid_value", message, param)


def _object(value: Json) -> Object:
    return value if isinstance(value, dict) else {}


def _merge(value: Object, given: Object) -> None:
    for name in _OLD_SHAPE:
        if name in given:
            value.pop("audio", None)
    for key, new in given.items():
        match key:
            case "voice":
                """It may stand in two places."""
            case "audio":
                audio = _object(value.setdefault("audio", {}))
                for side, parts in _object(new).items():
                    there = _object(audio.setdefault(side, {}))
                    for name, part in _object(parts).items():
                        both = isinstance(part, dict)
                        there[name] = {**_object(there.get(name)), **part} if both else part  # type: ignore[dict-item]
            case "turn_detection" if isinstance(new, dict):
                old = _object(value[key])
                kind = new.get("type", old.get("type", "server_vad"))
                begin = old if old.get("type") == kind else _DETECTION
                value[key] = {**begin, "type": kind, **new}
            case "input_audio_transcription" if isinstance(new, dict):
                model = _object(value[key]).get("model") or "qwen3-asr-flash-realtime"
                value[key] = {**new, "model": new.get("model") or model}
            case "instructions":
                value[key] = new or ""
            case _:
                value[key] = new
