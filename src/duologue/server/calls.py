"""Calls: lets people in, one conversation for each, and no more than there is room for."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.websockets import WebSocket

from duologue.edges.call_request import CallRequest
from duologue.realtime.errors import DuologueError
from duologue.rtc.signalling import Signalling
from duologue.server.config import ServerConfig
from duologue.server.limits import WaitingRoom
from duologue.server.line import (
    BAD_TOKEN,
    FAILED,
    CallRefusedError,
    Line,
    Refusal,
    RefusedError,
)
from duologue.user_code import log_failure

log = logging.getLogger(__name__)

AFTER_S = 30.0
"""Seconds that the work after a call may take."""


class CallSignalling(Signalling, Protocol):
    """The signalling of a call through this server."""

    @property
    def request(self) -> CallRequest:
        """The request that began the call."""
        ...

    after: Callable[[], Awaitable[None]] | None
    """Run when the call is over and its place is free, for at most `AFTER_S`."""


type Conduct = Callable[[CallSignalling], Awaitable[None]]
"""Conducts one call, from its offer to its end; cancelled when the person does not come back."""

MAX_WAITING = 128
"""Open sockets that have not sent their hello; a new one pushes out an older one."""


class Calls:
    """All calls of one app: a call takes a place when it is let in, and gives it back at its end.

    ``sessions`` is how many are under way, ``refused`` how many found no room.
    """

    def __init__(self, conduct: Conduct, config: ServerConfig) -> None:
        self._conduct = conduct
        self._config = config
        self._waiting: WaitingRoom[Line] = WaitingRoom(MAX_WAITING)
        self.sessions = 0
        self.refused = 0
        self.let_in: Callable[[tuple[str, int] | None], None] | None = None
        """Called with the address and port of each socket that has become a call."""

    async def take(self, websocket: WebSocket) -> None:
        """Serve one socket until its call has ended."""
        client = websocket.client
        line: Line | None = None
        try:
            await websocket.accept()
            line = Line(websocket, self._config)
            self._waiting.enter(line, client.host if client is not None else "", line.push_out)
            try:
                token = await line.hello()
            finally:
                self._waiting.leave(line)
            self._check(token)
            if self.let_in is not None:
                self.let_in((client.host, client.port) if client is not None else None)
            self.sessions += 1
            try:
                refusal = await self._hold(line)
            finally:
                self.sessions -= 1
            await line.close(refusal)
            if line.after is not None:
                await _bounded(line.after())
        except RefusedError as refused:
            if line is not None:
                await line.close(refused.refusal)

    def _check(self, token: str) -> None:
        expected = self._config.token
        if expected is not None and not hmac.compare_digest(_bytes(token), _bytes(expected)):
            raise RefusedError(BAD_TOKEN)
        limit = self._config.max_sessions
        if self.sessions >= limit:
            self.refused += 1
            people = "one person talks" if limit == 1 else f"{limit} people talk"
            message = f"All places are taken ({people} already): try again in a minute."
            raise RefusedError(Refusal("full", 1013, message))

    async def _hold(self, line: Line) -> Refusal | None:
        """Read the socket and conduct the call, until either has ended; says why, if there is."""
        await line.send(self._config.greeting())
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_read(line), name="socket")
            talking = tasks.create_task(self._talk(line), name="call")
            await asyncio.wait({reading, talking}, return_when=asyncio.FIRST_COMPLETED)
            if not talking.done():
                await asyncio.wait({talking}, timeout=self._config.goodbye_s)
            talking.cancel()
            reading.cancel()
        for task in (reading, talking):
            if not task.cancelled() and (refusal := task.result()) is not None:
                return refusal
        return None

    async def _talk(self, line: Line) -> Refusal | None:
        try:
            await self._conduct(line)
        except RefusedError as refused:
            return refused.refusal
        except CallRefusedError as error:
            return Refusal("refused", 4403, _fitting(str(error)))
        except DuologueError as error:
            if line.gone:
                return None
            log.warning("a call ended: %s", error)
            return Refusal("failed", 1011, _fitting(f"The call ended: {str(error).rstrip('.')}."))
        except Exception as error:  # noqa: BLE001 - any error of the program's
            log_failure(log, "a call", error)
            return FAILED
        return None


def _bytes(token: str) -> bytes:
    # JSON can contain a lone surrogate, which UTF-8 can't encode.
    return token.encode("utf-8", "surrogatepass")


async def _read(line: Line) -> Refusal | None:
    try:
        await line.read()
    except RefusedError as refused:
        return refused.refusal
    return None


async def _bounded(after: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(AFTER_S):
            await after
    except TimeoutError:
        log.error("the work after a call took over %g s and was cancelled", AFTER_S)


def _fitting(text: str) -> str:
    """Return as much of the text as fits into a close frame (RFC 6455: 123 bytes)."""
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= 123 else data[:120].decode(errors="ignore") + "…"
