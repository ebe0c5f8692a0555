"""Run an agent for each call of an edge that a web app accepts."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol, runtime_checkable

from starlette.applications import Starlette
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from duologue._user_code import FailureReports, run_contained
from duologue.edges.protocol import Edge
from duologue.errors import ConfigError, DuologueError
from duologue.json_types import Json
from duologue.server.call_control import CallControl, CallRecord
from duologue.server.call_socket import (
    FAILED,
    RESTARTING,
    CallRefusedError,
    Refusal,
    RefusedError,
)
from duologue.server.calls import CallLimiter, CallSignalling, shorten_reason
from duologue.server.config import ServerConfig, default_sessions
from duologue.server.direct_socket import direct_socket_of
from duologue.server.middleware import refuse_websocket

logger = logging.getLogger(__name__)

POLICY_VIOLATION = 1008
"""Close code of a client that is refused after its socket was opened (RFC 6455, section 7.4)."""

_CLOSE_S = 0.25
"""Seconds that closing a socket may take."""


@runtime_checkable
class JoiningAgent(Protocol):
    """An `Agent`, as this package sees it: agents know edges, and edges know no agents."""

    @property
    def edge(self) -> Edge:
        """Where the person is."""
        ...

    def join(self) -> AbstractAsyncContextManager[object]:
        """Connect the person and the model."""
        ...

    async def finish(self) -> None:
        """Wait until the conversation ends."""


class ServerSocket:
    """An accepted WebSocket of Starlette, as the edges use it.

    Args:
        websocket: The socket.
        explains: Whether the client understands our JSON messages; a carrier does not.
    """

    def __init__(self, websocket: WebSocket, *, explains: bool = False) -> None:
        self._websocket = websocket
        self._direct = direct_socket_of(websocket.scope)
        self._explains = explains
        self._closed = False
        self.end_reason: Refusal | None = None
        """Why the server ends the call; an edge that closes the socket closes it with this."""

    async def receive(self) -> str | bytes | None:
        """Return the next message; None after the end."""
        if self._closed:
            return None
        event = await self._websocket.receive()
        if event["type"] == "websocket.disconnect":
            self._closed = True
            return None
        text: str | None = event.get("text")
        if text is not None:
            return text
        data: bytes = event.get("bytes") or b""
        return data

    async def read(self, handle: Callable[[str | bytes], None]) -> None:
        """Pass each message to ``handle``, in order, until the end.

        Raises:
            Exception: ``handle`` raised it; nothing more is passed on.
        """
        direct = self._direct
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def receive(message: str | bytes) -> None:
            if failed.done():
                return
            try:
                handle(message)
            except Exception as error:  # noqa: BLE001 - raised by `read`
                failed.set_exception(error)

        while direct is None or not direct.receive_directly(receive):
            message = await self.receive()
            if message is None:
                return
            handle(message)
        # Nothing but the end comes as an event now.
        ending = asyncio.ensure_future(self.receive())
        try:
            waited: set[asyncio.Future[str | bytes | None] | asyncio.Future[None]]
            waited = {ending, failed}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            direct.receive_directly(None)
            ending.cancel()
        for done in waited:
            if done.done() and not done.cancelled():
                done.result()

    def try_send(self, message: str | bytes) -> bool:
        """Send a message at once; return False, without sending, if that has to wait."""
        return not self._closed and self._direct is not None and self._direct.try_send(message)

    async def send(self, message: str | bytes) -> bool:
        """Send a message; return False after the end."""
        if self._closed:
            return False
        try:
            if isinstance(message, str):
                await self._websocket.send_text(message)
            else:
                await self._websocket.send_bytes(message)
        except (WebSocketDisconnect, RuntimeError):
            self._closed = True
            return False
        return True

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket; may be called again."""
        if self._closed or self._websocket.client_state is WebSocketState.DISCONNECTED:
            return
        if self.end_reason is not None and self._explains:
            code, reason = self.end_reason.close_code, self.end_reason.message
        self._closed = True
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._websocket.close(code, reason)

    async def explain(self, message: Mapping[str, Json]) -> None:
        """Send a JSON message, if the client understands it."""
        if self._explains:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await self.send(json.dumps(message))

    async def refuse(self, refusal: Refusal) -> None:
        """Close the socket with the reason."""
        await self.explain({"type": "error", "code": refusal.code, "message": refusal.message})
        await self.close(refusal.close_code, refusal.message)


