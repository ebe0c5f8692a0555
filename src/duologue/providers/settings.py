"""Options of a model or part as text, such as ``speed=1.1``, for programs that read them.

The annotation of an option says how its text is read. A value is written as in Python, without the
quotes of a plain text:

    speed=1.1   video=off   language=None   keyterms=["Ada","Blue Door"]
    turn_detection=SemanticVAD(eagerness="high")   extra={"include":["logprobs"]}
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeAliasType, cast

from duologue.errors import ConfigError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")

_UNREADABLE = object()


def read_settings(factory: Callable[..., object], settings: Sequence[str]) -> dict[str, object]:
    """Return ``key=value`` texts as keyword arguments of a class or function.

    Args:
        factory: The class, such as ``openai.Realtime``, or a function.
        settings: The texts; the last one of a key counts.

    Raises:
        ConfigError: There is no such option, or its value can't be read.
    """
    annotations = _annotations(factory)
    result: dict[str, object] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip()
        if not equals:
            raise ConfigError(f"a setting is written key=value, not {setting!r}")
        if name not in annotations:
            raise ConfigError(_unknown(factory, name))
        result[name] = _read(name, text.strip(), annotations[name])
    return result


def option_names(factory: Callable[..., object]) -> list[str]:
    """Return the names of the options of a class or function that can be written as text."""
    return [name for name, kind in _annotations(factory).items() if _kinds(kind).is_readable]


def _unknown(factory: Callable[..., object], name: str) -> str:
    names = option_names(factory)
    owner = getattr(factory, "__module__", "").partition("._")[0].rpartition(".")[2]
    where = f"{owner}.{getattr(factory, '__name__', factory)}"
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"{where} has no option {name!r}; did you mean {' or '.join(near)}?"
    return f"{where} has no option {name!r}; it has: {', '.join(sorted(names))}"


def _annotations(factory: Callable[..., object]) -> dict[str, object]:
    """Return the annotation of each parameter; an unknown one is `_UNREADABLE`."""
    init: object = getattr(factory, "__init__", None) if isinstance(factory, type) else factory
    options: type | None = getattr(init, "options_type", None)
    result: dict[str, object] = {}
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        annotation: object = parameter.annotation
        if annotation is parameter.empty:
            annotation = str
        if isinstance(annotation, str):
            if options is not None:
                namespace = _namespace_of_field(options, parameter.name)
            else:
                namespace = getattr(
                    inspect.unwrap(cast("Callable[..., object]", init)), "__globals__", {}
                )
            annotation = _evaluate(annotation, namespace)
        result[parameter.name] = annotation
    return result


def _namespace_of_field(options: type, name: str) -> dict[str, object]:
    for owner in options.__mro__:
        if name in inspect.get_annotations(owner):
            return vars(sys.modules[owner.__module__])
    return {}


def _evaluate(annotation: str, namespace: dict[str, object]) -> object:
    try:
        return eval(annotation, dict(namespace))  # noqa: S307 - source of this library or a plug-in
    except Exception:  # noqa: BLE001 - a name that is only imported for type checkers
        return _UNREADABLE


@dataclasses.dataclass(slots=True)
class _Kinds:
    """What an annotation allows."""

    none: bool = False
    text: bool = False
    path: bool = False
    boolean: bool = False
    integer: bool = False
    number: bool = False
    mapping: bool = False
    sequence: bool = False
    literals: list[object] = dataclasses.field(default_factory=list)
    classes: list[type] = dataclasses.field(default_factory=list)

    def add(self, annotation: object) -> None:
        """Add one annotation and what it is made of."""
        if isinstance(annotation, TypeAliasType):
            self.add(annotation.__value__)
            return
        origin = typing.get_origin(annotation)
        if origin is Literal:
            self.literals.extend(typing.get_args(annotation))
        elif origin in (typing.Union, types.UnionType):
            for member in typing.get_args(annotation):
                self.add(member)
        else:
            self._add_class(origin or annotation)

    def _add_class(self, kind: object) -> None:
        if kind is None or kind is types.NoneType:
            self.none = True
        elif not isinstance(kind, type):
            return
        elif kind is str:
            self.text = True
        elif kind is bool:
            self.boolean = True
        elif kind is int:
            self.integer = True
        elif kind is float:
            self.number = True
        elif issubclass(kind, Path):
            self.path = True
        elif dataclasses.is_dataclass(kind):
            self.classes.append(kind)
        elif issubclass(kind, Mapping):
            self.mapping = True
        elif issubclass(kind, Sequence):
            self.sequence = True

    @property
    def is_readable(self) -> bool:
        """Whether any text can be a value."""
        return bool(self.describe()) or self.text or self.path

    def describe(self) -> str:
        """Return what may be written; "" for any text, and for what can't be written."""
        words = [str(value) for value in self.literals]
        words += ["true", "false"] if self.boolean else []
        words += ["an integer"] if self.integer and not self.number else []
        words += ["a number"] if self.number else []
        words += [f"{kind.__name__}(...)" for kind in self.classes]
        words += ["a JSON object"] if self.mapping else []
        words += ["a JSON list"] if self.sequence else []
        words += ["None"] if self.none and words else []
        return " or ".join(words)


def _kinds(annotation: object) -> _Kinds:
    kinds = _Kinds()
    kinds.add(annotation)
    return kinds


def _read(name: str, text: str, annotation: object) -> object:
    kinds = _kinds(annotation)
    value = _parse(text, kinds)
    if value is not _UNREADABLE:
        return value
    if not kinds.is_readable:
        raise ConfigError(f"{name} can't be written as text: set it in a program")
    raise ConfigError(f"{name} must be {kinds.describe() or 'a text'}, not {text!r}")


def _parse(text: str, kinds: _Kinds) -> object:
    """Return the value of a text; `_UNREADABLE` if it is of no kind."""
    for literal in kinds.literals:
        if str(literal) == text:
            return literal
    if kinds.none and (text == "None" or (text == "none" and not kinds.text)):
        return None
    if kinds.boolean and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    for read, allowed in ((int, kinds.integer), (float, kinds.number)):
        if allowed:
            try:
                number: int | float = read(text)
            except ValueError:
                continue
            if math.isfinite(number):
                return number
    if kinds.classes:
        made = _parse_call(text, kinds.classes)
        if made is not _UNREADABLE:
            return made
    if kinds.mapping or kinds.sequence:
        parsed = _parse_json(text, kinds)
        if parsed is not _UNREADABLE:
            return parsed
    if kinds.text and text:
        return text
    return Path(text) if kinds.path and text else _UNREADABLE


def _parse_call(text: str, classes: Sequence[type]) -> object:
    """Return what ``Name(...)`` makes; only literals are allowed as arguments."""
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError:
        return _UNREADABLE
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return _UNREADABLE
    kind = {each.__name__: each for each in classes}.get(node.func.id)
    if kind is None:
        return _UNREADABLE
    try:
        arguments = [ast.literal_eval(each) for each in node.args]
        named = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
        made: object = kind(*arguments, **named)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{text}: {error}") from None
    return made


def _parse_json(text: str, kinds: _Kinds) -> object:
    if kinds.sequence and not text.startswith("["):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    try:
        value = json.loads(text)
    except ValueError:
        return _UNREADABLE
    if (kinds.mapping and isinstance(value, dict)) or (kinds.sequence and isinstance(value, list)):
        return tuple(value) if isinstance(value, list) else value
    return _UNREADABLE
