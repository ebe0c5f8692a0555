"""What programs import to test their agents: virtual time, scripted models, simulated providers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from duologue.testing.scripted import At, Reply, ScriptedRealtime, ToolUse
from duologue.testing.virtual_time import (
    DeadlockError,
    VirtualTimeLoop,
    run_virtual,
    virtual_time,
)

if TYPE_CHECKING:
    from duologue.simulators.gemini.server import GeminiSimulator
    from duologue.simulators.nova.server import NovaSimulator
    from duologue.simulators.openai.server import OpenAISimulator
    from duologue.simulators.qwen.server import QwenSimulator
    from duologue.testing.speech import synthesize, transcribe

__all__ = [
    "At",
    "DeadlockError",
    "GeminiSimulator",
    "NovaSimulator",
    "OpenAISimulator",
    "QwenSimulator",
    "Reply",
    "ScriptedRealtime",
    "ToolUse",
    "VirtualTimeLoop",
    "run_virtual",
    "synthesize",
    "transcribe",
    "virtual_time",
]

_HOMES = {
    "GeminiSimulator": "duologue.simulators.gemini.server",
    "NovaSimulator": "duologue.simulators.nova.server",
    "OpenAISimulator": "duologue.simulators.openai.server",
    "QwenSimulator": "duologue.simulators.qwen.server",
    "synthesize": "duologue.testing.speech",
    "transcribe": "duologue.testing.speech",
}


def __getattr__(name: str) -> object:
    """Load what needs an extra on first use: the rest does not."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
