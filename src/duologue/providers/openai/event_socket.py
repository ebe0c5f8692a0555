"""The wire for a codec of this protocol over a WebSocket."""

from __future__ import annotations

from duologue.providers.openai.codec import Message
from duologue.providers.websocket import WebSocketWire


class EventSocket(WebSocketWire):
    """Takes the codec's messages; they may be sound as well, which over this one they are not."""

    async def send(self, message: Message) -> None:
        """Send an event."""
        if isinstance(message, bytes):
            await super().send(message)

    def send_now(self, message: Message) -> bool:
        """Send an event, if that needs no waiting."""
        return isinstance(message, bytes) and super().send_now(message)
