"""Shapes of JSON values, read as protobuf's JSON in both casings, and the service's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from duologue.json_types import Json, JsonObject

INVALID, POLICY, INTERNAL = 1007, 1008, 1011
"""Close codes of the service: for an invalid argument, a policy, and its own failure."""

_HUMP = re.compile(r"(?<!^)(?=[A-Z])")
_SNAKE = re.compile(r"_+([a-zA-Z0-9])")


class RefusedError(Exception):
    """The client's request is refused: the session ends with this close code and reason."""

    def __init__(self, reason: str, code: int = INVALID) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the names of an enum."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer, perhaps written as a string."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number."""


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""


@dataclass(frozen=True, slots=True)
class Anything:
    """Any value, unchanged."""


@dataclass(frozen=True, slots=True)
class Entries:
    """An object with any names, unchanged."""


@dataclass(frozen=True, slots=True)
class Many:
    """A list."""

    of: Shape


@dataclass(frozen=True, slots=True)
class Table:
    """An object with these fields, and at most one of the fields of each of ``oneofs``."""

    fields: Mapping[str, Shape] = field(default_factory=dict)
    oneofs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


type Shape = Text | Choice | Whole | Number | Flag | Anything | Entries | Many | Table


@cache
def camel(name: str) -> str:
    """Return the name in camelCase: ``turn_complete`` is ``turnComplete``."""
    return _SNAKE.sub(lambda match: match[1].upper(), name)


@cache
def snake(name: str) -> str:
    """Return the name in snake_case, which the service's error messages use."""
    return _HUMP.sub("_", name).lower()


def read(shape: Shape, value: Json, path: str = "") -> Json:
    """Return the value with names in camelCase and without nulls. Raises `RefusedError`."""
    match shape, value:
        case Anything(), _:
            return value
        case Table(), dict():
            return _table(shape, value, path)
        case Many(of), list():
            return [read(of, one, f"{path}[{index}]") for index, one in enumerate(value)]
        case Entries(), dict():
            return value
        case Text(), str():
            return value
        case Flag(), bool():
            return value
        case Choice(names), str() if value in names:
            return value
        case Whole() | Number(), int() | float() | str() if not isinstance(value, bool):
            return _number(shape, value, path)
        case _:
            raise _wrong(shape, value, path)


def read_object(shape: Table, value: Json, path: str = "") -> JsonObject:
    """Read an object, see `read`."""
    found = read(shape, value, path)
    assert isinstance(found, dict)  # noqa: S101 - a table reads an object
    return found


def unknown(name: str, path: str) -> RefusedError:
    """Return the error for an unknown field."""
    where = f" at '{path}'" if path else ""
    return RefusedError(
        f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
    )


def _table(table: Table, value: Mapping[str, Json], path: str) -> JsonObject:
    out: JsonObject = {}
    for key, one in value.items():
        name = camel(key)
        shape = table.fields.get(name)
        if shape is None:
            raise unknown(key, path)
        if one is not None:
            out[name] = read(shape, one, f"{path}.{snake(name)}" if path else snake(name))
    for oneof, names in table.oneofs.items():
        found = [name for name in names if name in out]
        if len(found) > 1:
            raise RefusedError(
                f"Invalid value at '{path}' (oneof), oneof field '{oneof}' is already set. "
                f"Cannot set '{found[1]}'"
            )
    return out


def _number(shape: Whole | Number, value: float | str, path: str) -> int | float:
    try:
        number = float(value)
        whole = int(number)
    except (ValueError, OverflowError):
        raise _wrong(shape, value, path) from None
    if isinstance(shape, Number):
        return number
    if whole != number:
        raise _wrong(shape, value, path)
    return whole


def _wrong(shape: Shape, value: Json, path: str) -> RefusedError:
    shown = f'"{value[:40]}"' if isinstance(value, str) else str(value)[:40]
    if isinstance(shape, Table | Entries):
        reason = f"Invalid value at '{path}' ({_NAMES[type(shape)]}), {shown}"
        return RefusedError(reason)
    return RefusedError(f"Invalid value at '{path}' ({_NAMES[type(shape)]}), {shown}")


_NAMES: Mapping[type, str] = {
    Text: "TYPE_STRING",
    Choice: "TYPE_ENUM",
    Whole: "TYPE_INT32",
    Number: "TYPE_DOUBLE",
    Flag: "TYPE_BOOL",
    Entries: "TYPE_MESSAGE",
    Table: "TYPE_MESSAGE",
    Many: "TYPE_ARRAY",
    Anything: "TYPE_ANY",
}
