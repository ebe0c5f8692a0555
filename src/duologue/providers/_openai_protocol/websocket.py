"""The wire for a codec of this protocol over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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

    If the server does not confirm the session in time, `run` passes on the event
    `SESSION_UNCONFIRMED`.
    """

    _confirm_timer: asyncio.TimerHandle | None = None

    async def send(self, message: Message) -> None:
        """Send an event."""
        if isinstance(message, bytes):
            await super().send(message)

    def try_send(self, message: Message) -> bool:
        """Send an event if that needs no waiting; return whether it was sent."""
        protocol = self._protocol
        return protocol is not None and isinstance(message, bytes) and protocol.try_send(message)

    async def run(self, receive: Callable[[bytes], None]) -> None:
        """Pass on each event; return after a clean end."""

        def receive_until_confirmed(message: bytes) -> None:
            if _UPDATED in message:
                self._stop_waiting(receive)
            elif self._confirm_timer is None and _CREATED in message:
                self._confirm_timer = asyncio.get_running_loop().call_later(
                    CONFIRM_TIMEOUT_S, self._session_unconfirmed, receive
                )
            receive(message)

        try:
            await super().run(receive_until_confirmed)
        finally:
            self._cancel_timer()

    def _session_unconfirmed(self, receive: Callable[[bytes], None]) -> None:
        self._stop_waiting(receive)
        self._deliver(_UNCONFIRMED)

    def _stop_waiting(self, receive: Callable[[bytes], None]) -> None:
        """Pass on what follows without looking at it."""
        self._cancel_timer()
        self._redirect(receive)

    def _cancel_timer(self) -> None:
        if self._confirm_timer is not None:
            self._confirm_timer.cancel()
