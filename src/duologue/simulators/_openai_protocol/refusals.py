"""The refusals of OpenAI's service, and its words for JSON values of a wrong shape."""

from __future__ import annotations

from duologue.json_types import Json, JsonObject
from duologue.simulators._json_shapes import JsonType, Path, Problem, Shape, ShapeError, read


class RefusedError(Exception):
    """A client's event is refused; becomes an ``error`` event or an HTTP error.

    Args:
        code: The code of the error.
        message: Its text.
        param: The path of the wrong field, if there is one.
        kind: The type of the error.
    """

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


def check(shape: Shape, value: Json, path: str) -> Json:
    """Return the value without the optional fields that are null.

    The service takes null for every field that may be left out, as if it were; LiveKit sends
    ``instructions: null`` with each request. Where null has a meaning of its own, it stays.

    Args:
        shape: The shape that the value must have.
        value: The value.
        path: Where it stands in the event, for errors.

    Raises:
        RefusedError: The value does not have the shape.
    """
    try:
        return read(shape, value)
    except ShapeError as error:
        raise _refusal(error.problem, path) from None


def check_object(shape: Shape, value: Json, path: str) -> JsonObject:
    """Check an object; return an empty one for null.

    Raises:
        RefusedError: The value does not have the shape.
    """
    found = check(shape, value, path)
    return found if isinstance(found, dict) else {}


def missing(path: str) -> RefusedError:
    """Return the refusal of a value without a required field."""
    return RefusedError(
        "missing_required_parameter", f"Missing required parameter: '{path}'.", path
    )


def _refusal(problem: Problem, path: str) -> RefusedError:
    where = _join(path, problem.path)
    value = problem.value
    match problem.kind:
        case "missing":
            return missing(where)
        case "unknown":
            return RefusedError("unknown_parameter", f"Unknown parameter: '{where}'.", where)
        case "type":
            wanted = " or ".join(_NAMES[name] for name in problem.wanted)
            return RefusedError(
                "invalid_type",
                f"Invalid type for '{where}': expected {wanted}, but got {_name(value)} instead.",
                where,
            )
        case "choice":
            return RefusedError(
                "invalid_value",
                f"Invalid value: '{value}'. Supported values are: {problem.choices}.",
                where,
            )
        case "below":
            return _out_of_bounds(problem, where, "minimum", ">=")
        case "above":
            return _out_of_bounds(problem, where, "maximum", "<=")
        case "invalid":
            return RefusedError("invalid_value", f"Invalid '{where}': {problem.message}", where)


def _out_of_bounds(problem: Problem, path: str, extreme: str, sign: str) -> RefusedError:
    kind = "decimal" if isinstance(problem.bound, float) else "integer"
    return RefusedError(
        f"{kind}_{problem.kind}_{extreme[:3]}_value",
        f"Invalid '{path}': {kind} {problem.kind} {extreme} value. Expected a value {sign} "
        f"{problem.bound}, but got {problem.value} instead.",
        path,
    )


def _join(start: str, path: Path) -> str:
    for key in path:
        if isinstance(key, int):
            start += f"[{key}]"
        else:
            start += f".{key}" if start else key
    return start


_NAMES: dict[JsonType, str] = {
    "string": "a string",
    "enum": "a string",
    "integer": "an integer",
    "number": "a decimal",
    "boolean": "a boolean",
    "array": "an array",
    "object": "an object",
}


def _name(value: Json) -> str:
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
