"""The session object: its defaults, and how `session.update` changes it."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Protocol

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
from duologue.simulators._openai_protocol.refusals import RefusedError, check_object, missing
from duologue.simulators._openai_protocol.schema import RATE, SESSION

DEFAULT_INSTRUCTIONS = (
    "Your knowledge cutoff is 2023-10. You are a helpful, witty, and friendly AI. Act like a "
    "human, but remember that you aren't a human. Talk quickly."
)

_PCM: JsonObject = {"type": "audio/pcm", "rate": RATE}

_DETECTIONS: dict[str, JsonObject] = {
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
"""Models that reason first, and name the phase of each message."""

_REASONING_TOKENS = {"minimal": 0, "low": 8, "medium": 32, "high": 128, "xhigh": 256}

EAGERNESS_MS = {"low": 1200, "medium": 800, "high": 400, "auto": 800}
"""Silence in ms that ends a turn under ``semantic_vad``. The simulator ignores what was said."""


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """How turns are detected; times in ms."""

    threshold: float
    prefix_ms: int
    silence_ms: int
    idle_ms: int | None
    create_response: bool
    interrupt_response: bool


class SessionObject(Protocol):
    """What a session of any dialect reads from its session object."""

    value: JsonObject
    """The session object as the client sees it."""

    @property
    def turn_detection(self) -> TurnDetection | None:
        """How turns are detected; None if the client ends them."""
        ...

    @property
    def transcription(self) -> str | None:
        """The model that transcribes, which may be ""; None if nothing is transcribed."""
        ...

    @property
    def reasoning_tokens(self) -> int | None:
        """Tokens of the reasoning before a reply; None for a model without reasoning."""
        ...

    @property
    def instructions(self) -> str:
        """The instructions of the model."""
        ...

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The functions that the model may call."""
        ...


class OpenAISessionObject:
    """The session object of one session; ``value`` is what the client sees."""

    def __init__(self, model: str, expires_at: int) -> None:
        first = _FIRST_MODELS.fullmatch(model) is not None
        self._detections = {
            **_DETECTIONS,
            "server_vad": {
                **_DETECTIONS["server_vad"],
                "silence_duration_ms": 200 if first else 500,
            },
        }
        self.value: JsonObject = {
            "type": "realtime",
            "object": "realtime.session",
            "id": new_id("sess"),
            "model": model,
            "output_modalities": ["audio"],
            "instructions": DEFAULT_INSTRUCTIONS,
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

    def update(self, change: Json, *, has_spoken: bool, path: str = "session") -> None:
        """Merge a change, all of it or nothing.

        Args:
            change: The session object of the client.
            has_spoken: Whether the model has spoken; then its voice cannot change.
            path: Where the change stands in the event, for errors.

        Raises:
            RefusedError: The change is wrong.
        """
        change = check_session(change, path)
        value = copy.deepcopy(self.value)
        if "model" in _as_object(change) and value_at(change, "model") != value["model"]:
            raise RefusedError(
                "invalid_value", "The model of a session can't be changed.", f"{path}.model"
            )
        voice = value_at(change, "audio", "output", "voice")
        if (
            has_spoken
            and voice is not None
            and voice != value_at(value, "audio", "output", "voice")
        ):
            raise RefusedError(
                "cannot_update_voice",
                "Cannot update a conversation's voice if assistant audio is present.",
                f"{path}.audio.output.voice",
            )
        self._merge(value, change)
        self.value = value

    @property
    def turn_detection(self) -> TurnDetection | None:
        """How turns are detected; None if the client ends them."""
        found = value_at(self.value, "audio", "input", "turn_detection")
        if found is None:
            return None
        semantic = text_at(found, "type") == "semantic_vad"
        silence = EAGERNESS_MS[text_at(found, "eagerness")] if semantic else 0
        threshold = value_at(found, "threshold")
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
        """The format of the client's audio."""
        return value_at(self.value, "audio", "input", "format")

    @property
    def transcription(self) -> str | None:
        """The model that transcribes, which may be ""; None if nothing is transcribed."""
        found = value_at(self.value, "audio", "input", "transcription")
        return None if found is None else text_at(found, "model")

    @property
    def reasoning_tokens(self) -> int | None:
        """Tokens of the reasoning before a reply; None for a model without reasoning."""
        if not _REASONING_MODELS.fullmatch(text_at(self.value, "model")):
            return None
        return _REASONING_TOKENS[text_at(self.value, "reasoning", "effort") or "low"]

    @property
    def instructions(self) -> str:
        """The instructions of the model; "" for the service's defaults, which do not fit another
        model.
        """
        instructions = text_at(self.value, "instructions")
        return "" if instructions == DEFAULT_INSTRUCTIONS else instructions

    @property
    def tools(self) -> tuple[ToolSpec, ...]:
        """The functions that the model may call."""
        return function_tools(objects_at(self.value, "tools"))

    def _merge(self, value: JsonObject, change: Json) -> None:
        for key, new in _as_object(change).items():
            if key == "audio":
                for side, parts in _as_object(new).items():
                    for name, part in _as_object(parts).items():
                        _as_object(_as_object(value["audio"])[side])[name] = self._merge_part(
                            name, value_at(value, "audio", side, name), part
                        )
            else:
                value[key] = new

    def _merge_part(self, name: str, old: Json, new: Json) -> Json:
        """Return the new value of a part of ``audio.input`` or ``audio.output``."""
        if not isinstance(new, dict):
            return new
        match name:
            case "turn_detection":
                kind = text_at(new, "type")
                start = _as_object(old) if text_at(old, "type") == kind else self._detections[kind]
                return {**start, **new}
            case "transcription":
                return {"model": None, "language": None, "prompt": None, **_as_object(old), **new}
            case "noise_reduction":
                return {"strength": 1.0, **_as_object(old), **new}
            case "format" if new.get("type") == "audio/pcm":
                return {**_PCM, **new}
            case _:
                return new


def function_tools(tools: list[JsonObject]) -> tuple[ToolSpec, ...]:
    """Return the functions among the tools."""
    return tuple(
        ToolSpec(
            text_at(tool, "name"),
            text_at(tool, "description"),
            _as_object(tool.get("parameters")) or {"type": "object", "properties": {}},
        )
        for tool in tools
        if tool.get("type") == "function"
    )


def check_session(change: Json, path: str = "session") -> JsonObject:
    """Return a session object, or a part of one, without nulls.

    Raises:
        RefusedError: It is wrong.
    """
    if isinstance(change, dict) and "type" not in change:
        raise missing(f"{path}.type")
    given = check_object(SESSION, change, path)
    check_modalities(value_at(given, "output_modalities"), f"{path}.output_modalities")
    return given


def check_modalities(modalities: Json, path: str) -> None:
    """Check that the modalities are text or audio, and not both.

    Raises:
        RefusedError: They are not.
    """
    if modalities is not None and modalities not in (["audio"], ["text"]):
        raise RefusedError(
            "invalid_value",
            f"Invalid modalities: {modalities}. Supported combinations are: ['text'] and "
            "['audio'].",
            path,
        )


def _as_object(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}
