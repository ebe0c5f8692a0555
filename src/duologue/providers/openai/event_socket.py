"""The wire for a codec of this protocol over a WebSocket."""

from __future__ import annotations

import asyncio

from duologue.providers.openai.codec import UNCONFIRMED, Message
from duologue.providers.websocket import WebSocketWire

GRACE_S = 2.0
"""Seconds after ``session.created`` in which a session must be confirmed. LiteLLM's proxy never
sends ``session.updated``."""

_CREATED = b"session.created"
_UPDATED = b"session.updated"
_UNCONFIRMED = b'{"type":"%b"}' % UNCONFIRMED.encode()


class EventSocket(WebSocketWire):
    """Sends and receives the codec's events; over a WebSocket these contain the audio.

    If the server does not confirm the session in time, `receive` returns the event `UNCONFIRMED`.
    """

    _created = False
    _settled = False
    _grace_until = 0.0

    async def send(self, message: Message) -> None:
        """Send an event."""
        if isinstance(message, bytes):
            await super().send(message)

    def send_now(self, message: Message) -> bool:
        """Send an event, if that needs no waiting."""
        return isinstance(message, bytes) and super().send_now(message)

    async def receive(self) -> bytes | None:
        """Return the next event; None after a clean end."""
        if self._settled:
            return await super().receive()
        try:
            async with asyncio.timeout_at(self._grace_until if self._created else None):
                message = await super().receive()
        except TimeoutError:
            self._settled = True
            return _UNCONFIRMED
        if message is None or _UPDATED in message:
            self._settled = True
        elif not self._created and _CREATED in message:
            self._created = True
            self._grace_until = asyncio.get_running_loop().time() + GRACE_S
        return message
