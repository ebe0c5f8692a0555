"""Reads YAML files; errors name the line.

A small file may still be endless: an alias may stand for itself, or for a list of aliases of lists
of aliases. The value is therefore measured, with every alias expanded, before anything uses it.
"""

from __future__ import annotations

import math
import re
import reprlib
from functools import cache
from pathlib import Path

from duologue._optional import import_optional
from duologue.errors import ConfigError
from duologue.json_types import Json

MAX_CHARS = 4 * 1024 * 1024
"""Characters of the largest file."""
MAX_DEPTH = 64
"""Levels of nested lists and objects."""
MAX_VALUES = 100_000
"""Values of a file, with every alias expanded."""

_BOOL, _TIMESTAMP = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"


@cache
def _loader() -> type:
    """Return YAML's safe loader, with only true and false as booleans, and dates as text.

    Otherwise ``on:`` would be a boolean key, and a spoken "yes" a boolean too.
    """
    base = import_optional("yaml", "simulate").SafeLoader
    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag not in (_BOOL, _TIMESTAMP)]
        for first, known in base.yaml_implicit_resolvers.items()
    }
    for first in "tf":
        resolvers[first] = [(_BOOL, re.compile("true|false")), *resolvers.get(first, [])]
    return type("Loader", (base,), {"yaml_implicit_resolvers": resolvers})


def load_yaml(file: Path) -> Json:
    """Return the value of a file.

    Raises:
        ConfigError: The file cannot be read or is wrong; the message is one line.
    """
    return parse_yaml(read_text(file), str(file))


def read_text(file: Path) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: The file cannot be read; the message is one line.
    """
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"{file}: {reason}") from None


def parse_yaml(text: str, where: str) -> Json:
    """Return the value of a YAML text.

    Args:
        text: The YAML.
        where: Its origin, for errors.

    Raises:
        ConfigError: The text is wrong; the message is one line.
    """
    yaml = import_optional("yaml", "simulate")
    if len(text) > MAX_CHARS:
        raise ConfigError(f"{where}: it has more than {MAX_CHARS} characters")
    try:
        value: object = yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise ConfigError(f"{where}{line}: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{where}: {_TOO_DEEP}") from None
    except ValueError as error:
        # A number of thousands of digits, or an invalid date.
        raise ConfigError(f"{where}: {str(error).partition('(')[0].strip().lower()}") from None
    return _check_size(value, where)


def short_repr(value: object) -> str:
    """Return a short form of a value for a one-line error, however large the value is."""
    return _SHORT.repr(value)


_TOO_DEEP = f"lists and objects are nested more than {MAX_DEPTH} levels deep"
_SHORT = reprlib.Repr(maxlevel=2, maxdict=4, maxlist=4, maxstring=60, maxother=60, maxlong=40)


def _check_size(value: object, where: str) -> Json:
    """Return the value.

    Raises:
        ConfigError: The value is not JSON, too deep or too large.
    """
    count = 0
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for one in level:
            match one:
                case dict():
                    for key in one:
                        if not isinstance(key, str):
                            raise ConfigError(f"{where}: key {short_repr(key)} must be text")
                    below += one.values()
                case list():
                    below += one
                case float() if not math.isfinite(one):
                    raise ConfigError(f"{where}: {one} is not a finite number")
                case None | bool() | int() | float() | str():
                    pass  # A JSON value
                case _:
                    raise ConfigError(
                        f"{where}: {short_repr(one)} is of a type that JSON does not have"
                    )
            count += 1
            if count + len(below) > MAX_VALUES:
                raise ConfigError(f"{where}: it has more than {MAX_VALUES} values")
        if not below:
            found: Json = value  # type: ignore[assignment]
            return found
        level = below
    raise ConfigError(f"{where}: {_TOO_DEEP}")


def step_lines(text: str) -> list[int]:
    """Return the line of each entry of the list, or of the list in the field ``steps``."""
    yaml = import_optional("yaml", "simulate")
    node = yaml.compose(text, Loader=_loader())
    if isinstance(node, yaml.MappingNode):
        node = next((below for key, below in node.value if key.value == "steps"), None)
    if not isinstance(node, yaml.SequenceNode):
        return []
    return [below.start_mark.line + 1 for below in node.value]
