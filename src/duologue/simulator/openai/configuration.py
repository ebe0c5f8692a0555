"""The session object: what it begins with, and what `session.update` makes of it."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Protocol

from duologue.items import Json
from duologue.realtime.commands import ToolSpec
from duologue.simulator.fields import (
    Object,
    flag_at,
    inside,
    int_at,
    new_id,
    objects_at,
    text_at,
)
from duologue.simulator.openai.schema import RATE, SESSION
from duologue.simulator.openai.shapes import RefusedError, check_object, missing

INSTRUCTIONS = (
    "Your knowledge cutoff is 2023-10. You are a helpful, witty, and friendly AI. Act like a "
    "human, but remember that you aren't a human. Talk quickly."
)

_PCM: Object = {"type": "audio/pcm", "rate": RATE}

_DETECTIONS: dict[str, Object] = {
    "server_vad": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    },
    "semantic_vad": {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    },
}

_FIRST_MODELS = re.compile(r"gpt-realtime(-mini)?(-20\d\d-\d\d-\d\d)?")
"""Models before 1.5, which have other defaults."""
_REASONING_MODELS = re.compile(r"gpt-realtime-2\b.*")
"""Models that think first, and name the phase of each message."""

_REASONING_TOKENS = {"minimal": 0, "low": 8, "medium": 32, "high": 128, "xhigh": 256}

_EAGERNESS_MS = {"low": 1200, "medium": 800, "high": 400, "auto": 800}
"""Silence that ends a turn under ``semantic_vad``: here nobody looks at what was said."""


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """How turns are found; times in ms."""

    threshold: float
    prefix_ms: int
    silence_ms: int
    idle_ms: int | None
    create_response: bool
    interrupt_response: bool


class SessionObject(Protocol):
    """What the session of any dialect is asked about its session object."""

    value: Object
    """As the client is shown it."""

    @property
    def turn_detection(self) -> TurnDetection | None:
        """How turns are found; None when the client ends them."""
        ...

    @property
    def transcription(self) -> str | None:
        """The model that transcribes, perhaps without a name; None when nothing does."""
        ...

    @property
    def reasoning_tokens(self) -> int | None:
        """Tokens of the thoughts before a response; None for a model without thoughts."""
        ...

    @property
    def instructions(self) -> str:
        """What the model is told."""
        ...

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The functions that the model may call."""
        ...