class AgentCalls[E: Edge]:
    """Makes the agent of each call, and runs it until the call has ended.

    Args:
        make_agent: Gets the edge of a call, and returns the agent that joins it; or a coroutine
            function that conducts the whole call, and returns None.

    Raises:
        ConfigError: ``make_agent`` is not a function.
    """

    def __init__(
        self, make_agent: Callable[[E], JoiningAgent | Awaitable[JoiningAgent | None]]
    ) -> None:
        if not callable(make_agent):
            raise ConfigError(f"make_agent must be a function, not {make_agent!r:.80}")
        self._make_agent = make_agent
        self._failures = FailureReports(time.monotonic)

    async def run(self, edge: E, record: CallRecord | None = None) -> Refusal | None:
        """Run one call; log its error if there is one, and return what the other side gets of it.

        Args:
            edge: The edge of the call.
            record: Follows the call for the program.
        """
        try:
            agent = await run_contained(self._make(edge))
            if agent is not None:
                if record is not None:
                    record.agent_made(agent)
                async with agent.join():
                    await agent.finish()
        except RefusedError as refused:
            return refused.refusal
        except CallRefusedError as error:
            return Refusal("refused", POLICY_VIOLATION, shorten_reason(str(error)))
        except DuologueError as error:
            if record is not None:
                record.call_failed(error)
            logger.warning("a call ended: %s", error)
            text = f"The call ended: {str(error).rstrip('.')}."
            return Refusal(FAILED.code, FAILED.close_code, shorten_reason(text))
        except Exception as error:  # noqa: BLE001 - reported
            if record is not None:
                record.call_failed(error)
            self._failures.report("make_agent", error)
            return FAILED
        return None

    async def _make(self, edge: E) -> JoiningAgent | None:
        made = self._make_agent(edge)
        agent = await made if inspect.isawaitable(made) else made
        if agent is None and inspect.iscoroutine(made):
            return None
        if not isinstance(agent, JoiningAgent):
            raise ConfigError(f"make_agent must return an Agent, not {agent!r:.80}")
        if agent.edge is not edge:
            raise ConfigError(
                "make_agent must pass on the edge that it was given: Agent(edge=edge, ...)"
            )
        return agent


class CallClient(Protocol):
    """The other side of a call, as the server that ends the call sees it."""

    end_reason: Refusal | None
    """Why the server ends the call; set before the call is cancelled."""

    async def explain(self, message: Mapping[str, Json]) -> None:
        """Send one of our JSON messages, if the client understands it."""


class EdgeCall:
    """A call of an edge as the server sees it (`AdmittedCall`)."""

    def __init__(self, client: CallClient, record: CallRecord | None) -> None:
        self.call_id = ""
        self.control: CallControl | None = None if record is None else record.control
        self.after_call = None if record is None else record.after_call
        self._client = client
        self._limit = asyncio.timeout(None)

    def end(self, reason: Refusal | None = None) -> None:
        """End the call."""
        if not self._limit.expired():
            self._client.end_reason = reason
            self._limit.reschedule(0.0)

    async def warn(self, seconds: float) -> None:
        """Tell a client that the call ends in ``seconds``; a carrier could not tell anybody."""
        await self._client.explain({"type": "ending", "seconds": round(seconds, 1)})

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run the call until it has ended, or `end`."""
        try:
            async with self._limit:
                await work()
        except TimeoutError:
            if self._client.end_reason is RESTARTING:
                logger.info("a call was ended because the server ends")
            else:
                logger.info("an operator has ended a call")


async def serve_socket[E: Edge](
    websocket: WebSocket,
    limiter: CallLimiter,
    begin: Callable[[ServerSocket], Awaitable[E | None]],
    run: Callable[[ServerSocket, E, CallRecord | None], Awaitable[None]],
    *,
    begin_s: float,
    subprotocol: str | None = None,
) -> None:
    """Accept a socket and run its call, if the limiter has a place; refuse it otherwise.

    The call takes its place when ``begin`` has let it in, and not before.

    Args:
        websocket: The socket, before it is accepted.
        limiter: Gives the place, and ends the call when the server ends.
        begin: Reads the messages that show who calls, and returns the edge of the call; None if it
            has refused the socket and closed it. Cancelled after ``begin_s``.
        run: Runs the call until it has ended.
        begin_s: Seconds that ``begin`` may take.
        subprotocol: The sub-protocol to accept, whose clients understand our JSON messages.
    """
    try:
        limiter.check_place()
    except RefusedError as refused:
        await refuse_websocket(websocket, f"{refused}\n", 503)
        return
    await websocket.accept(subprotocol)
    socket = ServerSocket(websocket, explains=subprotocol is not None)
    try:
        async with limiter.waiting(websocket, begin_s):
            edge = await begin(socket)
        if edge is None:
            return
        record = None if limiter.record is None else limiter.record(edge)
        call = EdgeCall(socket, record)
        async with limiter.place(websocket, call):
            await call.run(lambda: run(socket, edge, record))
    except RefusedError as refused:
        await socket.refuse(refused.refusal)
    except TimeoutError:
        text = f"nothing showed within {begin_s:g} s who calls"
        await socket.refuse(Refusal("hello", POLICY_VIOLATION, text))


async def _run_no_call(signalling: CallSignalling) -> None:
    raise AssertionError(f"this limiter serves no page: {signalling!r}")


def limiter_of(app: Starlette | None, max_calls: int | None) -> CallLimiter:
    """Return the limiter that the app's page has, or one of its own.

    Raises:
        ConfigError: ``max_calls`` is below 1, or the app has a limit of its own.
    """
    shared = getattr(app.state, "calls", None) if app is not None else None
    if isinstance(shared, CallLimiter):
        if max_calls is not None:
            raise ConfigError("this app has a limit for all calls: ServerConfig(max_sessions=...)")
        return shared
    limit = default_sessions() if max_calls is None else max_calls
    return CallLimiter(_run_no_call, ServerConfig(max_sessions=limit))
