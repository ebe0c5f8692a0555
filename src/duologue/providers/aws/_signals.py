"""The messages and signals between the wire and the codec."""

from __future__ import annotations

from dataclasses import dataclass

QUIET_S = 0.25
"""After this time without events, the last block is taken to be complete."""
IDLE_S = 10.0
"""After this time without events in either direction, audio must be sent to keep the session."""


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """The service has accepted the stream, which should last at most ``expires_in`` seconds."""

    expires_in: float


@dataclass(frozen=True, slots=True)
class StreamQuiet:
    """No event has come for `QUIET_S`; sent once until the next event."""


@dataclass(frozen=True, slots=True)
class StreamIdle:
    """No event has come for `IDLE_S`, and none was sent."""


@dataclass(frozen=True, slots=True)
class Flush:
    """The codec has outputs of its own: it sends this, and the wire returns it to `decode`."""


type Message = bytes | StreamAccepted | StreamQuiet | StreamIdle | Flush
"""One event as JSON, or a signal."""
