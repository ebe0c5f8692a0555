"""The signalling between a page and a server: the messages, and the channel that carries them.

Page to server: ``{"type": "offer", "sdp"}`` (with ``"restart": true`` for another connection of a
call that has one, and an ``"id"`` that its answer repeats), ``{"type": "text", "text"}``,
``{"type": "mute", "muted"}``, ``{"type": "bye"}``.

Server to page: ``{"type": "answer", "sdp"}``, ``{"type": "agent", "name"}``, ``{"type": "event",
"event": {...}}``, ``{"type": "error", "code", "message"}``, ``{"type": "ending", "seconds"}`` (the
server will end the call then, with close code 1012).

On the data channel `CHANNEL`, page to server, several times a second: ``{"type": "played", "rtp":
<timestamp played last>}``.
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
    """Carries JSON messages for one call; when it ends, the call ends."""

    async def receive(self) -> Mapping[str, Json] | None:
        """Return the next message, or None after the end."""
        ...

    async def send(self, message: Mapping[str, Json]) -> None:
        """Send a message; after the end, drop it without an error."""
