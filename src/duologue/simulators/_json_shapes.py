"""JSON shapes: what a simulator accepts, as pydantic models, and the first thing that is wrong.

Every simulator declares its client's messages as subclasses of `JsonShape` and checks them with
`read`. The words for a wrong value belong to the service: `read` raises `ShapeError` with a
`Problem`, which has no text, and each simulator translates it to the error of its service.

Services report the first problem of a value, pydantic reports all of them. The first is the one
that a reader of the value meets first: in an object a missing field, then the fields in the order
in which the client sent them, each down to its leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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
        message: pydantic's text, for a service that uses pydantic's texts, and for all other kinds
            of problems, which are "invalid".
    """

    kind: Literal["missing", "unknown", "type", "choice", "below", "above", "invalid"]
    path: Path
    value: Json
    wanted: tuple[JsonType, ...] = ()
    choices: str = ""
    bound: float = 0
    message: str = ""


class ShapeError(ValueError):
    """A JSON value does not have the shape.

    Attributes:
        problem: The first problem in the order of the value.
        declared: The first problem in the order in which the shape declares its fields.
    """

    def __init__(self, problem: Problem, declared: Problem) -> None:
        super().__init__(f"{problem.kind} at {problem.path}")
        self.problem = problem
        self.declared = declared


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


def read[T](shape: TypeAdapter[T], value: Json, *, spell: Callable[[str], str] = str) -> Json:
    """Return the value without its optional fields that are null.

    Args:
        shape: The shape that the value must have.
        value: The value.
        spell: Returns the name of a field from the key that the client sent.

    Raises:
        ShapeError: The value does not have the shape.
    """
    found = parse(shape, value, spell=spell)
    kept: Json = shape.dump_python(found, exclude_unset=True, by_alias=True)
    return kept


def parse[T](shape: TypeAdapter[T], value: Json, *, spell: Callable[[str], str] = str) -> T:
    """Return the value as an instance of the shape; arguments and errors as in `read`."""
    try:
        return shape.validate_python(value)
    except ValidationError as error:
        document = _Document(value, spell)
        problems = [document.problem(one) for one in error.errors(include_url=False)]
        raise ShapeError(document.first(problems), problems[0]) from None


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


class _Document:
    """A JSON value with problems, and the places of these in it."""

    def __init__(self, root: Json, spell: Callable[[str], str]) -> None:
        self._root = root
        self._spell = spell
        self._keys: dict[int, dict[str, tuple[int, str]]] = {}
        """Of objects, which may have very many keys: position and key of each field."""

    def first(self, problems: list[Problem]) -> Problem:
        """Return the problem that a reader of the value meets first."""
        problems = sorted(problems, key=lambda problem: self._place(problem.path))
        first = problems[0]
        if first.kind != "type":
            return first
        # For a union, pydantic reports the errors of every member. Only the member of the value's
        # own JSON type counts; if there is none, the value is wrong for the types of all members.
        depth = len(first.path)
        related = [problem for problem in problems if problem.path[:depth] == first.path]
        for problem in related:
            if problem.path != first.path or problem.kind != "type":
                return problem
        wanted = tuple(dict.fromkeys(name for problem in related for name in problem.wanted))
        return replace(first, wanted=wanted)

    def problem(self, details: ErrorDetails) -> Problem:
        """Return the problem that pydantic reports."""
        kind, context, value = details["type"], details.get("ctx", {}), details["input"]
        problem = Problem("invalid", self._path(details), value, message=details["msg"])
        match kind:
            case "missing":
                return replace(problem, kind="missing")
            case "extra_forbidden":
                return replace(problem, kind="unknown")
            case "union_tag_not_found":
                return replace(problem, kind="missing", path=(*problem.path, _tag(context)))
            case "union_tag_invalid":
                tag = _tag(context)
                problem = replace(problem, path=(*problem.path, tag), value=value[tag])
                return _wrong_choice(problem, "string", context["expected_tags"])
            case "literal_error":
                return _wrong_choice(problem, "enum", context["expected"].replace(" or ", ", "))
            case "greater_than_equal":
                return replace(problem, kind="below", bound=context["ge"])
            case "less_than_equal":
                return replace(problem, kind="above", bound=context["le"])
            case _ if kind in _TYPES:
                return replace(problem, kind="type", wanted=(_TYPES[kind],))
            case _:
                return problem

    def _path(self, details: ErrorDetails) -> Path:
        """Return the path in the value: pydantic's location without the names of union members."""
        location, value = details["loc"], details["input"]
        if details["type"] == "missing":
            name = str(location[-1])
            for path, found in self._paths(self._root, location[:-1]):
                if isinstance(found, dict) and self._key(found, name) is None:
                    return (*path, name)
        for path, found in self._paths(self._root, location):
            if found is value:
                return path
        return location

    def _paths(self, value: Json, location: Path) -> Iterator[tuple[Path, Json]]:
        """Yield every path that the location may stand for, with the value at that path."""
        if not location:
            yield (), value
            return
        step = self._step(value, location[0])
        if step is not None:
            for path, found in self._paths(step[1], location[1:]):
                yield (location[0], *path), found
        if isinstance(location[0], str):
            yield from self._paths(value, location[1:])

    def _place(self, path: Path) -> list[int]:
        """Return the position of the path at each level; -1 for a missing field."""
        place: list[int] = []
        value = self._root
        for name in path:
            step = self._step(value, name)
            if step is None:
                return [*place, -1]
            place.append(step[0])
            value = step[1]
        return place

    def _step(self, value: Json, name: str | int) -> tuple[int, Json] | None:
        """Return position and value of a field or an entry, if there is one."""
        if isinstance(value, list):
            return (name, value[name]) if isinstance(name, int) and name < len(value) else None
        if not isinstance(value, dict) or not isinstance(name, str):
            return None
        found = self._key(value, name)
        return None if found is None else (found[0], value[found[1]])

    def _key(self, value: JsonObject, name: str) -> tuple[int, str] | None:
        keys = self._keys.get(id(value))
        if keys is None:
            keys = self._keys[id(value)] = {}
            for position, key in enumerate(value):
                keys.setdefault(key, (position, key))
                # Of a field that was sent in two spellings, the last one counts.
                keys[self._spell(key)] = (position, key)
        return keys.get(name)


def _wrong_choice(problem: Problem, wanted: JsonType, choices: str) -> Problem:
    if isinstance(problem.value, str):
        return replace(problem, kind="choice", choices=choices)
    return replace(problem, kind="type", wanted=(wanted,))


def _tag(context: Mapping[str, Any]) -> str:
    return str(context["discriminator"]).strip("'")
