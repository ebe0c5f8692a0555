"""JSON shapes: what a simulator accepts, as pydantic models, and the first thing that is wrong.

Every simulator declares its client's messages as subclasses of `JsonShape` and checks them with
`read`. The words for a wrong value belong to the service: `read` raises `ShapeError` with a
`Problem`, which has no text, and each simulator translates it to the error of its service.

Services report the first problem of a value, pydantic reports all of them. The first is the one
that a reader of the value meets first: in an object a missing field, then the fields in the order
in which the client sent them, each down to its leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from duologue.json_types import Json, JsonObject

type Shape = TypeAdapter[object]
"""A shape that `read` checks: a `JsonShape`, or a union of them."""
type Path = tuple[str | int, ...]
type JsonType = Literal["string", "enum", "integer", "number", "boolean", "array", "object"]

LEFT_OUT: Any = object()
"""The default of an optional field. Null then means the same as no field."""

AS_SENT = WrapValidator(lambda value, validate: (validate(value), value)[1])
"""Keeps a number as the client sent it: 1, not 1.0."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a JSON value, and where.

    Attributes:
        kind: What is wrong.
        path: Where.
        value: The wrong value; for a missing field the object without it.
        wanted: The types that are accepted in place of a wrong type.
        choices: The accepted values of an enum or a tag, quoted and separated by commas.
        bound: The limit that a number is below or above.
    """

    kind: Literal["missing", "unknown", "type", "choice", "below", "above"]
    path: Path
    value: Json
    wanted: tuple[JsonType, ...] = ()
    choices: str = ""
    bound: float = 0


class ShapeError(ValueError):
    """A JSON value does not have the shape; ``problem`` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.kind} at {problem.path}")
        self.problem = problem


class JsonShape(BaseModel):
    """An object with exactly the fields of the class. No value is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    TAG: ClassVar[str] = ""
    """A field that is checked before all others, as pydantic checks the tag of a union."""

    @model_validator(mode="before")
    @classmethod
    def _prepare(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        if cls.TAG:
            _check_tag(value, cls.TAG, get_args(cls.model_fields[cls.TAG].annotation))
        if None not in value.values():
            return value
        fields = cls.model_fields
        return {
            key: one
            for key, one in value.items()
            if one is not None or key not in fields or fields[key].default is not LEFT_OUT
        }


def read(shape: Shape, value: Json) -> Json:
    """Return the value without its optional fields that are null.

    Raises:
        ShapeError: The value does not have the shape.
    """
    try:
        found = shape.validate_python(value)
    except ValidationError as error:
        raise ShapeError(_first_problem(error, value)) from None
    kept: Json = shape.dump_python(found, exclude_unset=True)
    return kept


def _check_tag(value: Mapping[str, Json], tag: str, choices: tuple[str, ...]) -> None:
    """Raise the errors that pydantic raises for the tag of a union of two or more classes."""
    context = {"discriminator": f"'{tag}'", "expected_tags": ", ".join(map(repr, choices))}
    if tag not in value:
        raise PydanticCustomError("union_tag_not_found", "missing tag", context)
    if value[tag] not in choices:
        raise PydanticCustomError("union_tag_invalid", "invalid tag", context)


_TYPES: Mapping[str, JsonType] = {
    "string_type": "string",
    "int_type": "integer",
    "float_type": "number",
    "bool_type": "boolean",
    "list_type": "array",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
}


def _first_problem(error: ValidationError, value: Json) -> Problem:
    places = _Places()
    problems = [_problem(details, value) for details in error.errors(include_url=False)]
    problems.sort(key=lambda problem: places.of(problem.path, value))
    first = problems[0]
    if first.kind != "type":
        return first
    # For a union, pydantic reports the errors of every member. Only the member of the value's own
    # JSON type counts; if there is none, the value is wrong for the types of all members.
    depth = len(first.path)
    related = [problem for problem in problems if problem.path[:depth] == first.path]
    for problem in related:
        if problem.path != first.path or problem.kind != "type":
            return problem
    wanted = tuple(dict.fromkeys(name for problem in related for name in problem.wanted))
    return Problem("type", first.path, first.value, wanted)


class _Places:
    """Says where a reader of a JSON value meets a path, as a key for sorting."""

    def __init__(self) -> None:
        self._positions: dict[int, dict[str, int]] = {}
        """The positions of the keys of objects, which may have very many."""

    def of(self, path: Path, value: Json) -> list[int]:
        """Return the position of the path at each level; -1 for a missing field."""
        found = []
        for key in path:
            if isinstance(value, dict) and isinstance(key, str) and key in value:
                found.append(self._positions_in(value)[key])
                value = value[key]
            elif isinstance(value, list) and isinstance(key, int):
                found.append(key)
                value = value[key]
            else:
                return [*found, -1]
        return found

    def _positions_in(self, value: JsonObject) -> dict[str, int]:
        positions = self._positions.get(id(value))
        if positions is None:
            positions = {key: index for index, key in enumerate(value)}
            self._positions[id(value)] = positions
        return positions


def _problem(details: ErrorDetails, root: Json) -> Problem:
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    path = _path_of(details, root)
    match kind:
        case "missing":
            return Problem("missing", path, value)
        case "extra_forbidden":
            return Problem("unknown", path, value)
        case "union_tag_not_found":
            return Problem("missing", (*path, _tag(context)), value)
        case "union_tag_invalid":
            tag = _tag(context)
            path, value = (*path, tag), value[tag]
            if not isinstance(value, str):
                return Problem("type", path, value, ("string",))
            return Problem("choice", path, value, choices=context["expected_tags"])
        case "literal_error":
            if not isinstance(value, str):
                return Problem("type", path, value, ("enum",))
            return Problem("choice", path, value, choices=context["expected"].replace(" or ", ", "))
        case "greater_than_equal":
            return Problem("below", path, value, bound=context["ge"])
        case "less_than_equal":
            return Problem("above", path, value, bound=context["le"])
        case _:
            return Problem("type", path, value, (_TYPES[kind],))


def _tag(context: Mapping[str, Any]) -> str:
    return str(context["discriminator"]).strip("'")


def _path_of(details: ErrorDetails, root: Json) -> Path:
    """Return the path in the value: pydantic's location without the names of union members."""
    location, value = details["loc"], details["input"]
    if details["type"] == "missing":
        name = str(location[-1])
        for path, found in _paths(root, location[:-1]):
            if isinstance(found, dict) and name not in found and _is_copy(value, found):
                return (*path, name)
    for path, found in _paths(root, location):
        if found is value:
            return path
    return location


def _is_copy(copy: Json, original: JsonObject) -> bool:
    """Return whether it is the original, perhaps without its nulls."""
    return isinstance(copy, dict) and all(original.get(key) is copy[key] for key in copy)


def _paths(value: Json, location: Path) -> Iterator[tuple[Path, Json]]:
    """Yield every path that the location may stand for, with the value at that path."""
    if not location:
        yield (), value
        return
    first, rest = location[0], location[1:]
    match value, first:
        case dict(), str() if first in value:
            yield from _below(first, value[first], rest)
        case list(), int():
            yield from _below(first, value[first], rest)
    if isinstance(first, str):
        yield from _paths(value, rest)


def _below(key: str | int, value: Json, location: Path) -> Iterator[tuple[Path, Json]]:
    for path, found in _paths(value, location):
        yield (key, *path), found
