"""Ids, and reading what has been validated."""

from __future__ import annotations

import secrets
import string

from duologue.extras import require
from duologue.items import Json

require("orjson", "simulate")

import orjson  # noqa: E402

type Object = dict[str, Json]

MAX_DEPTH = 100
"""Levels of lists and objects in received JSON; deeper JSON is refused."""

_LETTERS = string.ascii_letters + string.digits


def new_id(kind: str) -> str:
    """An id as the service makes them: ``item_`` and 21 letters or digits."""
    return f"{kind}_{''.join(secrets.choice(_LETTERS) for _ in range(21))}"


def read_json(text: str | bytes) -> Json:
    """Parse a JSON text. Raises ``ValueError`` if it is invalid or too deep."""
    value: Json = orjson.loads(text)
    if too_deep(value):
        raise ValueError(f"JSON is nested more than {MAX_DEPTH} levels deep")
    return value


def too_deep(value: Json) -> bool:
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


def inside(value: Json, *path: str) -> Json:
    """The value at ``path``; None where there is nothing."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text_at(value: Json, *path: str) -> str:
    """The string at ``path``; empty where there is none."""
    found = inside(value, *path)
    return found if isinstance(found, str) else ""


def int_at(value: Json, *path: str, default: int = 0) -> int:
    """The integer at ``path``."""
    found = inside(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else default


def flag_at(value: Json, *path: str, default: bool = False) -> bool:
    """The boolean at ``path``."""
    found = inside(value, *path)
    return found if isinstance(found, bool) else default


def objects_at(value: Json, *path: str) -> list[Object]:
    """The list of objects at ``path``."""
    found = inside(value, *path)
    if not isinstance(found, list):
        return []
    return [one for one in found if isinstance(one, dict)]
