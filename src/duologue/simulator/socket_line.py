"""A session over a WebSocket."""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import WSMsgType, web

from duologue.clock import Clock
from duologue.simulator.faults import FaultPlan
from duologue.simulator.line import EventLine
from duologue.simulator.tcp_reset import reset

MOST_BYTES = 32 * 1024 * 1024
"""Largest message taken; the protocol allows 15 MiB of sound in an event."""

MAX_REASON_BYTES = 123
"""Bytes of a WebSocket close reason; a longer one is cut."""

_DEAF_STEP_S = 0.2


class ServedSession(Protocol):
    """What a line needs of the session that it carries."""

    async def run_brain(self) -> None:
        """Live as long as the model does."""

    async def begin(self) -> None:
        """Tell the client that the session is there, once the model is."""

    def take(self, text: str | bytes) -> None:
        """A message of the client, as it came."""

    def close(self) -> None:
        """The line is gone."""


class SocketLine(EventLine):
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

    async def serve(self, session: ServedSession) -> None:
        """Hold the session until either side ends it."""
        async with asyncio.TaskGroup() as tasks:
            below = [
                tasks.create_task(self.write(), name="simulator writes"),
                tasks.create_task(session.run_brain(), name="simulator brain"),
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

    async def end(self, code: int, reason: str) -> None:
        """Close with a code."""
        message = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        await self._socket.close(code=code or 1000, message=message.encode())

    def break_off(self) -> None:
        """Reset the TCP connection."""
        reset(self._transport)

    def lose(self, fraction: float) -> None:
        """TCP loses nothing."""

    async def _read(self, session: ServedSession) -> None:
        while True:
            wait = self.deaf_until - self.clock.now()
            if wait > 0 and not self.over:
                # In short steps: a stalled session ends with the simulator, too.
                await self.clock.sleep(min(wait, _DEAF_STEP_S))
                continue
            message = await self._socket.receive()
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    session.take(message.data)
                case _:
                    return
