"""The usual calls: an agent of their own for each person who calls."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from starlette.applications import Starlette

from duologue.agent import Agent
from duologue.edges.browser import CallEdge
from duologue.edges.edge import Edge
from duologue.rtc.config import PeerError
from duologue.rtc.signalling import Signalling
from duologue.server.app import create_call_app
from duologue.server.calls import Conduct
from duologue.server.config import ServerConfig
from duologue.server.serving import serve_app

log = logging.getLogger(__name__)

type MakeAgent = Callable[[Edge], Agent]
"""Makes the agent for one caller; called once per call, with the edge that they are on."""


def create_app(make_agent: MakeAgent, config: ServerConfig | None = None) -> Starlette:
    """An ASGI app in which each caller talks with an agent of their own.

    ``make_agent`` gets the edge of a call and returns the `Agent` that will join it. The routes
    are those of `create_call_app`.
    """
    config = config or ServerConfig()
    return create_call_app(conduct_with(make_agent, config), config)


async def serve(
    make_agent: MakeAgent,
    config: ServerConfig | None = None,
    *,
    ready: Callable[[str], None] | None = None,
    listener: socket.socket | None = None,
) -> None:
    """Serve the page, and an agent for each caller, until cancelled or stopped by a signal.

    ``ready`` is called once with the address to open; it is printed when not given. ``listener`` is
    a socket that already listens (see `listen`). Raises `ConfigError` when the port is taken or the
    certificate can't be used.
    """
    config = config or ServerConfig()
    await serve_app(create_app(make_agent, config), config, ready=ready, listener=listener)


def conduct_with(make_agent: MakeAgent, config: ServerConfig) -> Conduct:
    """Conduct each call with an agent of its own; the edge shows the caller every public event."""

    async def conduct(signalling: Signalling) -> None:
        edge = CallEdge(signalling, ice_servers=config.ice_servers, loopback=config.local)
        agent = make_agent(edge)
        await signalling.send({"type": "agent", "name": agent.agent_user.name})
        try:
            async with agent.join():
                await agent.finish()
        except PeerError as error:
            log.info("a call was lost: %s", error)  # the edge has told the page

    return conduct
