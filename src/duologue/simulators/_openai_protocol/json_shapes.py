"""What a JSON value must look like, and the refusal in OpenAI's words where it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from duologue.json_types import Json
from duologue.simulators._fields import JsonObject


class RefusedError(Exception):
    """A client's event is not taken; becomes an ``error`` event or an HTTP error."""

    def __init__(
        self,
        code: str,
        message: str,
        param: str | None = None,
        *,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Text:
    """A string; one of ``choices``, if there are any."""

    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer within bounds, both inclusive."""

    low: int | None = None
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds, both inclusive."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""


@dataclass(frozen=True, slots=True)
class Anything:
    """Any value at all."""


@dataclass(frozen=True, slots=True)
class Many:
    """A list."""

    of: Shape


@dataclass(frozen=True, slots=True)
class Table:
    """An object with these fields and no others."""

    required: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entries:
    """An object with any names, and values of one shape."""

    of: Shape


@dataclass(frozen=True, slots=True)
class Tagged:
    """An object whose field ``by`` says which table it follows."""

    by: str
    kinds: Mapping[str, Table]


@dataclass(frozen=True, slots=True)
class OneOf:
    """Any of several shapes of different JSON types."""

    shapes: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class Nullable:
    """The shape, or null."""

    of: Shape


type Shape = (
    Text | Whole | Number | Flag | Anything | Many | Table | Entries | Tagged | OneOf | Nullable
)


def check(shape: Shape, value: Json, path: str) -> Json:
    """Return the value at ``path`` without the optional fields that are null.

    The service takes null for every field that may be left out, as if it were; LiveKit sends
    ``instructions: null`` with each request. Where null means something of its own (`Nullable`),
    it stays. Raises `RefusedError` unless the value has the shape.
    """
    match shape:
        case Anything():
            return value
        case Nullable(of):
            return None if value is None else check(of, value, path)
        case OneOf(shapes):
            for one in shapes:
                if _suits(one, value):
                    return check(one, value, path)
            raise _wrong_type(" or ".join(_name(one) for one in shapes), value, path)
        case _ if not _suits(shape, value):
            raise _wrong_type(_name(shape), value, path)
        case Text(choices):
            if choices and value not in choices:
                raise _wrong_value(value, choices, path)
            return value
        case Whole(low, high) | Number(low, high):
            _bounds(value, low, high, "integer" if isinstance(shape, Whole) else "decimal", path)
            return value
        case Flag():
            return value
        case Many(of):
            assert isinstance(value, list)  # noqa: S101 - it suits
            return [check(of, entry, f"{path}[{index}]") for index, entry in enumerate(value)]
        case Entries(of):
            assert isinstance(value, dict)  # noqa: S101 - it suits
            return {key: check(of, entry, f"{path}.{key}") for key, entry in value.items()}
        case Table():
            assert isinstance(value, dict)  # noqa: S101 - it suits
            return _table(shape, value, path)
        case Tagged(by, kinds):
            assert isinstance(value, dict)  # noqa: S101 - it suits
            where = f"{path}.{by}" if path else by
            if by not in value:
                raise missing(where)
            tag = value[by]
            if not isinstance(tag, str):
                raise _wrong_type("a string", tag, where)
            if tag not in kinds:
                raise _wrong_value(tag, tuple(kinds), where)
            return _table(kinds[tag], value, path, tag=by)


def check_object(shape: Table | Tagged | Entries | Nullable, value: Json, path: str) -> JsonObject:
    """Check an object; return an empty one for null. Raises `RefusedError`."""
    found = check(shape, value, path)
    return found if isinstance(found, dict) else {}


def missing(path: str) -> RefusedError:
    """A field that must be there is not."""
    return RefusedError(
        "missing_required_parameter", f"Missing required parameter: '{path}'.", path
    )


def _table(table: Table, value: Mapping[str, Json], path: str, tag: str = "") -> JsonObject:
    for key in table.required:
        if key not in value:
            raise missing(f"{path}.{key}" if path else key)
    found: JsonObject = {}
    for key, one in value.items():
        if key == tag:
            found[key] = one
            continue
        where = f"{path}.{key}" if path else key
        shape = table.required.get(key) or table.optional.get(key)
        if shape is None:
            raise RefusedError("unknown_parameter", f"Unknown parameter: '{where}'.", where)
        if one is None and key in table.optional and not isinstance(shape, Nullable):
            continue
        found[key] = check(shape, one, where)
    return found


def _suits(shape: Shape, value: Json) -> bool:
    match shape:
        case Text():
            return isinstance(value, str)
        case Whole():
            return isinstance(value, int) and not isinstance(value, bool)
        case Number():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Flag():
            return isinstance(value, bool)
        case Many():
            return isinstance(value, list)
        case Table() | Tagged() | Entries():
            return isinstance(value, dict)
        case Nullable(of):
            return value is None or _suits(of, value)
        case OneOf(shapes):
            return any(_suits(one, value) for one in shapes)
        case Anything():
            return True


def _name(shape: Shape) -> str:
    match shape:
        case Text():
            return "a string"
        case Whole():
            return "an integer"
        case Number():
            return "a decimal"
        case Flag():
            return "a boolean"
        case Many():
            return "an array"
        case Table() | Tagged() | Entries():
            return "an object"
        case Nullable(of):
            return f"{_name(of)} or null"
        case OneOf(shapes):
            return " or ".join(_name(one) for one in shapes)
        case Anything():
            return "anything"


def _found(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"


def _wrong_type(wanted: str, value: Json, path: str) -> RefusedError:
    text = f"Invalid type for '{path}': expected {wanted}, but got {_found(value)} instead."
    return RefusedError("invalid_type", text, path)


def _wrong_value(value: Json, choices: tuple[str, ...], path: str) -> RefusedError:
    listed = ", ".join(f"'{choice}'" for choice in choices)
    return RefusedError(
        "invalid_value", f"Invalid value: '{value}'. Supported values are: {listed}.", path
    )


def _bounds(value: Json, low: float | None, high: float | None, kind: str, path: str) -> None:
    assert isinstance(value, int | float)  # noqa: S101 - it suits
    if low is not None and value < low:
        raise RefusedError(
            f"{kind}_below_min_value",
            f"Invalid '{path}': {kind} below minimum value. Expected a value >= {low}, "
            f"but got {value} instead.",
            path,
        )
    if high is not None and value > high:
        raise RefusedError(
            f"{kind}_above_max_value",
            f"Invalid '{path}': {kind} above maximum value. Expected a value <= {high}, "
            f"but got {value} instead.",
            path,
        )
