"""Presets of faults, with the events of this service."""

from __future__ import annotations

from collections.abc import Mapping

from duologue.simulators import faults
from duologue.simulators.faults import Close, Duplicate, Error, Fault, Handshake, Reset

__all__ = ["PRESETS"]

IDLE_REASON = "Your session was closed because no response was generated for 300 seconds."
MAX_DURATION_REASON = "The session has reached its maximum duration of 120 minutes."
ACTIVE_RESPONSE = "Conversation already has an active response"

_SHARED = (
    "close",
    "restart",
    "reset",
    "deaf",
    "stall",
    "slow",
    "burst",
    "unknown",
    "garbage",
    "unauthorized",
    "busy",
    "down",
)

PRESETS: Mapping[str, Fault] = {
    **{name: faults.PRESETS[name] for name in _SHARED},
    "expired": Fault(Close(1000, MAX_DURATION_REASON), at=2.0),
    "idle": Fault(Close(1007, IDLE_REASON), at=2.0),
    "reset-in-reply": Fault(Reset(), on="response.audio.delta", nth=2),
    "duplicate": Fault(Duplicate("response.audio.delta"), times=1000),
    "error": Fault(Error("internal_error", "Internal service error: null"), on="response.created"),
    "quota": Fault(Handshake(429, "Throttling.AllocationQuota"), times=1000),
}
"""Presets by name."""
