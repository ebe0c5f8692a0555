"""Load providers of other distributions, which entry points name."""

from __future__ import annotations

from importlib import import_module
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType


def find_entry_point(fullname: str, group: str, name: str) -> ModuleSpec | None:
    """Return the spec that loads the module of an entry point as ``fullname``; None without one."""
    found = next(iter(entry_points(group=group, name=name)), None)
    return None if found is None else ModuleSpec(fullname, _EntryPointLoader(found))


class _EntryPointLoader(Loader):
    """Loads the module of an entry point under its own name, and returns that same module."""

    def __init__(self, entry_point: EntryPoint) -> None:
        self._module_name = entry_point.module
        self._own_spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module."""
        del spec
        module = import_module(self._module_name)
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the spec that the import system has replaced; the module has already run."""
        module.__spec__ = self._own_spec
