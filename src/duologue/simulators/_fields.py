"""Ids, and access to fields of JSON that has been validated."""

from __future__ import annotations

import secrets
import string

from duologue._optional import optional
from duologue.json_types import Json, JsonObject

with optional("simulate"):
    import orjson


MAX_DEPTH = 100
"""Levels of lists and objects in received JSON; deeper JSON is refused."""

_LETTERS = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """Return an id in the form of the service: ``item_`` and 21 letters or digits."""
    return f"{prefix}_{''.join(secrets.choice(_LETTERS) for _ in range(21))}"


def read_json(text: str | bytes) -> Json:
    """Parse a JSON text.

    Raises:
        ValueError: The text is not JSON, or nested too deeply.
    """
    value: Json = orjson.loads(text)
    if is_too_deep(value):
        raise ValueError(f"JSON is nested more than {MAX_DEPTH} levels deep")
    return value


def is_too_deep(value: Json) -> bool:
    """Return whether lists and objects are nested more than `MAX_DEPTH` levels deep."""
    level: list[Json] = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Json] = []
        for one in level:
            if isinstance(one, dict):
                below += [inner for inner in one.values() if isinstance(inner, dict | list)]
            elif isinstance(one, list):
                below += [inner for inner in one if isinstance(inner, dict | list)]
        if not below:
            return False
        level = below
    return True


def value_at(value: Json, *path: str) -> Json:
    """Return the value at ``path``, or None if a part of the path is missing."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text_at(value: Json, *path: str) -> str:
    """Return the string at ``path``, or "" if there is no string."""
    found = value_at(value, *path)
    return found if isinstance(found, str) else ""


def int_at(value: Json, *path: str, default: int = 0) -> int:
    """Return the integer at ``path``, or ``default``."""
    found = value_at(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else default


def flag_at(value: Json, *path: str, default: bool = False) -> bool:
    """Return the boolean at ``path``, or ``default``."""
    found = value_at(value, *path)
    return found if isinstance(found, bool) else default


def objects_at(value: Json, *path: str) -> list[JsonObject]:
    """Return the objects of the list at ``path``, or an empty list."""
    found = value_at(value, *path)
    if not isinstance(found, list):
        return []
    return [one for one in found if isinstance(one, dict)]
