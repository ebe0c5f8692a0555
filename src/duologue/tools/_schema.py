"""Turn a function's signature into the JSON schema of its arguments, and JSON into a call."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, cast, get_args, get_origin, get_type_hints

from duologue._user_code import name_of, routine_of
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.realtime.commands import ToolSpec

if TYPE_CHECKING:
    from docstring_parser import Docstring
    from pydantic import BaseModel, ValidationError

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAX_SHOWN_CHARS = 60
_NO_ARGUMENTS = frozenset(("", "null", "[]", "None"))
"""Texts that models write for no arguments."""


class WrongArgumentsError(ValueError):
    """The model's arguments are invalid; the text tells the model how to correct them."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The arguments of a function: its `ToolSpec`, and how to parse them from JSON text."""

    spec: ToolSpec
    _model: type[BaseModel]
    _positional: tuple[str, ...]
    _keywords: tuple[tuple[str, str], ...]

    def bind(self, arguments: str) -> tuple[list[object], dict[str, object]]:
        """Validate JSON text; return positional and keyword arguments of the right types.

        Empty text and ``null`` count as no arguments; JSON within a JSON string is unpacked. Raises
        `WrongArgumentsError`.
        """
        from pydantic import ValidationError

        try:
            text = _unwrap_json_string(arguments.strip())
            values = self._model.model_validate_json("{}" if text in _NO_ARGUMENTS else text)
        except ValidationError as error:
            raise WrongArgumentsError(_explain(error)) from error
        return (
            [getattr(values, field) for field in self._positional],
            {name: getattr(values, field) for field, name in self._keywords},
        )


def _unwrap_json_string(text: str) -> str:
    """Return the JSON within a JSON string, which some models write."""
    if not text.startswith('"'):
        return text
    try:
        inner = json.loads(text)
    except ValueError:
        return text
    return inner.strip() if isinstance(inner, str) else text


def read_signature(
    function: Callable[..., object], name: str | None, description: str | None
) -> Signature:
    """Read name, descriptions and argument types of ``function``.

    The description and those of arguments come from ``description`` and ``Annotated``, else from
    the docstring (Google, Sphinx or numpy style). Raises `ConfigError` for a type that has no
    schema.
    """
    if not callable(function) or inspect.isclass(function):
        raise ConfigError(f"a tool must be a function, not {function!r}")
    name = name_of(function).rpartition(".")[2] if name is None else name
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"tool name {name!r} must be 1 to 64 letters, digits, '_' or '-': pass name=..."
        )
    if inspect.isgeneratorfunction(routine_of(function)):
        raise ConfigError(f"tool {name!r} yields parts of its result: make it 'async def'")

    doc = _parse_docstring(function)
    model, positional, keywords = _build_argument_model(function, name, doc)
    if description is None:
        parts = (doc.short_description, doc.long_description)
        description = "\n\n".join(part for part in parts if part)
    spec = ToolSpec(name, description, _json_schema(model))
    return Signature(spec, model, positional, keywords)


def _parse_docstring(function: Callable[..., object]) -> Docstring:
    from docstring_parser import Docstring, ParseError, parse

    while isinstance(function, functools.partial):
        function = function.func
    text = inspect.getdoc(function) or inspect.getdoc(routine_of(function)) or ""
    try:
        return parse(text)
    except ParseError:
        plain = Docstring()
        plain.short_description = text
        return plain


def _build_argument_model(
    function: Callable[..., object], name: str, doc: Docstring
) -> tuple[type[BaseModel], tuple[str, ...], tuple[tuple[str, str], ...]]:
    from pydantic import ConfigDict, Field, PydanticUserError, create_model

    hints = _resolve_hints(function, name)
    texts = {param.arg_name.lstrip("*"): param.description for param in doc.params}
    fields: dict[str, object] = {}
    positional: list[str] = []
    keywords: list[tuple[str, str]] = []
    bound = _bound_names(function)
    for index, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.name in bound:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"tool {name!r} can't take *args or **kwargs: name its arguments")
        if parameter.name not in hints:
            raise ConfigError(
                f"argument {parameter.name!r} of tool {name!r} has no type hint: "
                f"write {parameter.name}: str, for example"
            )
        # Fields get generated names, so that an argument may be called `copy` or `_id`.
        field = f"argument_{index}"
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(field)
        else:
            keywords.append((field, parameter.name))
        hint, text = _split_description(hints[parameter.name])
        text = text or texts.get(parameter.name)
        about = (
            Field(alias=parameter.name, description=text) if text else Field(alias=parameter.name)
        )
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[field] = (Annotated[hint, about], default)
    try:
        build = cast("Callable[..., type[BaseModel]]", create_model)
        config = ConfigDict(extra="forbid", arbitrary_types_allowed=False)
        model = build(name, __config__=config, **fields)
    except PydanticUserError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"tool {name!r} has an argument that JSON can't carry: {reason}"
        ) from error
    return model, tuple(positional), tuple(keywords)


