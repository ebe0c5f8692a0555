"""Serve an agent of their own to each caller."""

from __future__ import annotations

import functools
import inspect
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, cast

from duologue._json_logs import current_call_id
from duologue._user_code import FailureReports, call_plain, is_async, log_failure, run_contained
from duologue.agent.agent import Agent
from duologue.edges.protocol import Edge, MeasuredEdge
from duologue.edges.webrtc import CallEdge
from duologue.errors import ConfigError, DuologueError, UnsupportedError
from duologue.json_types import JsonObject
from duologue.rtc.config import PeerError
from duologue.server.app import CallApp, create_call_app
from duologue.server.call_control import CallControl
from duologue.server.call_socket import FAILED, RefusedError
from duologue.server.calls import CallHandler, CallSignalling
from duologue.server.config import ServerConfig
from duologue.server.serving import serve_app

if TYPE_CHECKING:
    from duologue.edges.telephone.carrier import Carrier
    from duologue.edges.telephone.sip import SIP, MakeSIPAgent
    from duologue.observe import Metrics
    from duologue.observe.live import LiveCall
    from duologue.stores import ConversationStores

import_module("duologue.agent.session")  # now, because the first call should not wait for it

log = logging.getLogger(__name__)

type MakeAgent = Callable[[CallEdge], Agent | Awaitable[Agent | None]]
"""Makes the agent for one call; a plain or an ``async`` function.

An ``async`` one may also handle the whole call, as `HandleCall` does, and return None.

It gets the edge of the call, and with it the request that began the call (`CallEdge.request`).
"""

