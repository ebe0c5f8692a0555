"""What may differ between the servers that speak this protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from duologue.items import Json
from duologue.realtime.codec import SessionSetup
from duologue.realtime.commands import UpdateSession

type Transport = Literal["webrtc", "websocket"]


class SessionBuilder(Protocol):
    """Makes the session object of one server."""

    def whole(self, setup: SessionSetup) -> dict[str, Json]:
        """The session to begin with."""
        ...

    def change(self, update: UpdateSession) -> dict[str, Json]:
        """What changes in mid-session."""
        ...

    def turn_detection(self, detection: Json) -> dict[str, Json]:
        """A session in which just the turn detection changes."""
        ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """One server's way to speak the protocol.

    ``names`` maps its names of events to the ones of OpenAI where they differ. Rates in Hz.
    """

    session: SessionBuilder
    names: Mapping[str, str] = field(default_factory=dict)
    input_rate: int = 24000
    output_rate: int = 24000
