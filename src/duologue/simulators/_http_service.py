"""What simulated services on HTTP and WebSocket share: they listen, refuse, and stop."""

from __future__ import annotations

import ssl
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Protocol

from aiohttp import web

from duologue.clock import Clock
from duologue.simulators._backends import Backend
from duologue.simulators._channel import EventChannel
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators._service import Service, ServiceSession
from duologue.simulators._websocket_channel import ChannelSession, WebSocketChannel

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
type ErrorHandler = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
"""Answers a request with its handler, and turns errors into responses of the service."""

MAX_OPEN_SESSIONS = 64
"""Concurrent sessions; the next connection is refused with status 429."""


def with_error_handler(error_handler: ErrorHandler, handler: Handler) -> Handler:
    """Return the handler with an error handler around it.

    This is not an aiohttp middleware: aiohttp keeps the last thousand middlewares in a global
    cache, and with them everything that they refer to, such as servers that have ended.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        return await error_handler(request, handler)

    return handle


class WebSocketSession(ChannelSession, ServiceSession, Protocol):
    """What a service on WebSocket needs of its sessions."""


class HttpService[S: WebSocketSession](Service[S]):
    """A simulated service on HTTP; use as ``async with``. A subclass defines the routes.

    Raises:
        ConfigError: It cannot listen on the address, or an option is wrong.
    """

    def __init__(
        self,
        backend: Backend,
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
            backend,
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
        """The TLS context of a subclass whose service speaks TLS."""

    @abstractmethod
    def application(self) -> web.Application:
        """Return the application with all routes of the service."""

    async def _listen(self, stack: AsyncExitStack) -> int:
        """Listen, and return the port."""
        runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=1.0, handle_signals=False
        )
        stack.push_async_callback(runner.cleanup)
        stack.push_async_callback(self._close_channels)
        await runner.setup()
        site = web.TCPSite(runner, self._host, self._port, ssl_context=self._server_context)
        await site.start()
        return int(runner.addresses[0][1])

    def refusal(self) -> tuple[int, str] | None:
        """Return status and code with which the next connection is refused, or None.

        The code is empty where the service has its usual one.
        """
        fault = self._plan.take_handshake()
        if fault is not None:
            return fault.status, fault.code
        return (429, "") if len(self._open) >= MAX_OPEN_SESSIONS else None

    def open_channel(
        self, websocket: web.WebSocketResponse, request: web.Request
    ) -> WebSocketChannel:
        """Return the channel of a new session."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        return WebSocketChannel(websocket, transport, self._plan, self._clock, self._seed)

    async def run_on_channel(self, channel: WebSocketChannel, session: S) -> None:
        """Run a session until it ends."""
        self.attach(channel, session)
        try:
            await channel.serve(session)
        finally:
            self.release(channel, session)

    async def _close_channels(self) -> None:
        for channel in [*self._open]:
            await self.close_channel(channel)

    async def close_channel(self, channel: EventChannel) -> None:
        """Close a channel, because the service stops."""
        if channel.reading_paused_until > self._clock.now():
            channel.cut()
        else:
            channel.close(1001, "the simulator stops")
