"""An edge that serves the page itself, for one person and one conversation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from duologue.audio import AudioFrame
from duologue.edges.protocol import AgentInput
from duologue.edges.webrtc import CallEdge
from duologue.errors import ConfigError
from duologue.json_types import Json
from duologue.quality import Quality
from duologue.rtc.config import IceServer, PeerError
from duologue.server.app import create_call_app
from duologue.server.call_request import CallRequest
from duologue.server.calls import CallSignalling
from duologue.server.config import ServerConfig
from duologue.server.serving import serve_app

log = logging.getLogger(__name__)

_HANG_UP_S = 0.2
"""What the call may take to end with the edge, in seconds: an edge hangs up in half a second."""


class Edge:
    """Serves the page, prints its address, and waits for one person to press Talk.

    Others who call meanwhile are told that the place is taken. The conversation ends when the
    person ends the call; who never got a connection is forgotten and the next one is awaited.
    ``host``, ``port`` (0 takes a free one), ``token``, ``certfile``, ``keyfile``, ``public_url``
    and ``allowed_hosts`` are those of `ServerConfig`; ``rate`` in Hz is what `play` takes.
    ``ready`` gets the address instead of its being printed. Raises `ConfigError`.
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
        """The request that began the call; empty before there is one."""
        return self._call_edge.request if self._call_edge is not None else CallRequest()

    @property
    def output_rate(self) -> int:
        """Hz of the frames that `play` takes."""
        return self._rate

    @property
    def quality(self) -> Quality:
        """``confirmed`` by the page; ``estimated`` if it never reports."""
        return self._call_edge.quality if self._call_edge is not None else "confirmed"

    @property
    def lead_ms(self) -> int:
        """0: a frame leaves when it is given."""
        return 0

    @property
    def latency_ms(self) -> float:
        """From `play` to the ear, in ms: see `CallEdge.latency_ms`."""
        return self._call_edge.latency_ms if self._call_edge is not None else 60.0

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Serve until the person who called has gone.

        Raises `ConfigError` when the port is taken, and `PeerError` when the connection broke.
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
                ice_servers=config.ice_servers,
                loopback=config.is_from_this_machine(signalling.request),
                request=signalling.request,
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
        """Drop what was taken and not sent."""
        if self._call_edge is not None:
            self._call_edge.clear()

    def send_event(self, event: Mapping[str, Json]) -> None:
        """Show the page an event; see `CallEdge.send_event`."""
        if self._call_edge is not None:
            self._call_edge.send_event(event)

    async def _hang_up(self) -> None:
        """End the call before the server goes, so that the page sees an end and no breakdown."""
        if self._call_task is not None:
            self._call_task.cancel()
            await asyncio.wait({self._call_task}, timeout=_HANG_UP_S)