type HandleCall = Callable[[CallEdge], Awaitable[None]]
"""Handles one whole call: makes an agent, joins it, and returns at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    """A call that has ended.

    Args:
        edge: The edge of the call: a `CallEdge`, or that of a telephone or a WebSocket.
        agent: The agent; None if none was made.
        seconds: Length of the call since the caller was admitted.
        error: The error that ended the call; None if there was none.
    """

    edge: Edge
    agent: Agent | None
    seconds: float
    error: Exception | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnding:
    """A call that the server is about to end, because it drains.

    Args:
        edge: The edge of the call: a `CallEdge`, or that of a telephone or a WebSocket.
        agent: The agent; None with ``handle_call``, or if none was made yet.
        seconds: Seconds that are left.
    """

    edge: Edge
    agent: Agent | None
    seconds: float


type OnEnding = Callable[[CallEnding], Awaitable[object] | object]
"""Called shortly before a draining server ends a call; a plain function runs on the event loop."""

type OnEnd = Callable[[CallEnd], Awaitable[None] | None]
"""Called after the end of each call; a plain function runs in a thread."""


def create_app(
    make_agent: MakeAgent | None = None,
    config: ServerConfig | None = None,
    *,
    handle_call: HandleCall | None = None,
    on_end: OnEnd | None = None,
    on_ending: OnEnding | None = None,
    telephone: Sequence[Carrier] = (),
    rtvi: bool = False,
    metrics: Metrics | None = None,
    stores: ConversationStores | None = None,
    live: bool | None = None,
) -> CallApp:
    """Create an ASGI app in which each caller talks with an agent of their own.

    The routes are those of `create_call_app`.

    Args:
        make_agent: Gets the edge of a call and returns the `Agent` that joins it.
        config: Addresses and limits; by default only this machine can call.
        handle_call: Used in place of ``make_agent``: handles the whole call itself.
        on_end: Called after each call, for at most 30 s.
        on_ending: Called when the server is about to end a call, such as
            ``lambda call: call.agent.say("I have to go in half a minute.")``.
        telephone: Carriers whose calls come to ``make_agent`` too, with a `MediaStream` as edge.
        rtvi: Whether clients of Pipecat's RTVI come to ``make_agent`` too, with an
            `duologue.edges.rtvi.Edge` as edge.
        metrics: What ``/metrics`` answers, behind the token; ``make_agent`` lets it watch agents.
        stores: Where the conversations of agents are kept that have no store of their own, each
            under the id of its session. In a database, also the tickets by which another process
            takes up the calls of one that has died. Close it after the server.
        live: Whether the page at ``/calls`` shows what is said in running calls, behind the token.
            By default only if just people on this machine can reach it. It does not see
            agents of ``handle_call``.

    Raises:
        ConfigError: Neither or both of ``make_agent`` and ``handle_call`` are given.
    """
    config = config or ServerConfig()
    live = config.private if live is None else live
    app = create_call_app(
        agent_call_handler(
            make_agent,
            config,
            handle_call=handle_call,
            on_end=on_end,
            on_ending=on_ending,
            stores=stores,
            live=live,
        ),
        config,
    )
    if stores is not None:
        app.calls.shared_tickets = stores.tickets

    def record(edge: object) -> _CallRecord:
        return _CallRecord(cast("Edge", edge), on_end, on_ending, stores, live=live)

    app.calls.record = record
    app.api.page = _live_page
    if metrics is not None:
        shown = metrics

        def render() -> bytes:
            calls = app.calls
            shown.set_draining(app.draining)
            shown.set_admission(
                limit=app.config.max_sessions,
                refused={"full": calls.refused - calls.refused_late, "late": calls.refused_late},
            )
            return shown.render()

        app.api.metrics = render
    if telephone:
        from duologue.edges.telephone.app import MakePhoneAgent, mount

        if make_agent is None:
            raise ConfigError("calls of a telephone need make_agent: handle_call is for the page")
        for carrier in telephone:
            # The function takes the edges of both, though its annotation may name one of them.
            mount(app, cast("MakePhoneAgent", make_agent), carrier)
    if rtvi:
        from duologue.edges import rtvi as rtvi_edge

        if make_agent is None:
            raise ConfigError("clients of RTVI need make_agent: handle_call is for the page")
        rtvi_edge.mount(app, cast("rtvi_edge.MakeRtviAgent", make_agent))
    return app


async def serve(
    make_agent: MakeAgent | None = None,
    config: ServerConfig | None = None,
    *,
    handle_call: HandleCall | None = None,
    on_end: OnEnd | None = None,
    on_ending: OnEnding | None = None,
    telephone: Sequence[Carrier | SIP] = (),
    rtvi: bool = False,
    metrics: Metrics | None = None,
    stores: ConversationStores | None = None,
    live: bool | None = None,
    ready: Callable[[str], None] | None = None,
    listener: socket.socket | None = None,
) -> None:
    """Serve the page, and an agent for each caller, until cancelled or stopped by a signal.

    SIGTERM lets calls continue for a while: see `serve_app`.

    Args:
        make_agent: See `create_app`.
        config: See `create_app`.
        handle_call: See `create_app`.
        on_end: See `create_app`.
        on_ending: See `create_app`.
        telephone: See `create_app`; also a `SIP`, whose calls have a `SIPCall` as edge.
        rtvi: See `create_app`.
        metrics: See `create_app`.
        stores: See `create_app`.
        live: See `create_app`.
        ready: Called once with the address to open; by default the address is printed.
        listener: A listening socket (see `listen`).

    Raises:
        ConfigError: The port is taken, or the certificate can't be used.
    """
    config = config or ServerConfig()
    carriers, sips = _split_lines(telephone)
    if sips and make_agent is None:
        raise ConfigError("calls over SIP need make_agent: handle_call is for the page")
    if sips and config.worker_count > 1:
        raise ConfigError("SIP needs a server with one worker, because all would listen")
    app = create_app(
        make_agent,
        config,
        handle_call=handle_call,
        on_end=on_end,
        on_ending=on_ending,
        telephone=carriers,
        rtvi=rtvi,
        metrics=metrics,
        stores=stores,
        live=live,
    )
    async with AsyncExitStack() as running:
        for sip in sips:
            make_sip_agent = cast("MakeSIPAgent", make_agent)
            await running.enter_async_context(sip.running(make_sip_agent, app.calls))
        await serve_app(app, config, ready=ready, listener=listener)


def _split_lines(telephone: Sequence[Carrier | SIP]) -> tuple[list[Carrier], list[SIP]]:
    """Return the carriers, which have routes, and SIP, which has not."""
    if not telephone:
        return [], []
    from duologue.edges.telephone.carrier import Carrier

    carriers = [line for line in telephone if isinstance(line, Carrier)]
    return carriers, [line for line in telephone if not isinstance(line, Carrier)]


def agent_call_handler(
    make_agent: MakeAgent | None,
    config: ServerConfig,
    *,
    handle_call: HandleCall | None = None,
    on_end: OnEnd | None = None,
    on_ending: OnEnding | None = None,
    stores: ConversationStores | None = None,
    live: bool = False,
) -> CallHandler:
    """Return a handler that gives each call its own agent; the page gets every public event."""
    if (make_agent is None) == (handle_call is None):
        raise ConfigError("pass make_agent or handle_call: one of the two")
    for name, function in (
        ("make_agent", make_agent),
        ("handle_call", handle_call),
        ("on_end", on_end),
        ("on_ending", on_ending),
    ):
        if function is not None and not callable(function):
            raise ConfigError(f"{name} must be a function, not {function!r:.80}")

    failures = FailureReports(time.monotonic)

    async def conduct_one(signalling: CallSignalling) -> None:
        edge = CallEdge(
            signalling,
            ice_servers=lambda: signalling.ice_servers,
            udp_ports=config.udp_ports,
            public_addresses=config.public_addresses,
            loopback=config.is_from_this_machine(signalling.request),
            request=signalling.request,
            session_id=signalling.session_id,
            resumed=signalling.resumed,
            keep_s=signalling.keep_s,
        )
        call = _CallRecord(edge, on_end, on_ending, stores, live=live)
        signalling.control = call.control
        signalling.after_call = call.after_call
        try:
            if handle_call is not None:
                await _run_user_code("handle_call", _handle_call(handle_call, edge), failures)
            elif make_agent is not None:
                agent = await _run_user_code("make_agent", _make_agent(make_agent, edge), failures)
                if agent is not None:
                    call.agent_made(agent)
                    await edge.introduce(agent.agent_user.name)
                    async with agent.join():
                        await agent.finish()
        except PeerError as error:
            call.error = error
            log.info("a call was lost: %s", error)  # the edge has sent the page the reason
        except Exception as error:
            call.error = error
            raise

    return conduct_one


class _CallRecord:
    """What is known of a call for its `CallEnd`, and for the page of running calls."""

    def __init__(
        self,
        edge: Edge,
        on_end: OnEnd | None,
        on_ending: OnEnding | None,
        stores: ConversationStores | None,
        *,
        live: bool,
    ) -> None:
        self.edge = edge
        self._stores = stores
        self.agent: Agent | None = None
        self.live: LiveCall | None = None
        self.is_followed = live
        self.error: Exception | None = None
        self.control: CallControl = _Control(self, on_ending)
        self.after_call: Callable[[], Awaitable[None]] | None = (
            None if on_end is None else lambda: self._report_end(on_end)
        )
        self._started_at = time.monotonic()

    def agent_made(self, agent: object) -> None:
        """Record the agent, before it joins; keep its conversation if it has no store."""
        self.agent = agent if isinstance(agent, Agent) else None
        if self.agent is None:
            return
        if self.is_followed:
            from duologue.observe.live import LiveCall

            self.live = LiveCall(self.agent)
        if self._stores is None or self.agent.conversation.has_store:
            return
        # The page keeps the id of its session over several calls.
        conversation_id = getattr(self.edge, "session_id", "") or current_call_id()
        if conversation_id:
            self.agent.conversation.keep_in(self._stores.conversation(conversation_id))

    def call_failed(self, error: Exception) -> None:
        """Record the error that ended the call."""
        self.error = error

    async def _report_end(self, on_end: OnEnd) -> None:
        """Call ``on_end``; only log an error of it."""
        end = CallEnd(
            edge=self.edge,
            agent=self.agent,
            seconds=time.monotonic() - self._started_at,
            error=self.error,
        )
        try:
            result: object = (
                on_end(end) if is_async(on_end) else await call_plain(lambda: on_end(end))
            )
            if inspect.isawaitable(result):
                await run_contained(result)
        except Exception as error:  # noqa: BLE001 - reported
            log_failure(log, "on_end", error)


class _Control:
    """What the REST API and the drain can do with a call; see `CallControl`."""

    def __init__(self, call: _CallRecord, on_ending: OnEnding | None) -> None:
        self._call = call
        self._on_ending = on_ending

    def state(self) -> JsonObject:
        """Return the state of the edge, and the counters of both sides."""
        edge, agent = self._call.edge, self._call.agent
        state: JsonObject = {"edge": _state_of(edge), "quality": edge.quality}
        state["counters"] = _counters_of(edge)
        if agent is not None:
            state["agent"] = {
                "name": agent.agent_user.name,
                "connected": agent.llm.connected,
                "items": len(agent.conversation),
                "stats": asdict(agent.stats()),
            }
        return state

    def say(self, text: str, *, interrupt: bool) -> None:
        """Let the agent speak the text."""
        self._agent().say(text, interrupt=interrupt)

    def interrupt(self) -> None:
        """Stop the agent's speech."""
        self._agent().interrupt()

    async def end_soon(self, seconds: float) -> None:
        """Call ``on_ending`` of the program."""
        if self._on_ending is not None:
            ending = CallEnding(edge=self._call.edge, agent=self._call.agent, seconds=seconds)
            result = self._on_ending(ending)
            if inspect.isawaitable(result):
                await result

    def summary(self) -> JsonObject:
        """Return how the call goes, without words."""
        return {} if self._call.live is None else self._call.live.summary()

    def changes(self, after: int) -> JsonObject:
        """Return what has happened since the answer of that version, with the words."""
        if self._call.live is not None:
            return self._call.live.changes(after)
        if not self._call.is_followed:
            raise UnsupportedError(
                "what is said is shown only if the server is started with --live, or with "
                "create_app(live=True)"
            )
        raise UnsupportedError("this call has no agent yet, or handle_call conducts it")

    def _agent(self) -> Agent:
        if self._call.agent is None:
            raise UnsupportedError("this call has no agent yet, or handle_call conducts it")
        return self._call.agent


@functools.cache
def _live_page() -> tuple[bytes, Mapping[str, str]]:
    from duologue.observe.pages import live_page

    return live_page()


def _state_of(edge: Edge) -> str:
    return edge.state if isinstance(edge, CallEdge) else "connected"


def _counters_of(edge: Edge) -> JsonObject:
    counters = getattr(edge, "counters", None)
    if isinstance(counters, dict):
        return {**counters}
    return asdict(edge.stats()) if isinstance(edge, MeasuredEdge) else {}


async def _make_agent(make_agent: MakeAgent, edge: CallEdge) -> Agent | None:
    made = make_agent(edge)
    agent = await made if inspect.isawaitable(made) else made
    if agent is None and edge.state != "new":
        return None  # the function has handled the call
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
