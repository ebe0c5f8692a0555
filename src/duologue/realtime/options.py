"""Options that several providers share: how user turns end, and how they are transcribed.

None means the provider's default. A provider that lacks an option raises `ConfigError` when the
option is set; the page of each provider lists what it supports.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from duologue.errors import ConfigError

type Eagerness = Literal["low", "medium", "high", "auto"]

_EAGERNESS = ("low", "medium", "high", "auto")


@dataclass(frozen=True, slots=True)
class ServerVAD:
    """The server ends a user turn after a pause, which it detects by loudness.

    Args:
        threshold: Loudness above which audio is speech, 0 to 1 (Qwen: from -1).
        prefix_padding_ms: Milliseconds of audio before the speech that belong to the turn.
        silence_duration_ms: Milliseconds of silence that end the turn.
        create_response: Whether the server replies to the turn by itself.
        interrupt_response: Whether the server stops its reply at any noise, instead of leaving that
            to `BargeInPolicy`, which distinguishes a cough from a word.
        idle_timeout_ms: Milliseconds of silence after which the model speaks by itself.
    """

    threshold: float | None = None
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None
    idle_timeout_ms: int | None = None

    def __post_init__(self) -> None:
        _check_number("threshold", self.threshold, -1, 1)
        _check_number("prefix_padding_ms", self.prefix_padding_ms, 0, 60_000)
        _check_number("silence_duration_ms", self.silence_duration_ms, 0, 60_000)
        _check_number("idle_timeout_ms", self.idle_timeout_ms, 0, 600_000)
        _check_bool("create_response", self.create_response)
        _check_bool("interrupt_response", self.interrupt_response)


@dataclass(frozen=True, slots=True)
class SemanticVAD:
    """The server ends a user turn when what was said seems complete.

    Args:
        eagerness: How soon the turn ends: ``low``, ``medium``, ``high`` or ``auto``.
        threshold: Loudness above which audio is speech, -1 to 1.
        silence_duration_ms: Milliseconds of silence that end the turn.
        create_response: Whether the server replies to the turn by itself.
        interrupt_response: Whether the server stops its reply at any noise; see `ServerVAD`.
    """

    eagerness: Eagerness | None = None
    threshold: float | None = None
    silence_duration_ms: int | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None

    def __post_init__(self) -> None:
        if self.eagerness is not None and self.eagerness not in _EAGERNESS:
            choices = ", ".join(_EAGERNESS)
            raise ConfigError(f"eagerness must be one of {choices}, not {self.eagerness!r}")
        _check_number("threshold", self.threshold, -1, 1)
        _check_number("silence_duration_ms", self.silence_duration_ms, 0, 60_000)
        _check_bool("create_response", self.create_response)
        _check_bool("interrupt_response", self.interrupt_response)


@dataclass(frozen=True, slots=True)
class ManualTurns:
    """The program ends user turns by ``Realtime.end_turn``."""


type TurnDetection = ServerVAD | SemanticVAD | ManualTurns


@dataclass(frozen=True, slots=True)
class Transcription:
    """How the person's speech is transcribed.

    Args:
        model: Name of the transcription model.
        language: Language of the speech, as an ISO 639-1 or BCP 47 code.
        prompt: A text that guides the transcription model.
        delay: How long the transcription model may wait for more audio.
        keywords: Words that are likely to be said, such as names.
        languages: Languages that are likely to be spoken.
    """

    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    delay: str | None = None
    keywords: Sequence[str] = ()
    languages: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("model", "language", "prompt", "delay"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                example = ", such as gpt-transcribe" if name == "model" else ""
                raise ConfigError(
                    f"Transcription.{name} must be a string{example}, or None for the default, "
                    f"not {value!r}"
                )
        for name in ("keywords", "languages"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ConfigError(f"{name} must be a list of strings, not {value!r}")


def check_supported(provider: str, value: object, supported: Collection[str]) -> None:
    """Raise `ConfigError` if ``value`` sets a field that ``provider`` does not support."""
    for name in set_fields(value):
        if name not in supported:
            raise ConfigError(
                f"{provider} does not support {type(value).__name__}.{name}: leave it out"
            )


def set_fields(value: object) -> Mapping[str, object]:
    """Return the fields of a dataclass instance that differ from their defaults."""
    return {
        field.name: getattr(value, field.name)
        for field in fields(value)  # type: ignore[arg-type]
        if getattr(value, field.name) != field.default
    }


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if value is None:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or math.isnan(value) or not low <= value <= high:  # type: ignore[arg-type,operator]
        raise ConfigError(f"{name} must be between {low:g} and {high:g}, not {value!r}")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool | None):
        raise ConfigError(f"{name} must be True or False, not {value!r}")
