"""Checks every message of the simulated Gemini service against the official SDK's type of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, get_args

from google.genai import types
from pydantic import BaseModel
from pydantic.alias_generators import to_camel


def certify(raw: dict[str, Any]) -> set[str]:
    """Check that the SDK knows every field at any depth, and that each has the SDK's type.

    Returns the message's fields, as ``serverContent.turnComplete``.
    """
    usage = raw.get("usageMetadata")
    if isinstance(usage, dict):
        # The SDK translates the names of Vertex AI before it validates them.
        raw = {**raw, "usageMetadata": {_renamed(name): one for name, one in usage.items()}}
    with warnings.catch_warnings():
        # The SDK only warns about an unknown value of an enum.
        warnings.simplefilter("error")
        types.LiveServerMessage.model_validate(raw)
    return set(_fields(types.LiveServerMessage, raw, ""))


def _renamed(name: str) -> str:
    return name.replace("candidatesToken", "responseToken")


def kinds_of(raw: dict[str, Any]) -> list[str]:
    """Return the kinds of a message: its fields, and those of its content."""
    found = []
    for key, value in raw.items():
        found += [f"{key}.{name}" for name in value] if key == "serverContent" else [key]
    return found


def fields_of(model: type[BaseModel], where: str = "") -> Iterator[str]:
    """Yield every field that the SDK knows, named as by `certify`; only of the Live API."""
    for name, field in model.model_fields.items():
        path = f"{where}.{to_camel(name)}" if where else to_camel(name)
        yield path
        for below in _models(field.annotation):
            if below.__name__.startswith(("LiveServer", "Usage", "Voice", "Transcription")):
                yield from fields_of(below, path)


def _fields(model: type[BaseModel], raw: dict[str, Any], where: str) -> Iterator[str]:
    known = {to_camel(name): field for name, field in model.model_fields.items()}
    for key, value in raw.items():
        assert key in known, f"{where or 'the message'}: the SDK knows no {key}"
        path = f"{where}.{key}" if where else key
        yield path
        below = next(iter(_models(known[key].annotation)), None)
        if below is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            assert isinstance(one, dict), f"{path}: {one!r}"
            yield from _fields(below, one, path)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _models(one)
