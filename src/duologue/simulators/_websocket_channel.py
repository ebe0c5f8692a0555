"""The channel of a session over WebSocket."""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import WSMsgType, web

from duologue.clock import Clock
from duologue.simulators._channel import EventChannel
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators._tcp_reset import reset

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Bytes of the largest message; the protocol allows 15 MiB of audio in an event."""

MAX_REASON_BYTES = 123
"""Bytes of a WebSocket close reason (RFC 6455); a longer one is truncated."""


class ChannelSession(Protocol):
    """What a channel needs of the session that it carries."""

    async def run_backend(self) -> None:
        """Run the model until it ends."""

    async def begin(self) -> None:
        """Send the first event, once the model is ready."""

    def receive(self, text: str | bytes) -> None:
        """Process a message of the client."""

    def close(self) -> None:
        """End the session, because its channel has ended."""


class WebSocketChannel(EventChannel):
    """The server's end of one WebSocket."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        transport: asyncio.Transport,
        plan: FaultPlan,
        clock: Clock,
        seed: int,
    ) -> None:
        super().__init__(plan, clock, seed)
        self._socket = websocket
        self._transport = transport

    async def serve(self, session: ChannelSession) -> None:
        """Run the session until either side ends it."""
        async with asyncio.TaskGroup() as tasks:
            below = [
                tasks.create_task(self.run_writer(), name="simulator writes"),
                tasks.create_task(session.run_backend(), name="simulator backend"),
            ]
            await session.begin()
            await self._read(session)
            session.close()
            for task in below:
                task.cancel()

    async def deliver(self, data: str | bytes) -> None:
        """Send one message."""
        if isinstance(data, str):
            await self._socket.send_str(data)
        else:
            await self._socket.send_bytes(data)

    async def close_transport(self, code: int, reason: str) -> None:
        """Close with a code."""
        message = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        await self._socket.close(code=code or 1000, message=message.encode())

    def abort(self) -> None:
        """Reset the TCP connection."""
        reset(self._transport)

    def drop_packets(self, fraction: float) -> None:
        """Do nothing: TCP loses no packets."""

    async def _read(self, session: ChannelSession) -> None:
        while True:
            await self.wait_until_reading()
            message = await self._socket.receive()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    session.receive(message.data)
                case _:
                    return
