"""JSON as protobuf reads it, in both casings, and the service's errors for anything else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from duologue.json_types import Json, JsonObject
from duologue.simulators import _json_shapes
from duologue.simulators._json_shapes import JsonShape, JsonType, Problem, ShapeError

INVALID, POLICY, INTERNAL = 1007, 1008, 1011
"""Close codes of the service: for an invalid argument, a policy, and its own failure."""

_HUMP = re.compile(r"(?<!^)(?=[A-Z])")
_SNAKE = re.compile(r"_+([a-zA-Z0-9])")

_TYPE_NAMES: Mapping[JsonType, str] = {
    "string": "TYPE_STRING",
    "enum": "TYPE_ENUM",
    "integer": "TYPE_INT32",
    "number": "TYPE_DOUBLE",
    "boolean": "TYPE_BOOL",
    "array": "TYPE_ARRAY",
    "object": "TYPE_MESSAGE",
}


class RefusedError(Exception):
    """The client's request is refused: the session ends with this close code and reason."""

    def __init__(self, reason: str, code: int = INVALID) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@cache
def camel(name: str) -> str:
    """Return the name in camelCase: ``turn_complete`` is ``turnComplete``."""
    return _SNAKE.sub(lambda match: match[1].upper(), name)


@cache
def snake(name: str) -> str:
    """Return the name in snake_case, which the service's error messages use."""
    return _HUMP.sub("_", name).lower()


class ProtoShape(JsonShape):
    """An object whose fields may be named in either casing; a field that is null is left out."""

    model_config = ConfigDict(alias_generator=to_camel)

    @model_validator(mode="before")
    @classmethod
    def _spell(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        names = _field_names(cls)
        if value.keys() <= names and None not in value.values():
            return value
        return {
            camel(key) if camel(key) in names else key: one
            for key, one in value.items()
            if one is not None or camel(key) not in names
        }


@cache
def _field_names(shape: type[ProtoShape]) -> frozenset[str]:
    return frozenset(field.alias or "" for field in shape.model_fields.values())


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticCustomError("float_type", "not a number")
    try:
        number = float(value)
        int(number)
    except (ValueError, OverflowError):
        raise PydanticCustomError("float_type", "not a number") from None
    return number


def _integer(value: object) -> int:
    try:
        number = _number(value)
    except PydanticCustomError:
        raise PydanticCustomError("int_type", "not an integer") from None
    if number != int(number):
        raise PydanticCustomError("int_type", "not an integer")
    return int(number)


type Number = Annotated[float, BeforeValidator(_number)]
"""A finite number, which may be written as a string."""
type Integer = Annotated[int, BeforeValidator(_integer)]
"""An integer, which may be written as a string or as a float."""


def read[T](shape: TypeAdapter[T], value: Json) -> Json:
    """Return the value with names in camelCase and without nulls. Raises `RefusedError`."""
    try:
        return _json_shapes.read(shape, value, spell=camel)
    except ShapeError as error:
        raise _refusal(error.problem) from None


def read_object[T](shape: TypeAdapter[T], value: Json) -> JsonObject:
    """Read an object, see `read`."""
    found = read(shape, value)
    assert isinstance(found, dict)  # noqa: S101 - the shape is an object
    return found


def _refusal(problem: Problem) -> RefusedError:
    """Return the service's error for a problem."""
    if problem.kind == "unknown":
        *parents, name = problem.path
        where = f" at '{_path(parents)}'" if parents else ""
        return RefusedError(
            f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
        )
    value = problem.value
    shown = f'"{value[:40]}"' if isinstance(value, str) else str(value)[:40]
    kind = "TYPE_ENUM" if problem.kind == "choice" else _TYPE_NAMES[problem.wanted[0]]
    return RefusedError(f"Invalid value at '{_path(problem.path)}' ({kind}), {shown}")


def _path(path: Sequence[str | int]) -> str:
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += f".{snake(key)}" if text else snake(key)
    return text
