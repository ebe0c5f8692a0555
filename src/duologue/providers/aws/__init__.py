"""Amazon Nova Sonic, on Bedrock."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duologue.providers.aws._credentials import Credentials
    from duologue.providers.aws._realtime import ROLL_OVER, Realtime

__all__ = ["Realtime", "Credentials", "ROLL_OVER"]


def __getattr__(name: str) -> object:
    """Load a public name on first use, so that nobody pays for what they do not use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "_credentials" if name == "Credentials" else "_realtime"
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
