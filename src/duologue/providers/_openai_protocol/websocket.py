"""The wire for a codec of this protocol over a WebSocket."""

from __future__ import annotations

import asyncio

from duologue.providers._openai_protocol.codec import SESSION_UNCONFIRMED, Message
from duologue.realtime.websocket import WebSocketWire

CONFIRM_TIMEOUT_S = 2.0
"""Seconds after ``session.created`` in which a session must be confirmed. LiteLLM's proxy never
sends ``session.updated``."""

_CREATED = b"session.created"
_UPDATED = b"session.updated"
_UNCONFIRMED = b'{"type":"%b"}' % SESSION_UNCONFIRMED.encode()


class EventSocket(WebSocketWire):
    """Send and receive the codec's events, which over a WebSocket contain the audio.

    If the server does not confirm the session in time, `receive` returns the event
    `SESSION_UNCONFIRMED`.
    """

    _session_created = False
    _session_confirmed = False
    _confirm_by = 0.0

    async def send(self, message: Message) -> None:
        """Send an event."""
        if isinstance(message, bytes):
            await super().send(message)

    def try_send(self, message: Message) -> bool:
        """Send an event if that needs no waiting; return whether it was sent."""
        return isinstance(message, bytes) and super().try_send(message)

    async def receive(self) -> bytes | None:
        """Return the next event; None after a clean end."""
        if self._session_confirmed:
            return await super().receive()
        try:
            async with asyncio.timeout_at(self._confirm_by if self._session_created else None):
                message = await super().receive()
        except TimeoutError:
            self._session_confirmed = True
            return _UNCONFIRMED
        if message is None or _UPDATED in message:
            self._session_confirmed = True
        elif not self._session_created and _CREATED in message:
            self._session_created = True
            self._confirm_by = asyncio.get_running_loop().time() + CONFIRM_TIMEOUT_S
        return message
