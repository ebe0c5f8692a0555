"""What simulated services on HTTP and WebSocket share: listening, refusing, and an end."""

from __future__ import annotations

import ssl
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

from aiohttp import web

from duologue.clock import Clock
from duologue.simulator.brains import Brain
from duologue.simulator.faults import FaultPlan
from duologue.simulator.line import EventLine
from duologue.simulator.service import KeptSession, Service
from duologue.simulator.socket_line import ServedSession, SocketLine

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
type Guard = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
"""Answers a request by its handler; an error becomes the service's own response."""

MOST_OPEN = 64
"""Sessions at once; the next is refused with 429."""


def guarded(guard: Guard, handler: Handler) -> Handler:
    """Return the handler with a guard before it.

    This is no aiohttp middleware, because aiohttp keeps the last thousand of these in a global
    cache, and with them everything that they refer to, such as servers that have ended.
    """

    async def answer(request: web.Request) -> web.StreamResponse:
        return await guard(request, handler)

    return answer


class SocketSession(ServedSession, KeptSession, Protocol):
    """What a service on WebSocket needs of its sessions."""


class HttpService[S: SocketSession](Service[S]):
    """A simulated service; use as ``async with``. Its subclass says what it answers to.

    Raises `ConfigError` when it can't listen.
    """

    def __init__(
        self,
        brain: Brain,
        plan: FaultPlan,
        *,
        host: str,
        port: int,
        key: str,
        unknown_models: Sequence[str],
        clock_scale: float,
        seed: int,
        clock: Clock | None,
    ) -> None:
        super().__init__(
            brain,
            plan,
            host=host,
            port=port,
            unknown_models=unknown_models,
            clock_scale=clock_scale,
            seed=seed,
            clock=clock,
        )
        self.key = key
        self._server_context: ssl.SSLContext | None = None
        """For a service that speaks TLS; set by its subclass."""

    @abstractmethod
    def application(self) -> web.Application:
        """Everything that the service answers to."""

    async def _listen(self, stack: AsyncExitStack) -> int:
        """Begin to listen; the port."""
        runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=1.0, handle_signals=False
        )
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(self._end_sessions)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port, ssl_context=self._server_context)
        await site.start()
        return int(runner.addresses[0][1])

    def refusal(self) -> tuple[int, str] | None:
        """The status by which the next connection is refused, if it is, and a code or none."""
        fault = self._plan.handshake()
        if fault is not None:
            return fault.status, fault.code
        return (429, "") if len(self._open) >= MOST_OPEN else None

    def socket_line(self, websocket: web.WebSocketResponse, request: web.Request) -> SocketLine:
        """The line of a new session."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        return SocketLine(websocket, transport, self._plan, self._clock, self._seed)

    async def hold_on_line(self, line: SocketLine, session: S) -> None:
        """Hold a session until its end."""
        self.keep(line, session)
        try:
            await line.serve(session)
        finally:
            self.let_go(line, session)

    async def _end_sessions(self) -> None:
        for line in [*self._open]:
            await self.end_line(line)

    async def end_line(self, line: EventLine) -> None:
        """End a session, because the service stops."""
        if line.deaf_until > self._clock.now():
            line.cut()
        else:
            line.close(1001, "the simulator stops")
