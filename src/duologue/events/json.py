"""Events as JSON, for the page, for log files, and for programs in other languages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date
from enum import Enum
from os import PathLike, fspath

from duologue.events.events import Event, RealtimeConnectedEvent
from duologue.items import replace_surrogates
from duologue.json_types import Json, JsonObject


def event_to_json(event: Event) -> JsonObject:
    """Return the event as JSON values: ``{"type": name of its class, ...its fields}``.

    Nested dataclasses, enums, paths, dates, mappings and sequences become their JSON equivalents;
    NaN and infinity become null.

    Raises:
        TypeError: a value has no JSON equivalent.
    """
    return {"type": type(event).__name__} | {
        field.name: _to_json(getattr(event, field.name)) for field in fields(event)
    }


def event_without_setup(event: Event) -> JsonObject:
    """Return what `event_to_json` does, without what the model was set up with.

    The setup holds the instructions and the schemas of the tools. Those are the program's own, so
    they neither go to the person's side nor into a recording of the conversation.
    """
    value = event_to_json(event)
    if isinstance(event, RealtimeConnectedEvent):
        return {name: item for name, item in value.items() if name != "session_config"}
    return value


def _to_json(value: object) -> Json:
    match value:
        case Enum():
            return _to_json(value.value)
        case str():
            return replace_surrogates(value)
        case None | bool():
            return value
        case int():
            return int(value)
        case float():
            return float(value) if math.isfinite(value) else None
        case Mapping():
            return {_key(key): _to_json(item) for key, item in value.items()}
        case PathLike():
            path: str | bytes = fspath(value)
            return path if isinstance(path, str) else path.decode(errors="replace")
        case date():
            return value.isoformat()
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            return [_to_json(item) for item in value]
        case set() | frozenset():
            return sorted((_to_json(item) for item in value), key=str)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: _to_json(getattr(value, field.name)) for field in fields(value)}
    number = getattr(value, "item", None)
    if callable(number):
        plain = number()
        if isinstance(plain, bool | int | float):
            return _to_json(plain)
    raise TypeError(f"{type(value).__name__} has no JSON equivalent")


def _key(key: object) -> str:
    name = key.value if isinstance(key, Enum) else key
    return replace_surrogates(name if isinstance(name, str) else str(name))