def _bound_names(function: Callable[..., object]) -> frozenset[str]:
    """Return the arguments that a `functools.partial` binds by name; the model can't set them."""
    names: set[str] = set()
    while isinstance(function, functools.partial):
        names.update(function.keywords)
        function = function.func
    return frozenset(names)


def _resolve_hints(function: Callable[..., object], name: str) -> dict[str, object]:
    """Resolve type hints, also those that name a local of the enclosing function."""
    function = routine_of(function)
    around, _, _ = function.__qualname__.rpartition(".<locals>.")
    local: dict[str, object] = {}
    frame = inspect.currentframe()
    while frame is not None and around:
        if frame.f_code.co_qualname == around:
            local = dict(frame.f_locals)
            break
        frame = frame.f_back
    try:
        # A bound method and a decorated function keep their hints on the wrapped function.
        return get_type_hints(inspect.unwrap(function), localns=local, include_extras=True)
    except (NameError, TypeError) as error:
        raise ConfigError(f"a type hint of tool {name!r} can't be read: {error}") from error


def _split_description(hint: object) -> tuple[object, str | None]:
    """Extract the plain-text description from ``Annotated[T, "text"]``; pydantic reads the rest."""
    if get_origin(hint) is not Annotated:
        return hint, None
    base, *metadata = get_args(hint)
    texts = [item for item in metadata if isinstance(item, str)]
    rest = [item for item in metadata if not isinstance(item, str)]
    text = (
        texts[0]
        if texts
        else next((item.description for item in rest if getattr(item, "description", None)), None)
    )
    for item in rest:
        base = Annotated[base, item]
    return base, text


def _json_schema(model: type[BaseModel]) -> JsonObject:
    from pydantic.errors import PydanticInvalidForJsonSchema

    try:
        schema: JsonObject = model.model_json_schema(by_alias=True)
    except PydanticInvalidForJsonSchema as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"tool {model.__name__!r} has an argument without a JSON schema: {reason}"
        ) from error
    definitions = cast("dict[str, JsonObject]", schema.pop("$defs", {}))
    kept: set[str] = set()
    tidy = _SchemaCleaner(definitions, kept).clean(schema, ())
    if kept:
        # Only types that contain themselves stay behind a reference.
        every: JsonObject = {}
        while missing := kept - every.keys():
            for definition in sorted(missing):
                every[definition] = _SchemaCleaner(definitions, kept).clean(
                    definitions[definition], (definition,)
                )
        tidy["$defs"] = every
    tidy.setdefault("properties", {})
    return tidy


class _SchemaCleaner:
    """Strip titles, replace references by their definitions, and close objects.

    Several providers and most small models do not follow ``$ref``.
    """

    def __init__(self, definitions: dict[str, JsonObject], recursive: set[str]) -> None:
        self._definitions = definitions
        self._recursive = recursive

    def clean(self, schema: JsonObject, inside: tuple[str, ...]) -> JsonObject:
        reference = schema.get("$ref")
        if isinstance(reference, str):
            definition = reference.rpartition("/")[2]
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            if definition in inside:
                self._recursive.add(definition)
                return {"$ref": reference, **rest}
            return {**self.clean(self._definitions[definition], (*inside, definition)), **rest}
        tidy: JsonObject = {}
        for key, value in schema.items():
            if key == "title":
                continue
            if key in ("properties", "patternProperties") and isinstance(value, dict):
                tidy[key] = {
                    name: self._clean_value(inner, inside) for name, inner in value.items()
                }
            elif key in ("items", "additionalProperties", "not"):
                tidy[key] = self._clean_value(value, inside)
            elif key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
                tidy[key] = [self._clean_value(inner, inside) for inner in value]
            elif key == "discriminator":
                continue
            else:
                tidy[key] = value
        if "properties" in tidy:
            tidy.setdefault("additionalProperties", False)
        return tidy

    def _clean_value(self, value: Json, inside: tuple[str, ...]) -> Json:
        return self.clean(value, inside) if isinstance(value, dict) else value


def _explain(error: ValidationError) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in problem["loc"])
        what = problem["msg"][:1].lower() + problem["msg"][1:]
        kind = problem["type"]
        if kind == "json_invalid":
            return f"The arguments are not JSON ({what}). Call again with a JSON object."
        if kind in ("model_type", "model_attributes_type"):
            return "The arguments are not a JSON object. Call again with a JSON object."
        if kind == "missing":
            what = "is required"
        elif kind == "extra_forbidden":
            what = "is not an argument of this tool"
        else:
            shown = repr(problem["input"])
            if len(shown) > _MAX_SHOWN_CHARS:
                shown = shown[:_MAX_SHOWN_CHARS] + "..."
            what += f", not {shown}"
        problems.append(f"{where}: {what}" if where else what)
    return f"Wrong arguments: {'; '.join(problems)}. Call again with arguments that fit."
