"""Checks every event of the simulator against the official SDK's type of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from openai.types.realtime import realtime_server_event
from pydantic import BaseModel


def _models(union: Any) -> Iterator[type[BaseModel]]:
    for one in get_args(union):
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield one
        else:
            yield from _models(one)


TYPES: dict[str, type[BaseModel]] = {
    get_args(model.model_fields["type"].annotation)[0]: model
    for model in _models(realtime_server_event.RealtimeServerEvent)
}
"""The SDK's models of server events, by type."""

PIECES = {"obfuscation"}
NOT_TYPED = {
    "session": {"id", "object", "expires_at"},
    "item": {"phase"},
    "output": {"phase"},
    "output_token_details": {"reasoning_tokens"},
    "conversation.item.input_audio_transcription.delta": PIECES,
    "response.output_text.delta": PIECES,
    "response.output_audio_transcript.delta": PIECES,
    "response.function_call_arguments.delta": PIECES,
}
"""Fields that the service sends and the SDK's types leave out, by event or by part of an event."""


def check_against_sdk(raw: dict[str, Any]) -> None:
    """Assert that no field is missing, of a wrong type, or unknown to the SDK."""
    model = TYPES[raw["type"]]
    event = model.model_validate(raw)
    for where, names in _unknown(event, raw["type"]):
        known = NOT_TYPED.get(where) or NOT_TYPED.get(where.rpartition(".")[2], set())
        assert names <= known, f"{where}: {names}"


def _unknown(value: object, where: str) -> Iterator[tuple[str, set[str]]]:
    if isinstance(value, BaseModel):
        if value.model_extra:
            yield where, set(value.model_extra)
        for name in value.model_fields_set:
            yield from _unknown(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from _unknown(one, where)
