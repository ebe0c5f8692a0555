"""Check the arguments of an `Agent`; each error is one sentence that says what to write."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import NoReturn

from duologue.agent.barge_in import BargeInPolicy
from duologue.agent.conversation import Conversation
from duologue.errors import ConfigError
from duologue.realtime.realtime import Realtime

_METHODS: dict[str, tuple[str, ...]] = {
    "edge": ("run", "play", "clear"),
    "stt": ("stream",),
    "tts": ("synthesize",),
    "turn_detection": ("end_of_turn",),
    "vad": ("stream",),
}
"""Methods that the object for each argument must have."""

_STREAMING_METHODS = {"stt": ("connect",), "tts": ("connect",)}
"""Methods that it may have instead, if it keeps a connection."""

_FIELDS: dict[str, tuple[str, ...]] = {
    "edge": ("output_rate", "quality", "lead_ms", "latency_ms"),
    "llm": ("model", "tools_reliable", "prepare"),
    "stt": ("rate",),
    "tts": ("rate",),
    "turn_detection": ("rate",),
    "vad": ("rate", "frame_samples"),
}
"""Attributes that the object must have, too."""

_EXAMPLES = {
    "edge": "an Edge, such as duologue.edges.wav.Edge(...)",
    "llm": "a Realtime, such as duologue.providers.openai.Realtime(), or a text LLM",
    "stt": "an STT (with stream(), or connect() if it keeps a connection)",
    "tts": "a TTS (with synthesize(), or connect() if it keeps a connection)",
    "turn_detection": "a TurnDetector (with end_of_turn())",
    "vad": "a VAD (with stream()), such as EnergyVAD()",
}

_PROVIDERS = {
    "openai": "openai.Realtime",
    "anthropic": "anthropic.LLM",
    "claude": "anthropic.LLM",
    "gemini": "gemini.Realtime",
    "google": "gemini.Realtime",
    "aws": "aws.Realtime",
    "amazon": "aws.Realtime",
    "bedrock": "aws.Realtime",
    "nova": "aws.Realtime",
    "qwen": "qwen.Realtime",
    "alibaba": "qwen.Realtime",
    "local": "local.Realtime",
}


def check_arguments(
    *,
    edge: object,
    llm: object,
    tools: object,
    processors: object,
    conversation: object,
    barge_in: object,
    agent_user: object,
    person: object,
    **parts: object,
) -> None:
    """Raise `ConfigError` for an argument of the wrong kind.

    ``parts`` are the components of a pipeline by name; a component that is None is not checked.
    """
    if isinstance(edge, Realtime) and _has_methods(llm, _METHODS["edge"]):
        raise ConfigError("edge and llm are the wrong way round: swap them")
    _check_part("edge", edge)
    _check_llm(llm)
    for name, part in parts.items():
        # With a Realtime, check only tts here, because the agent rejects all other components.
        if part is not None and (name == "tts" or not isinstance(llm, Realtime)):
            _check_part(name, part)
    for function in _sequence("tools", tools, "functions"):
        if not callable(function):
            raise ConfigError(f"tools must be functions, not {_describe(function)}")
    for processor in _sequence("processors", processors, "Processor objects"):
        _check_instance("processors", processor)
        if not _has_methods(processor, ("audio", "video")):
            raise ConfigError(f"processors must be Processor objects, not {_describe(processor)}")
    if not isinstance(conversation, Conversation | None):
        advice = (
            "write Conversation(store)"
            if _has_methods(conversation, ("load", "put"))
            else "leave it out"
        )
        raise ConfigError(
            f"conversation must be a Conversation, not {_describe(conversation)}: {advice}"
        )
    if not isinstance(barge_in, BargeInPolicy | None):
        raise ConfigError(f"barge_in must be a BargeInPolicy, not {_describe(barge_in)}")
    for name, user in (("agent_user", agent_user), ("person", person)):
        if user is not None and not (hasattr(user, "name") and hasattr(user, "id")):
            raise ConfigError(f"{name} must be User(name, id), not {_describe(user)}")


def _check_llm(llm: object) -> None:
    if isinstance(llm, str):
        provider, _, model = llm.rpartition("/")
        known = _PROVIDERS.get(provider.partition("/")[0].partition(":")[0].lower())
        if known is None:
            known = next(
                (_PROVIDERS[name] for name in _PROVIDERS if name in llm.lower()), "openai.Realtime"
            )
        raise ConfigError(
            f"llm must be a model object, not the text {llm!r}: write "
            f"llm=duologue.providers.{known}({model!r})"
        )
    _check_instance("llm", llm)
    if isinstance(llm, Realtime):
        return
    if not _has_methods(llm, ("generate",)):
        _reject("llm", llm)
    _check_fields("llm", llm)


def _check_part(name: str, part: object) -> None:
    _check_instance(name, part)
    streaming = _STREAMING_METHODS.get(name)
    if not _has_methods(part, _METHODS[name]) and (
        streaming is None or not _has_methods(part, streaming)
    ):
        _reject(name, part)
    _check_fields(name, part)


def _check_fields(name: str, part: object) -> None:
    missing = [field for field in _FIELDS[name] if not hasattr(part, field)]
    if missing:
        raise ConfigError(f"{name} ({_describe(part)}) lacks {' and '.join(missing)}")


def _check_instance(name: str, value: object) -> None:
    if inspect.isclass(value):
        raise ConfigError(
            f"{name} must be an object, not the class {value.__name__}: write {value.__name__}(...)"
        )


def _reject(name: str, value: object) -> NoReturn:
    raise ConfigError(f"{name} must be {_EXAMPLES[name]}, not {_describe(value)}")


def _sequence(name: str, value: object, what: str) -> Sequence[object]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{name} must be a list of {what}, not {_describe(value)}")
    return value


def _has_methods(value: object, methods: tuple[str, ...]) -> bool:
    return all(callable(getattr(value, name, None)) for name in methods)


def _describe(value: object) -> str:
    if value is None or isinstance(value, str | int | float | bool):
        return f"{value!r:.60}"
    return f"a {type(value).__name__}"
