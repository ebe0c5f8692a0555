"""Import optional packages, with an error that names the extra to install."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from duologue.errors import MissingExtraError


@contextmanager
def optional(extra: str) -> Generator[None]:
    """Turn a failed import in the block into a `MissingExtraError` that names ``extra``.

    The block may also import modules of ours that have such a block, with an extra of their own:
    the outer block's extra is named, because that is what the user wanted.
    """
    try:
        yield
    except (ModuleNotFoundError, MissingExtraError) as error:
        if (error.name or "").partition(".")[0] == "duologue":
            raise
        raise MissingExtraError(
            f"{error.name} is not installed: pip install 'duologue[{extra}]'", name=error.name
        ) from error


def import_optional(module: str, extra: str) -> ModuleType:
    """Import and return ``module``; raise `MissingExtraError` if it is not installed."""
    with optional(extra):
        return import_module(module)


def is_installed(module: str) -> bool:
    """Return whether a module can be found, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # its parent is missing, or it is blocked in sys.modules
        return False
