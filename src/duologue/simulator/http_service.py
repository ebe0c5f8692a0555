"""What simulated services on HTTP and WebSocket share: listening, their sessions, and an end."""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from duologue.clock import Clock, LoopClock
from duologue.realtime.errors import ConfigError
from duologue.simulator.brains import Brain
from duologue.simulator.expectations import Expectations
from duologue.simulator.faults import Error, Fault, FaultPlan
from duologue.simulator.line import EventLine
from duologue.simulator.socket_line import ServedSession, SocketLine

MOST_KEPT = 256
"""Sessions that are kept to be looked at; the oldest go."""

MOST_OPEN = 64
"""Sessions at once; the next is refused with 429."""


class KeptSession(ServedSession, Protocol):
    """What a service needs of its sessions."""

    taken: Callable[[str], None]

    def complain(self, error: Error) -> None:
        """Tell the client an error that nobody made."""


class HttpService[S: KeptSession](ABC):
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
        if clock_scale <= 0:
            raise ConfigError(f"clock_scale takes a number above 0, not {clock_scale}")
        self.key = key
        self.sessions: list[S] = []
        """The sessions so far, in order; of very many the newest."""
        self.failures: list[str] = []
        """What scripts expected and did not get, each with its place in the script."""
        self.unknown_models = frozenset(unknown_models)
        self._clock: Clock = clock or LoopClock()
        self._brain = brain
        self._plan = plan
        self._host = host
        self._port = port
        self._seed = seed
        self._lines: list[EventLine] = []
        self._open: set[EventLine] = set()
        self._stack = AsyncExitStack()
        self._tasks: asyncio.TaskGroup | None = None
        self._server_context: ssl.SSLContext | None = None
        """For a service that speaks TLS; set by its subclass."""

    @abstractmethod
    def application(self) -> web.Application:
        """Everything that the service answers to."""

    async def __aenter__(self) -> Self:
        if self._brain.prepare is not None:
            await self._brain.prepare()
        runner = web.AppRunner(
            self.application(), access_log=None, shutdown_timeout=1.0, handle_signals=False
        )
        try:
            self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
            self._stack.push_async_callback(runner.cleanup)
            self._stack.push_async_callback(self._end_sessions)
            await runner.setup()
            site = web.TCPSite(runner, self._host, self._port, ssl_context=self._server_context)
            try:
                await site.start()
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise ConfigError(
                    f"can't listen on {self._host} port {self._port}: {reason}"
                ) from error
            self._port = int(runner.addresses[0][1])
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The group is not told what happened inside: it would wrap it.
        await self._stack.aclose()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def _named(self) -> str:
        """The host as an address has it."""
        return f"[{self._host}]" if ":" in self._host else self._host

    @property
    def faults(self) -> Sequence[Fault]:
        """What goes wrong; may be set at any time, also by names."""
        return self._plan.faults

    @faults.setter
    def faults(self, faults: Sequence[Fault | str]) -> None:
        self._plan.set(faults)

    @property
    def fired(self) -> Sequence[object]:
        """The faults' actions that have happened so far."""
        return self._plan.fired

    async def kill(self, session: int = -1) -> None:
        """Cut a session's connection: a TCP reset, or WebRTC's sockets without a farewell."""
        self._lines[session].cut()
        await asyncio.sleep(0)

    async def drop_all(self) -> None:
        """Cut every connection, as a power failure would."""
        for line in [*self._open]:
            line.cut()
        await asyncio.sleep(0)

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

    def expectations(self) -> Expectations | None:
        """What the script expects of a new session."""
        wanted = self._brain.script.expectations
        return Expectations(wanted, self.failures, self._clock) if wanted else None

    async def hold_on_line(self, line: SocketLine, session: S) -> None:
        """Hold a session until its end."""
        self.keep(line, session)
        try:
            await line.serve(session)
        finally:
            self.let_go(line, session)

    def keep(self, line: EventLine, session: S) -> None:
        """A session has begun on this line."""
        line.complain = session.complain
        session.taken = line.runner.saw
        self.sessions.append(session)
        self._lines.append(line)
        del self.sessions[:-MOST_KEPT], self._lines[:-MOST_KEPT]
        self._open.add(line)

    def let_go(self, line: EventLine, session: S) -> None:
        """A session is over."""
        session.close()
        line.runner.close()
        self._open.discard(line)

    async def _end_sessions(self) -> None:
        for line in [*self._open]:
            await self.end_line(line)

    async def end_line(self, line: EventLine) -> None:
        """End a session, because the service stops."""
        if line.deaf_until > self._clock.now():
            line.cut()
        else:
            line.close(1001, "the simulator stops")
