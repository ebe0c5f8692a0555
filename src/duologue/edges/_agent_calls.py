"""Run an agent for each call of an edge that a web app accepts."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol, runtime_checkable

from starlette.applications import Starlette
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from duologue._user_code import FailureReports, run_contained
from duologue.edges.protocol import Edge
from duologue.errors import ConfigError, DuologueError
from duologue.server.call_socket import RefusedError
from duologue.server.calls import CallLimiter, CallSignalling
from duologue.server.config import ServerConfig, default_sessions
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
    """An accepted WebSocket of Starlette, as the edges use it."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._closed = False

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
        self._closed = True
        with suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._websocket.close(code, reason)


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

    async def run(self, edge: E) -> bool:
        """Run one call; log its error if there is one, and return whether there was none."""
        try:
            agent = await run_contained(self._make(edge))
            if agent is not None:
                async with agent.join():
                    await agent.finish()
        except DuologueError as error:
            logger.warning("a call ended: %s", error)
            return False
        except Exception as error:  # noqa: BLE001 - reported
            self._failures.report("make_agent", error)
            return False
        return True

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


async def serve_socket(
    websocket: WebSocket,
    limiter: CallLimiter,
    run: Callable[[ServerSocket], Awaitable[None]],
    *,
    subprotocol: str | None = None,
) -> None:
    """Accept a socket and run its call, if the limiter has a place; refuse it otherwise.

    Args:
        websocket: The socket, before it is accepted.
        limiter: Gives the place, and ends the call when the server ends.
        run: Runs the call until it has ended.
        subprotocol: The sub-protocol to accept.
    """
    try:
        async with asyncio.timeout(None) as limit:
            async with limiter.place(websocket, lambda: limit.reschedule(0)):
                await websocket.accept(subprotocol)
                await run(ServerSocket(websocket))
    except RefusedError as refused:
        await refuse_websocket(websocket, f"{refused}\n", 503)
    except TimeoutError:
        logger.info("a call was ended because the server ends")


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
