"""Serve the page for one person and one conversation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from duologue.audio import AudioFrame
from duologue.edges.protocol import AgentInput, EdgeStats
from duologue.edges.webrtc import CallEdge
from duologue.errors import ConfigError
from duologue.json_types import Json
from duologue.quality import Quality
from duologue.rtc.call_request import CallRequest
from duologue.rtc.config import IceServer, PeerError
from duologue.server.app import create_call_app
from duologue.server.calls import CallSignalling
from duologue.server.config import ServerConfig
from duologue.server.serving import serve_app

log = logging.getLogger(__name__)

_HANG_UP_S = 0.2
"""Seconds that a call gets to end with the edge, because an edge must hang up in half a second."""


class Edge:
    """Serves the page, prints its address, and waits for one person to press Talk.

    Other callers are refused meanwhile. The conversation ends when the person ends the call. If a
    caller never gets a WebRTC connection, the edge waits for the next one.

    Args:
        host: Address to listen on; see `ServerConfig`.
        port: Port to listen on; 0 takes a free one.
        token: Token that the page must send; see `ServerConfig`.
        certfile: TLS certificate.
        keyfile: Key of the TLS certificate.
        ice_servers: STUN and TURN servers for both sides of the call.
        public_url: Address of the page if a proxy is in front of the server.
        allowed_hosts: Further host names of the page.
        rate: Rate in Hz of the frames that `play` accepts.
        ready: Called with the address of the page; by default the address is printed.

    Raises:
        ConfigError: A value can't work; see `ServerConfig`.
    """

    waits_for_person = True

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        token: str | None = None,
        certfile: str | Path | None = None,
        keyfile: str | Path | None = None,
        ice_servers: Sequence[IceServer] = (),
        public_url: str | None = None,
        allowed_hosts: Sequence[str] = (),
        rate: int = 24000,
        ready: Callable[[str], None] | None = None,
    ) -> None:
        self._config = ServerConfig(
            host=host,
            port=port,
            token=token,
            certfile=certfile,
            keyfile=keyfile,
            ice_servers=tuple(ice_servers),
            public_url=public_url,
            allowed_hosts=tuple(allowed_hosts),
            max_sessions=1,
            end_timeout_s=_HANG_UP_S,
        )
        self._rate = rate
        self._on_address = ready
        self._call_edge: CallEdge | None = None
        self._call_task: asyncio.Task[object] | None = None
        self._started = False

    @property
    def request(self) -> CallRequest:
        """The request that began the call; empty before the first call."""
        return self._call_edge.request if self._call_edge is not None else CallRequest()

    def __repr__(self) -> str:
        state = "waiting" if self._call_edge is None else self._call_edge.state
        return f"<browser.Edge {self._config.host}:{self._config.port} {state}>"

    def stats(self) -> EdgeStats:
        """Return the counters of the call; all are 0 before there is one."""
        return self._call_edge.stats() if self._call_edge is not None else EdgeStats()

    @property
    def output_rate(self) -> int:
        """Rate in Hz of the frames that `play` accepts."""
        return self._rate

    @property
    def quality(self) -> Quality:
        """``confirmed`` if the page reports what it has played, ``estimated`` if it never does."""
        return self._call_edge.quality if self._call_edge is not None else "confirmed"

    @property
    def lead_ms(self) -> int:
        """0, because each frame is sent when `play` is called."""
        return 0

    @property
    def latency_ms(self) -> float:
        """Milliseconds from `play` to the ear; see `CallEdge.latency_ms`."""
        return self._call_edge.latency_ms if self._call_edge is not None else 60.0

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Serve the page until the person who called has left.

        Raises:
            ConfigError: The port is taken.
            PeerError: The WebRTC connection was lost.
        """
        if self._started:
            raise ConfigError("an edge runs once: make a new one for the next conversation")
        self._started = True
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def conduct(signalling: CallSignalling) -> None:
            if over.done():
                return
            talked = False

            def connected() -> None:
                nonlocal talked
                talked = True
                ready()

            config = self._config
            self._call_task = asyncio.current_task()
            self._call_edge = call = CallEdge(
                signalling,
                rate=self._rate,
                ice_servers=lambda: signalling.ice_servers,
                udp_ports=config.udp_ports,
                public_addresses=config.public_addresses,
                loopback=config.is_from_this_machine(signalling.request),
                request=signalling.request,
                session_id=signalling.session_id,
                keep_s=signalling.keep_s,
            )
            try:
                await call.run(agent, connected)
            except PeerError as error:
                log.info("a call was lost: %s", error)
                if talked and not over.done():
                    over.set_exception(error)
            finally:
                if talked and not over.done():
                    over.set_result(None)

        app = create_call_app(conduct, self._config)
        try:
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(
                    serve_app(app, self._config, ready=self._on_address, signals=False), name="page"
                )
                try:
                    await asyncio.wait({serving, over}, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:
                    await self._hang_up()
                    raise
                serving.cancel()
        except* ConfigError as errors:
            raise errors.exceptions[0] from None
        if over.done():
            over.result()

    def play(self, frame: AudioFrame | None) -> None:
        """Send the next 20 ms at once; None is silence."""
        if self._call_edge is not None:
            self._call_edge.play(frame)

    def clear(self) -> None:
        """Drop audio that was accepted and not sent."""
        if self._call_edge is not None:
            self._call_edge.clear()

    def send_event(self, event: Mapping[str, Json]) -> None:
        """Send the page an event; see `CallEdge.send_event`."""
        if self._call_edge is not None:
            self._call_edge.send_event(event)

    async def _hang_up(self) -> None:
        """End the call before the server stops, so that the page shows an end and not an error."""
        if self._call_task is not None:
            self._call_task.cancel()
            await asyncio.wait({self._call_task}, timeout=_HANG_UP_S)
