"""YAML files, with the line in what is wrong with them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from duologue.extras import require
from duologue.items import Json
from duologue.realtime.errors import ConfigError

_BOOL, _TIMESTAMP = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"


@cache
def _loader() -> type:
    """YAML's safe loader; but only true and false are booleans, and a date is a text.

    Otherwise ``on:`` would be a boolean key, and a spoken "yes" a boolean too.
    """
    base = require("yaml", "simulate").SafeLoader
    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag not in (_BOOL, _TIMESTAMP)]
        for first, known in base.yaml_implicit_resolvers.items()
    }
    for first in "tf":
        resolvers[first] = [(_BOOL, re.compile("true|false")), *resolvers.get(first, [])]
    return type("Loader", (base,), {"yaml_implicit_resolvers": resolvers})


def load_yaml(file: Path) -> Json:
    """What is in a file. Raises `ConfigError`, in one line."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"{file}: {reason}") from None
    return parse_yaml(text, str(file))


def parse_yaml(text: str, where: str) -> Json:
    """What a text says; ``where`` it is from. Raises `ConfigError`, in one line."""
    yaml = require("yaml", "simulate")
    try:
        value: Json = yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise ConfigError(f"{where}{line}: {problem}") from None
    return value


def lines_of_steps(text: str) -> list[int]:
    """The lines on which the entries begin, of the list itself or of its field ``steps``."""
    yaml = require("yaml", "simulate")
    node = yaml.compose(text, Loader=_loader())
    if isinstance(node, yaml.MappingNode):
        node = next((below for key, below in node.value if key.value == "steps"), None)
    if not isinstance(node, yaml.SequenceNode):
        return []
    return [below.start_mark.line + 1 for below in node.value]
