"""The usual calls: an agent of their own for each person who calls."""

from __future__ import annotations

import inspect
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.applications import Starlette

from duologue._user_code import FailureReports, call_plain, is_async, log_failure, run_contained
from duologue.agent.agent import Agent
from duologue.edges.webrtc import CallEdge
from duologue.errors import ConfigError, DuologueError
from duologue.rtc.config import PeerError
from duologue.server.app import create_call_app
from duologue.server.call_socket import FAILED, RefusedError
from duologue.server.calls import CallHandler, CallSignalling
from duologue.server.config import ServerConfig
from duologue.server.serving import serve_app

log = logging.getLogger(__name__)

type MakeAgent = Callable[[CallEdge], Agent | Awaitable[Agent]]
"""Makes the agent for one caller, plain or ``async``; called once per call.

It gets the edge that the caller is on, and so what came with the call (`CallEdge.request`).
"""

type HandleCall = Callable[[CallEdge], Awaitable[None]]
"""Conducts the whole call of one caller: makes an agent, joins it, and returns at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    """A call that is over.

    ``agent`` is None if none was made, ``error`` is the error that ended the call, if any.
    ``seconds`` is its length from when the caller was admitted.
    """

    edge: CallEdge
    agent: Agent | None
    seconds: float
    error: Exception | None


type OnEnd = Callable[[CallEnd], Awaitable[None] | None]
"""Called after the end of each call; a plain function runs in a thread."""


def create_app(
    make_agent: MakeAgent | None = None,
    config: ServerConfig | None = None,
    *,
    handle_call: HandleCall | None = None,
    on_end: OnEnd | None = None,
) -> Starlette:
    """An ASGI app in which each caller talks with an agent of their own.

    ``make_agent`` gets the edge of a call and returns the `Agent` that will join it; ``conduct``,
    in its place, joins one itself. ``on_end`` is called after each call, and has 30 s. The
    routes are those of `create_call_app`. Raises `ConfigError` unless there is one of the two.
    """
    config = config or ServerConfig()
    return create_call_app(
        agent_call_handler(make_agent, config, handle_call=handle_call, on_end=on_end), config
    )


async def serve(
    make_agent: MakeAgent | None = None,
    config: ServerConfig | None = None,
    *,
    handle_call: HandleCall | None = None,
    on_end: OnEnd | None = None,
    ready: Callable[[str], None] | None = None,
    listener: socket.socket | None = None,
) -> None:
    """Serve the page, and an agent for each caller, until cancelled or stopped by a signal.

    ``make_agent``, ``conduct`` and ``on_end`` are those of `create_app`. ``ready`` is called once
    with the address to open; it is printed when not given. ``listener`` is a socket that already
    listens (see `listen`). Raises `ConfigError` when the port is taken or the certificate can't be
    used.
    """
    config = config or ServerConfig()
    app = create_app(make_agent, config, handle_call=handle_call, on_end=on_end)
    await serve_app(app, config, ready=ready, listener=listener)


def agent_call_handler(
    make_agent: MakeAgent | None,
    config: ServerConfig,
    *,
    handle_call: HandleCall | None = None,
    on_end: OnEnd | None = None,
) -> CallHandler:
    """Conduct each call with an agent of its own; the edge shows the caller every public event."""
    if (make_agent is None) == (handle_call is None):
        raise ConfigError("pass make_agent or handle_call: one of the two")
    for name, function in (
        ("make_agent", make_agent),
        ("handle_call", handle_call),
        ("on_end", on_end),
    ):
        if function is not None and not callable(function):
            raise ConfigError(f"{name} must be a function, not {function!r:.80}")

    failures = FailureReports(lambda source, message: None, time.monotonic)

    async def conduct_one(signalling: CallSignalling) -> None:
        edge = CallEdge(
            signalling,
            ice_servers=config.ice_servers,
            loopback=config.is_from_this_machine(signalling.request),
            request=signalling.request,
        )
        call = _CallRecord(edge)
        if on_end is not None:
            signalling.after_call = lambda: call.report_end(on_end)
        try:
            if handle_call is not None:
                await _run_user_code("handle_call", _handle_call(handle_call, edge), failures)
            elif make_agent is not None:
                call.agent = await _run_user_code(
                    "make_agent", _make_agent(make_agent, edge), failures
                )
                await edge.introduce(call.agent.agent_user.name)
                async with call.agent.join():
                    await call.agent.finish()
        except PeerError as error:
            call.error = error
            log.info("a call was lost: %s", error)  # the edge has told the page
        except Exception as error:
            call.error = error
            raise

    return conduct_one


class _CallRecord:
    """The progress of a call."""

    def __init__(self, edge: CallEdge) -> None:
        self.edge = edge
        self.agent: Agent | None = None
        self.error: Exception | None = None
        self._started_at = time.monotonic()

    async def report_end(self, on_end: OnEnd) -> None:
        """Call ``on_end``; an error of it is only logged."""
        end = CallEnd(
            edge=self.edge,
            agent=self.agent,
            seconds=time.monotonic() - self._started_at,
            error=self.error,
        )
        try:
            told: object = (
                on_end(end) if is_async(on_end) else await call_plain(lambda: on_end(end))
            )
            if inspect.isawaitable(told):
                await run_contained(told)
        except Exception as error:  # noqa: BLE001 - reported
            log_failure(log, "on_end", error)


async def _make_agent(make_agent: MakeAgent, edge: CallEdge) -> Agent:
    made = make_agent(edge)
    agent = await made if inspect.isawaitable(made) else made
    if not isinstance(agent, Agent):
        raise ConfigError(f"make_agent must return an Agent, not {agent!r:.80}")
    if agent.edge is not edge:
        raise ConfigError(
            "make_agent must pass on the edge that it was given: Agent(edge=edge, ...)"
        )
    return agent


async def _handle_call(handle_call: HandleCall, edge: CallEdge) -> None:
    running = handle_call(edge)
    if not inspect.isawaitable(running):
        raise ConfigError("handle_call must be an async function: write async def")
    await running


async def _run_user_code[T](name: str, code: Awaitable[T], failures: FailureReports) -> T:
    """Run a function of the program; log its errors, each only once in a while."""
    try:
        return await run_contained(code)
    except DuologueError:
        raise
    except Exception as error:
        failures.report(name, error)
        raise RefusedError(FAILED) from error
