"""A session over a WebSocket, as the service has it: JSON in binary messages."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web

from duologue.clock import Clock
from duologue.simulator.faults import FaultPlan
from duologue.simulator.socket_line import SocketLine


class GeminiLine(SocketLine):
    """The server's end of one WebSocket. ``binary``: messages are binary, as the service's are."""

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

    def surprise(self, kind: str) -> str:
        """A message of a name that nobody knows."""
        return orjson.dumps({kind: {"surprise": [1, {"a": None}]}}).decode()
