"""What programs import to test their agents: virtual time and scripted models."""

from duologue.testing.scripted import At, Reply, ScriptedRealtime, ToolUse
from duologue.testing.virtual_time import (
    DeadlockError,
    VirtualTimeLoop,
    run_virtual,
    virtual_time,
)

__all__ = [
    "At",
    "DeadlockError",
    "Reply",
    "ScriptedRealtime",
    "ToolUse",
    "VirtualTimeLoop",
    "run_virtual",
    "virtual_time",
]
