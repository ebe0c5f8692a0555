"""The named faults of the Gemini simulator."""

from __future__ import annotations

from collections.abc import Mapping

from duologue.simulators.faults import (
    Burst,
    Close,
    Delay,
    Duplicate,
    Error,
    Fault,
    Garbage,
    Handshake,
    Reset,
    Stall,
    Unknown,
)
from duologue.simulators.gemini._lifetime import CONNECTION_EXPIRED, DEADLINE_EXCEEDED
from duologue.simulators.gemini._session import INTERNAL_MESSAGE

_AUDIO = "serverContent.modelTurn"

PRESETS: Mapping[str, Fault] = {
    "close": Fault(Close(1011, INTERNAL_MESSAGE), on=_AUDIO),
    "deadline": Fault(Close(1011, DEADLINE_EXCEEDED), at=2.0),
    "expired": Fault(Close(1008, CONNECTION_EXPIRED), at=2.0),
    "unavailable": Fault(Close(1011, "The service is currently unavailable."), at=2.0),
    "invalid": Fault(Close(1007, "Request contains an invalid argument."), at=2.0),
    "reset": Fault(Reset(), at=2.0),
    "reset-in-reply": Fault(Reset(), on=_AUDIO, nth=2),
    "deaf": Fault(Stall("reading", 5.0), at=1.0),
    "stall": Fault(Stall("writing", 3.0), on=_AUDIO),
    "slow": Fault(Delay(300.0, 100.0)),
    "burst": Fault(Burst(1.5), on=_AUDIO),
    "duplicate": Fault(Duplicate(_AUDIO), on=_AUDIO, times=1000),
    "unknown": Fault(Unknown("simulatorSurprise"), on="setupComplete", times=1000),
    "garbage": Fault(Garbage(), on="setupComplete", times=1000),
    "error": Fault(Error(message=INTERNAL_MESSAGE), on=_AUDIO),
    "goaway": Fault(Error("go_away"), at=2.0),
    "unauthorized": Fault(Handshake(401), times=1000),
    "busy": Fault(Handshake(429), times=2),
    "down": Fault(Handshake(503), times=2),
}
"""The faults by name."""