class Configuration:
    """The session object of one session. ``value`` is what the client is shown."""

    def __init__(self, model: str, expires_at: int) -> None:
        first = _FIRST_MODELS.fullmatch(model) is not None
        self._detections = {
            **_DETECTIONS,
            "server_vad": {
                **_DETECTIONS["server_vad"],
                "silence_duration_ms": 200 if first else 500,
            },
        }
        self.value: Object = {
            "type": "realtime",
            "object": "realtime.session",
            "id": new_id("sess"),
            "model": model,
            "output_modalities": ["audio"],
            "instructions": INSTRUCTIONS,
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": expires_at,
            "audio": {
                "input": {
                    "format": dict(_PCM),
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": dict(self._detections["server_vad"]),
                },
                "output": {
                    "format": dict(_PCM),
                    "voice": "alloy" if first else "marin",
                    "speed": 1.0,
                },
            },
            "include": None,
        }

    def update(self, change: Json, *, spoken: bool, path: str = "session") -> None:
        """Merge a change, all of it or nothing. Raises `RefusedError`.

        ``spoken``: the model has spoken, and its voice stays.
        """
        change = check_session(change, path)
        value = copy.deepcopy(self.value)
        if "model" in _object(change) and inside(change, "model") != value["model"]:
            raise RefusedError(
                "invalid_value", "The model of a session can't be changed.", f"{path}.model"
            )
        voice = inside(change, "audio", "output", "voice")
        if spoken and voice is not None and voice != inside(value, "audio", "output", "voice"):
            raise RefusedError(
                "cannot_update_voice",
                "Cannot update a conversation's voice if assistant audio is present.",
                f"{path}.audio.output.voice",
            )
        self._merge(value, change)
        self.value = value

    @property
    def turn_detection(self) -> TurnDetection | None:
        """How turns are found; None when the client ends them."""
        found = inside(self.value, "audio", "input", "turn_detection")
        if found is None:
            return None
        semantic = text_at(found, "type") == "semantic_vad"
        silence = _EAGERNESS_MS[text_at(found, "eagerness")] if semantic else 0
        threshold = inside(found, "threshold")
        idle = int_at(found, "idle_timeout_ms")
        return TurnDetection(
            threshold=float(threshold) if isinstance(threshold, int | float) else 0.5,
            prefix_ms=int_at(found, "prefix_padding_ms", default=300),
            silence_ms=int_at(found, "silence_duration_ms", default=silence),
            idle_ms=idle or None,
            create_response=flag_at(found, "create_response", default=True),
            interrupt_response=flag_at(found, "interrupt_response", default=True),
        )

    @property
    def input_format(self) -> Json:
        """The format of the client's sound."""
        return inside(self.value, "audio", "input", "format")

    @property
    def transcription(self) -> str | None:
        """The model that transcribes, perhaps without a name; None when nothing does."""
        found = inside(self.value, "audio", "input", "transcription")
        return None if found is None else text_at(found, "model")

    @property
    def reasoning_tokens(self) -> int | None:
        """Tokens of the thoughts before a response; None for a model without thoughts."""
        if not _REASONING_MODELS.fullmatch(text_at(self.value, "model")):
            return None
        return _REASONING_TOKENS[text_at(self.value, "reasoning", "effort") or "low"]

    @property
    def instructions(self) -> str:
        """What the model is told; the service's own words are not for another model."""
        told = text_at(self.value, "instructions")
        return "" if told == INSTRUCTIONS else told

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The functions that the model may call."""
        return tools_of(objects_at(self.value, "tools"))

    def _merge(self, value: Object, change: Json) -> None:
        for key, new in _object(change).items():
            if key == "audio":
                for side, parts in _object(new).items():
                    for name, part in _object(parts).items():
                        _object(_object(value["audio"])[side])[name] = self._part(
                            name, inside(value, "audio", side, name), part
                        )
            else:
                value[key] = new

    def _part(self, name: str, old: Json, new: Json) -> Json:
        """Return the new value of a part of ``audio.input`` or ``audio.output``."""
        if not isinstance(new, dict):
            return new
        match name:
            case "turn_detection":
                kind = text_at(new, "type")
                start = _object(old) if text_at(old, "type") == kind else self._detections[kind]
                return {**start, **new}
            case "transcription":
                return {"model": None, "language": None, "prompt": None, **_object(old), **new}
            case "noise_reduction":
                return {"strength": 1.0, **_object(old), **new}
            case "format" if new.get("type") == "audio/pcm":
                return {**_PCM, **new}
            case _:
                return new


def tools_of(tools: list[Object]) -> tuple[ToolSpec, ...]:
    """The functions among the tools."""
    return tuple(
        ToolSpec(
            text_at(tool, "name"),
            text_at(tool, "description"),
            _object(tool.get("parameters")) or {"type": "object", "properties": {}},
        )
        for tool in tools
        if tool.get("type") == "function"
    )


def check_session(change: Json, path: str = "session") -> Object:
    """Return a session object, or a part of one, without nulls. Raises `RefusedError`."""
    if isinstance(change, dict) and "type" not in change:
        raise missing(f"{path}.type")
    given = check_object(SESSION, change, path)
    check_modalities(inside(given, "output_modalities"), f"{path}.output_modalities")
    return given


def check_modalities(modalities: Json, path: str) -> None:
    """Raise `RefusedError` unless it is text or audio, and not both."""
    if modalities is not None and modalities not in (["audio"], ["text"]):
        raise RefusedError(
            "invalid_value",
            f"Invalid modalities: {modalities}. Supported combinations are: ['text'] and "
            "['audio'].",
            path,
        )


def _object(value: Json) -> Object:
    return value if isinstance(value, dict) else {}
