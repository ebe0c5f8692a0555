"""Admit callers, run one call for each, and refuse calls beyond the limit."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.websockets import WebSocket

from duologue._user_code import log_failure
from duologue.clock import LoopClock
from duologue.errors import DuologueError
from duologue.rtc.call_request import CallRequest
from duologue.rtc.signalling import Signalling
from duologue.server._lateness import LatenessMonitor
from duologue.server._rate_limits import EvictingPool
from duologue.server.call_socket import (
    BAD_TOKEN,
    FAILED,
    CallRefusedError,
    CallSocket,
    Refusal,
    RefusedError,
)
from duologue.server.config import ServerConfig
from duologue.ticker import Subscription, ticker_for

log = logging.getLogger(__name__)

AFTER_CALL_S = 30.0
"""Most seconds that the work after a call may take."""


class CallSignalling(Signalling, Protocol):
    """The signalling of a call through this server."""

    @property
    def request(self) -> CallRequest:
        """The request that began the call."""
        ...

    after_call: Callable[[], Awaitable[None]] | None
    """Runs after the call, when its place is free again, for at most `AFTER_CALL_S`."""


type CallHandler = Callable[[CallSignalling], Awaitable[None]]
"""Handles one call, from its offer to its end; cancelled if the person does not come back."""

_OVERLOADED = Refusal(
    "full", 1013, "This server is too busy for another call: try again in a minute."
)

MAX_WAITING = 128
"""Most open sockets that have not sent their hello; a new one evicts an older one."""


class CallLimiter:
    """Runs the calls of one app, and limits their number.

    ``sessions`` counts the running calls, ``refused`` the calls refused because of a limit, and
    ``refused_late`` those of them that would have found a place, but the ticks were late.

    Args:
        handler: Handles one call.
        config: The limits.
    """

    def __init__(self, handler: CallHandler, config: ServerConfig) -> None:
        self._handler = handler
        self._config = config
        self._sockets_without_hello: EvictingPool[CallSocket] = EvictingPool(MAX_WAITING)
        self.sessions = 0
        self.refused = 0
        self.refused_late = 0
        self._clock = LoopClock()
        self._lateness = LatenessMonitor()
        self._ticks: Subscription | None = None
        self.call_admitted: Callable[[tuple[str, int] | None], None] | None = None
        """Called with the address and port of each socket that has become a call."""

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one socket until its call has ended."""
        client = websocket.client
        socket: CallSocket | None = None
        try:
            await websocket.accept()
            socket = CallSocket(websocket, self._config)
            self._sockets_without_hello.add(
                socket, client.host if client is not None else "", socket.evict
            )
            try:
                token = await socket.receive_hello()
            finally:
                self._sockets_without_hello.remove(socket)
            self._check_admission(token)
            if self.call_admitted is not None:
                self.call_admitted((client.host, client.port) if client is not None else None)
            self.sessions += 1
            self._watch_ticks()
            try:
                refusal = await self._run_call(socket)
            finally:
                self.sessions -= 1
                if not self.sessions:
                    self._unwatch_ticks()
            await socket.close(refusal)
            if socket.after_call is not None:
                await _run_after_call(socket.after_call())
        except RefusedError as refused:
            if socket is not None:
                await socket.close(refused.refusal)

    @property
    def tick_delay_ms(self) -> float:
        """Milliseconds by which a tenth of the output clock's ticks of the last three seconds were
        later than they should be; 0 without a call in that time.
        """
        return self._lateness.delay_ms(self._clock.now())

    def _watch_ticks(self) -> None:
        """Measure the ticks behind the calls that are there already, because the last waits most.

        Without a call there is no tick, which saves an idle server 50 timers a second.
        """
        earlier, self._ticks = self._ticks, ticker_for(self._clock).subscribe(self._record_tick)
        if earlier is not None:
            earlier.cancel()

    def _unwatch_ticks(self) -> None:
        if self._ticks is not None:
            self._ticks.cancel()
            self._ticks = None
        self._lateness.pause()

    def _record_tick(self, when: float) -> None:
        self._lateness.record(when, self._clock.now())

    def _check_admission(self, token: str) -> None:
        expected = self._config.token
        if expected is not None and not hmac.compare_digest(_bytes(token), _bytes(expected)):
            raise RefusedError(BAD_TOKEN)
        limit = self._config.max_sessions
        if self.sessions >= limit:
            self.refused += 1
            people = "one person talks" if limit == 1 else f"{limit} people talk"
            message = f"All places are taken ({people} already): try again in a minute."
            raise RefusedError(Refusal("full", 1013, message))
        bound = self._config.max_tick_delay_ms
        if self.sessions and bound is not None and self.tick_delay_ms > bound:
            self.refused += 1
            self.refused_late += 1
            log.warning(
                "a call was refused: ticks were %.0f ms late with %d calls",
                self.tick_delay_ms,
                self.sessions,
            )
            raise RefusedError(_OVERLOADED)

    async def _run_call(self, socket: CallSocket) -> Refusal | None:
        """Read the socket and run the call until either ends; return the reason if there is one."""
        await socket.send(self._config.config_message())
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read_socket(socket), name="socket")
            talking = tasks.create_task(self._run_handler(socket), name="call")
            await asyncio.wait({reading, talking}, return_when=asyncio.FIRST_COMPLETED)
            if not talking.done():
                await asyncio.wait({talking}, timeout=self._config.end_timeout_s)
            talking.cancel()
            reading.cancel()
        for task in (reading, talking):
            if not task.cancelled() and (refusal := task.result()) is not None:
                return refusal
        return None

    async def _run_handler(self, socket: CallSocket) -> Refusal | None:
        try:
            await self._handler(socket)
        except RefusedError as refused:
            return refused.refusal
        except CallRefusedError as error:
            return Refusal("refused", 4403, _shorten_reason(str(error)))
        except DuologueError as error:
            if socket.closed:
                return None
            log.warning("a call ended: %s", error)
            return Refusal(
                "failed", 1011, _shorten_reason(f"The call ended: {str(error).rstrip('.')}.")
            )
        except Exception as error:  # noqa: BLE001 - any error of the program's
            log_failure(log, "a call", error)
            return FAILED
        return None


def _bytes(token: str) -> bytes:
    # JSON can contain a lone surrogate, which UTF-8 can't encode.
    return token.encode("utf-8", "surrogatepass")


async def _read_socket(socket: CallSocket) -> Refusal | None:
    try:
        await socket.read()
    except RefusedError as refused:
        return refused.refusal
    return None


async def _run_after_call(after: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(AFTER_CALL_S):
            await after
    except TimeoutError:
        log.error("the work after a call took over %g s and was cancelled", AFTER_CALL_S)


def _shorten_reason(text: str) -> str:
    """Return the beginning of the text that fits into a close frame (RFC 6455: 123 bytes)."""
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= 123 else data[:120].decode(errors="ignore") + "…"
