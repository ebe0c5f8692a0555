"""Holds every event of the simulator against the official SDK's own type of it."""

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

NOT_TYPED = {"session": {"id", "object", "expires_at"}}
"""Fields that the service sends and the SDK's types leave out."""


def certify(raw: dict[str, Any]) -> None:
    """Every required field is there and of its type, and no field is unknown to the SDK."""
    model = TYPES[raw["type"]]
    event = model.model_validate(raw)
    for where, names in _unknown(event, raw["type"]):
        last = where.rpartition(".")[2]
        assert names <= NOT_TYPED.get(last, set()), f"{where}: {names}"


def _unknown(value: object, where: str) -> Iterator[tuple[str, set[str]]]:
    if isinstance(value, BaseModel):
        if value.model_extra:
            yield where, set(value.model_extra)
        for name in value.model_fields_set:
            yield from _unknown(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from _unknown(one, where)
