"""Load the public names of a package on first use, because an import should take no time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package that loads names on first use.

    Assign them behind ``if not TYPE_CHECKING``, and import the names behind ``if TYPE_CHECKING``:
    a type checker then reports a name that does not exist.

    Args:
        package: The package's ``__name__``.
        modules: The names that each module provides.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def load(name: str) -> object:
        module = homes.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(module), name)
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return load, list_names
