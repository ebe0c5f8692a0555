"""Reading fields of a server's JSON, which may be anything."""

from __future__ import annotations

from duologue.json_types import Json, JsonObject

MAX_DEPTH = 100
"""Levels of foreign JSON that are passed on, because JSON that is nested much deeper can be parsed,
but not encoded again."""


class MalformedError(ValueError):
    """An event is not built as the protocol says."""


def is_shallow(value: Json) -> bool:
    """Return whether a value has at most `MAX_DEPTH` levels, so that it can be encoded again."""
    level: list[Json] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Json] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
        if not below:
            return True
        level = below
    return False


def str_field(event: JsonObject, key: str) -> str:
    """A string that must be there."""
    value = event.get(key)
    if not isinstance(value, str):
        raise MalformedError(key)
    return value


def optional_str(event: JsonObject, key: str) -> str | None:
    """A string, or None for anything else."""
    value = event.get(key)
    return value if isinstance(value, str) else None


def number_field(event: JsonObject, key: str) -> float | None:
    """A number, or None for anything else."""
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


def int_field(event: JsonObject, key: str) -> int | None:
    """A whole number, or None for anything else."""
    value = event.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def object_field(event: JsonObject, key: str) -> JsonObject:
    """An object, empty for anything else."""
    value = event.get(key)
    return value if isinstance(value, dict) else {}


def object_list(event: JsonObject, key: str) -> list[JsonObject]:
    """The objects of a list; whatever else is in it is left out."""
    value = event.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
