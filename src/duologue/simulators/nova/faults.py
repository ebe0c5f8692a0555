"""The named faults of the Nova Sonic simulator."""

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

TIMED_OUT = "Model has timed out in processing the request. Try your request again."
"""The message of a model timeout, and of a stream that has reached its maximum age."""
UNSTABLE = "System instability detected. Please retry your request."
"""The message of a model stream error."""
TOO_MANY = "Too many requests, please wait before trying again."
"""The message of throttling."""
UNAVAILABLE = "The service is unavailable. Please try again."
"""The message of an unavailable service."""
INTERNAL = "The system encountered an unexpected error during processing. Try your request again."
"""The message of an internal error."""

PRESETS: Mapping[str, Fault] = {
    "close": Fault(Close(0, ""), on="completionStart"),
    "reset": Fault(Reset(), at=2.0),
    "reset-in-reply": Fault(Reset(), on="audioOutput", nth=2),
    "deaf": Fault(Stall("reading", 5.0), at=1.0),
    "stall": Fault(Stall("writing", 3.0), on="completionStart"),
    "slow": Fault(Delay(300.0, 100.0)),
    "burst": Fault(Burst(1.5), on="completionStart"),
    "duplicate": Fault(Duplicate("audioOutput"), times=1000),
    "unknown": Fault(Unknown("surprise"), on="completionStart", times=1000),
    "garbage": Fault(Garbage("text"), on="completionStart", times=1000),
    "corrupt": Fault(Garbage("binary"), on="audioOutput", nth=2),
    "timeout": Fault(Error("modelTimeoutException", TIMED_OUT), at=2.0),
    "unstable": Fault(Error("modelStreamErrorException", UNSTABLE), on="completionStart"),
    "throttled": Fault(Error("throttlingException", TOO_MANY), on="sessionStart", times=2),
    "internal": Fault(Error("internalServerException", INTERNAL), at=2.0),
    "unavailable": Fault(Error("serviceUnavailableException", UNAVAILABLE), at=2.0),
    "forbidden": Fault(Handshake(403), times=1000),
    "expired-token": Fault(Handshake(403, "ExpiredTokenException"), times=1),
    "busy": Fault(Handshake(429), times=2),
    "not-ready": Fault(Handshake(429, "ModelNotReadyException"), times=2),
    "down": Fault(Handshake(503), times=2),
}
"""The faults by name."""
