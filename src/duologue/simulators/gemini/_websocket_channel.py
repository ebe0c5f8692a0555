"""A session's channel over a WebSocket, with JSON in binary messages as the service sends it."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from duologue.clock import Clock
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators._websocket_channel import WebSocketChannel


class GeminiChannel(WebSocketChannel):
    """The server's end of one WebSocket. ``binary`` says whether it sends binary messages."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        plan: FaultPlan,
        clock: Clock,
        seed: int,
        *,
        binary: bool,
    ) -> None:
        super().__init__(websocket, transport, plan, clock, seed)
        self._binary = binary

    async def deliver(self, data: str | bytes) -> None:
        """Send one message."""
        await super().deliver(data.encode() if self._binary and isinstance(data, str) else data)

    def unknown_event(self, kind: str) -> str:
        """Return a message of an unknown name."""
        return orjson.dumps({kind: {"surprise": [1, {"a": None}]}}).decode()
