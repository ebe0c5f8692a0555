"""The models that duologue talks to, one package a provider; each is imported on its own.

Another distribution adds a provider by an entry point in the group ``duologue.providers``:

    [project.entry-points."duologue.providers"]
    acme = "duologue_acme"

The module ``duologue_acme`` is then also ``duologue.providers.acme``, for ``import`` statements of
any form. It is the same module, loaded once. A provider that is part of this package comes first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

GROUP = "duologue.providers"
"""The group of the entry points."""


class _EntryPointFinder(MetaPathFinder):
    """Finds providers of other distributions; asked after the usual finders."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Return the spec of a module that an entry point names; None if there is none."""
        del path, target
        package, _, name = fullname.rpartition(".")
        if package != __name__ or name.startswith("_"):
            return None
        found = next(iter(entry_points(group=GROUP, name=name)), None)
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


sys.meta_path.append(_EntryPointFinder())
