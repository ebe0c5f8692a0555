"""numpy, which is loaded at its first use: ``from duologue._numpy import np``.

Loading numpy takes half as long as all other modules of an agent together. A program that only
checks its options, prints its help or imports a provider to look at its capabilities never needs
it, and the others load it when they make an `Agent` or a ``Realtime``, before any conversation.

The modules that an `Agent` or a provider imports must therefore not use ``np`` while they are
imported, and need soxr, which imports numpy, only inside a function; `tests/test_import.py` checks
both. Modules that nothing imports before it is used import numpy as usual.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
else:

    class _LazyModule(ModuleType):
        """Becomes a plain module with all of numpy's names when one of them is first used."""

        def __getattr__(self, name: str) -> object:
            vars(self).update(vars(import_module("numpy")))
            # From now on, lookups are as fast as in numpy itself.
            self.__class__ = ModuleType
            return getattr(self, name)

    np = _LazyModule("numpy")

__all__ = ["np"]
