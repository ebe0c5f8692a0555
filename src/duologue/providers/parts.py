"""The parts of a pipeline by name, for programs that read them from an option or a file.

A part is named ``"NAME"``, or ``"NAME:ARGUMENT"`` with a model (llm, stt) or a voice (tts), such as
``"anthropic:claude-haiku-4-5"``. Another distribution adds parts by entry points in the groups
``duologue.llm``, ``duologue.stt`` and ``duologue.tts``:

    [project.entry-points."duologue.tts"]
    acme = "duologue_acme:TTS"

The object that an entry point names is a class or a function that returns the part. It is called
with the argument if there is one, and otherwise without any. A part of this package comes before
one of the same name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Literal, cast

from duologue._user_code import describe
from duologue.errors import ConfigError, DuologueError
from duologue.pipeline.interfaces import LLM, STT, TTS, StreamingSTT, StreamingTTS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["PartKind", "find_part", "make_llm", "make_stt", "make_tts", "part_names"]

type PartKind = Literal["llm", "stt", "tts"]
"""A text model, a recogniser, or a voice."""

_BUILT_IN: dict[PartKind, dict[str, str]] = {
    "llm": {
        "anthropic": "duologue.providers.anthropic:LLM",
        "gemini": "duologue.providers.gemini:LLM",
        "local": "duologue.providers.local:LLM",
        "openai": "duologue.providers.openai:LLM",
    },
    "stt": {
        "cartesia": "duologue.providers.cartesia:STT",
        "deepgram": "duologue.providers.deepgram:STT",
        "elevenlabs": "duologue.providers.elevenlabs:STT",
        "local": "duologue.providers.local.engine:load_stt",
        "openai": "duologue.providers.openai:STT",
    },
    "tts": {
        "cartesia": "duologue.providers.cartesia:TTS",
        "deepgram": "duologue.providers.deepgram:TTS",
        "elevenlabs": "duologue.providers.elevenlabs:TTS",
        "local": "duologue.providers.local.engine:load_tts",
        "openai": "duologue.providers.openai:TTS",
    },
}
"""Where the parts of this package are, as in an entry point."""

_ARGUMENTS: dict[PartKind, str] = {"llm": "model", "stt": "model", "tts": "voice"}
"""What the argument of a part names."""


def part_names(kind: PartKind) -> list[str]:
    """Return the names of all parts of a kind, sorted, those of other distributions included."""
    return sorted({*_BUILT_IN[kind], *(found.name for found in _entry_points(kind))})


def make_llm(spec: str, **options: object) -> LLM:
    """Make a text model from ``"NAME"`` or ``"NAME:MODEL"``.

    Args:
        spec: The name, such as ``anthropic``, and the model.
        options: Keyword arguments of that class, such as ``base_url``.

    Raises:
        ConfigError: There is no such part, or it can't be made like this.
        MissingExtraError: The extra that it needs is not installed.
    """
    return cast("LLM", _make("llm", spec, options))


def make_stt(spec: str, **options: object) -> STT | StreamingSTT:
    """Make a recogniser from ``"NAME"`` or ``"NAME:MODEL"``.

    The one called ``local`` loads its weights, which blocks: make it in a thread.

    Args:
        spec: The name, such as ``deepgram``, and the model.
        options: Keyword arguments of that class, such as ``base_url``.

    Raises:
        ConfigError: There is no such part, or it can't be made like this.
        MissingExtraError: The extra that it needs is not installed.
    """
    return cast("STT | StreamingSTT", _make("stt", spec, options))


def make_tts(spec: str, **options: object) -> TTS | StreamingTTS:
    """Make a voice from ``"NAME"`` or ``"NAME:VOICE"``.

    The one called ``local`` loads its weights, which blocks: make it in a thread.

    Args:
        spec: The name, such as ``cartesia``, and the name or id of the voice.
        options: Keyword arguments of that class, such as ``base_url``.

    Raises:
        ConfigError: There is no such part, or it can't be made like this.
        MissingExtraError: The extra that it needs is not installed.
    """
    return cast("TTS | StreamingTTS", _make("tts", spec, options))


def _make(kind: PartKind, spec: str, options: dict[str, object]) -> object:
    name, _, argument = spec.partition(":")
    factory = find_part(kind, name)
    arguments = [argument] if argument else []
    try:
        inspect.signature(factory).bind(*arguments, **options)
    except TypeError as error:
        hint = f"write '{name}:{_ARGUMENTS[kind].upper()}'" if not argument else f"write {name!r}"
        raise ConfigError(f"{kind} {spec!r}: {error}; {hint}") from None
    return factory(*arguments, **options)


def find_part(kind: PartKind, name: str) -> Callable[..., object]:
    """Return the class or function that makes a part.

    Raises:
        ConfigError: There is no such part.
        MissingExtraError: The extra that it needs is not installed.
    """
    built_in = _BUILT_IN[kind].get(name)
    if built_in is not None:
        module, _, attribute = built_in.partition(":")
        return cast("Callable[..., object]", getattr(import_module(module), attribute))
    for entry_point in _entry_points(kind):
        if entry_point.name == name:
            return _load(kind, entry_point)
    known = ", ".join(part_names(kind))
    raise ConfigError(f"there is no {kind} {name!r}; there are: {known}")


def _entry_points(kind: PartKind) -> list[EntryPoint]:
    # Takes 50 ms to import.
    from importlib.metadata import entry_points

    return list(entry_points(group=f"duologue.{kind}"))


def _load(kind: PartKind, entry_point: EntryPoint) -> Callable[..., object]:
    """Load what an entry point names; code of other people may fail in any way."""
    where = f"{kind} {entry_point.name!r}, the entry point {entry_point.value}"
    try:
        factory: object = entry_point.load()
    except DuologueError:
        raise
    except Exception as error:
        raise ConfigError(f"{where}, can't be loaded: {describe(error)}") from error
    if not callable(factory):
        raise ConfigError(f"{where}, must be a class or a function, not {factory!r:.60}")
    return factory
