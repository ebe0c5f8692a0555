"""What passes between the wire and the codec."""

from __future__ import annotations

from dataclasses import dataclass

QUIET_S = 0.25
"""After so long without anything, what came last is taken to be complete."""
IDLE_S = 10.0
"""After so long without anything either way, there has to be sound: without, a session ends."""


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """The service has taken the stream, which should not get older than ``expires_in`` seconds."""

    expires_in: float


@dataclass(frozen=True, slots=True)
class StreamQuiet:
    """Nothing has come for a moment; told once, until something comes."""


@dataclass(frozen=True, slots=True)
class StreamIdle:
    """Nothing has come for some time, nor was anything sent."""


@dataclass(frozen=True, slots=True)
class Flush:
    """The codec has something to tell by itself: it sends this, and the wire gives it back."""


type Message = bytes | StreamAccepted | StreamQuiet | StreamIdle | Flush
"""One event as JSON, or what wire and codec tell each other."""
