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
from importlib.machinery import ModuleSpec
from types import ModuleType

GROUP = "duologue.providers"
"""The group of the entry points."""


class _EntryPointFinder:
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
        # Reading the metadata of distributions takes 50 ms to import.
        from duologue.providers._entry_points import find_entry_point

        return find_entry_point(fullname, GROUP, name)


sys.meta_path.append(_EntryPointFinder())
