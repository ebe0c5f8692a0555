"""How a page and a call find each other: the messages, and the line that carries them.

Page to server: ``{"type": "offer", "sdp"}``, ``{"type": "text", "text"}``, ``{"type": "mute",
"muted"}``, ``{"type": "bye"}``. Server to page: ``{"type": "answer", "sdp"}``, ``{"type": "agent",
"name"}``, ``{"type": "event", "event": {...}}``, ``{"type": "error", "code", "message"}``. On the
data channel `CHANNEL`, page to server, several times a second: ``{"type": "played", "rtp":
<timestamp last played>}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from duologue.json_types import Json

CHANNEL: Final = "duologue"
"""Label of the data channel."""

OFFER: Final = "offer"
ANSWER: Final = "answer"
TEXT: Final = "text"
MUTE: Final = "mute"
BYE: Final = "bye"
EVENT: Final = "event"
AGENT: Final = "agent"
ERROR: Final = "error"
PLAYED: Final = "played"


class Signalling(Protocol):
    """A line of JSON messages that lives as long as the call; its end ends the call."""

    async def receive(self) -> Mapping[str, Json] | None:
        """The next message; None once the line has ended."""
        ...

    async def send(self, message: Mapping[str, Json]) -> None:
        """Send a message; dropped without an error once the line has ended."""
