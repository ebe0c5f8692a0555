"""Read fields of a server's JSON, whose values may be of any type."""

from __future__ import annotations

import json
from collections.abc import Mapping

from duologue.json_types import Json, JsonObject

MAX_DEPTH = 100
"""Maximum nesting of foreign JSON that is passed on, because deeper JSON can be parsed but not
encoded again.
"""


class MalformedError(ValueError):
    """An event does not have the structure that the protocol requires."""


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
    """Return a required string. Raise `MalformedError` for anything else."""
    value = event.get(key)
    if not isinstance(value, str):
        raise MalformedError(key)
    return value


def optional_str(event: JsonObject, key: str) -> str | None:
    """Return a string, or None for anything else."""
    value = event.get(key)
    return value if isinstance(value, str) else None


def number_field(event: JsonObject, key: str) -> float | None:
    """Return a number, or None for anything else."""
    value = event.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


def int_field(event: JsonObject, key: str) -> int | None:
    """Return an integer, or None for anything else."""
    value = event.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def object_field(event: JsonObject, key: str) -> JsonObject:
    """Return an object, which is empty for anything else."""
    value = event.get(key)
    return value if isinstance(value, dict) else {}


def object_list(event: JsonObject, key: str) -> list[JsonObject]:
    """Return the objects of a list, without its other elements."""
    value = event.get(key)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def deep_merge(base: Mapping[str, Json], extra: Mapping[str, Json]) -> JsonObject:
    """Return ``base`` with ``extra`` merged into it, object by object."""
    out = dict(base)
    for key, value in extra.items():
        old = out.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        out[key] = deep_merge(old, value) if both else value  # type: ignore[arg-type]
    return out


def parse_object(text: str) -> JsonObject:
    """Return the object that a JSON text contains; an empty one for anything else."""
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    # JSON with deeper nesting could not be encoded again.
    return value if isinstance(value, dict) and is_shallow(value) else {}
