"""Configuration of the web app: addresses, access and limits."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from duologue._net import hostname_of, is_loopback
from duologue.errors import ConfigError
from duologue.json_types import Json, JsonObject
from duologue.rtc.call_request import CallRequest
from duologue.rtc.config import IceServer
from duologue.rtc.udp_ports import check_addresses, check_udp_ports

MIN_TOKEN = 16
"""Fewest characters of a token."""

ICE_SERVERS_S = 5.0
"""Most seconds that a function of the program may take to return the ICE servers of a call."""

SESSIONS_PER_CORE = 8
"""A browser session takes about 2.5 % of a core (measured); the rest is for the model's work."""


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def default_sessions() -> int:
    """Return the default limit of sessions: 8 for each core that this process may use."""
    return available_cores() * SESSIONS_PER_CORE


type IceServersFor = Callable[[CallRequest], Sequence[IceServer] | Awaitable[Sequence[IceServer]]]
"""Returns the STUN and TURN servers for one call, for example with credentials that expire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where the app listens, who may call, and the limits.

    By default only this machine can reach it. Another ``host`` requires a ``token`` of at least 16
    characters. ``port`` 0 takes a free port.

    Raises:
        ConfigError: A value can't work.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    certfile: str | Path | None = None
    keyfile: str | Path | None = None
    ice_servers: tuple[IceServer, ...] | IceServersFor = ()
    """STUN and TURN servers for both sides of a call; none are needed within one network. A
    function, plain or ``async``, is called for each call: see `duologue.rtc.turn`."""
    udp_ports: tuple[int, int] | None = None
    """First and last UDP port of calls; None is any."""
    public_addresses: tuple[str, ...] = ()
    """Addresses by which this machine is reached from outside, if a network translates them one to
    one, with the same ports."""
    allowed_hosts: tuple[str, ...] = ()
    """Further host names of the page, without port."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of other pages that may call, such as ``https://www.example.org``."""
    public_url: str | None = None
    """Address of the page if a proxy is in front of it, such as ``https://talk.example.org/``."""
    workers: int | Literal["auto"] = 1
    """Processes that take calls; ``auto`` is one for each core. See `serve_app`."""
    max_sessions: int = field(default_factory=default_sessions)
    max_tick_delay_ms: float | None = 20.0
    """Refuse another call while a tenth of the 20 ms ticks of the last three seconds were more ms
    late than this; None never does. The only caller is always admitted."""
    max_message_bytes: int = 64 * 1024
    """Most bytes of one message from the page."""
    messages_per_s: float = 50.0
    """Most messages from the page each second; those of one second, or 20, may arrive at once."""
    hello_timeout_s: float = 5.0
    """Seconds from the opening of the socket to its first message, which contains the token."""
    offer_timeout_s: float = 15.0
    """Seconds from the admission of a call to its offer."""
    ping_s: float = 8.0
    """Seconds between two pings of a socket; no answer for the same time ends the session."""
    end_timeout_s: float = 1.5
    """Seconds that a session may take to end after the person has left; then it is cancelled."""
    keep_call_s: float = 30.0
    """Seconds that a call waits for a page that has lost its network, with its agent and its model
    session; 0 ends the call at once."""
    drain_s: float = 300.0
    """Seconds that calls may continue after SIGTERM; 0 ends them at once. See `CallApp.drain`."""
    warn_s: float = 30.0
    """Seconds before the end of a drain at which people are warned; at most half of it."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose ``X-Forwarded-For`` names the caller."""
    page: JsonObject = field(default_factory=dict)
    """Further fields of the ``config`` message to the page, such as ``agent``."""

    def __post_init__(self) -> None:
        if not self.local and self.token is None:
            raise ConfigError(
                f"listening on {self.host} lets other machines in: pass a token "
                f"of {MIN_TOKEN} characters or more, or listen on 127.0.0.1"
            )
        if self.token is not None and len(self.token) < MIN_TOKEN:
            raise ConfigError(
                f"the token is too short: {MIN_TOKEN} characters or more, for example from "
                "python -c 'import secrets; print(secrets.token_urlsafe())'"
            )
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port must be from 0 to 65535, not {self.port}")
        check_udp_ports(self.udp_ports)
        check_addresses("public_addresses", self.public_addresses)
        if self.workers != "auto" and (not isinstance(self.workers, int) or self.workers < 1):
            raise ConfigError(f"workers must be 1 or more, or 'auto', not {self.workers!r}")
        if self.max_sessions < 1:
            raise ConfigError(f"max_sessions must be above 0, not {self.max_sessions}")
        if self.max_tick_delay_ms is not None and not 0 < self.max_tick_delay_ms < math.inf:
            raise ConfigError(
                f"max_tick_delay_ms must be above 0, or None, not {self.max_tick_delay_ms}"
            )
        for name, seconds in (
            ("drain_s", self.drain_s),
            ("warn_s", self.warn_s),
            ("keep_call_s", self.keep_call_s),
        ):
            if not 0 <= seconds < math.inf:
                raise ConfigError(f"{name} must be 0 or more seconds, not {seconds}")
        for proxy in self.trusted_proxies:
            try:
                ipaddress.ip_network(proxy, strict=False)
            except ValueError:
                raise ConfigError(
                    "trusted_proxies must be addresses or networks, such as 10.0.0.0/8, "
                    f"not {proxy!r}"
                ) from None
        if (self.certfile is None) != (self.keyfile is None):
            raise ConfigError("certfile and keyfile go together: pass both, or neither")
        for name, url in (
            ("public_url", self.public_url),
            *(("allowed_origins", origin) for origin in self.allowed_origins),
        ):
            if url is not None and not _is_page_url(url):
                raise ConfigError(
                    f"{name} must be an address such as https://talk.example.org, not {url!r}"
                )
        for host in self.allowed_hosts:
            if not host or "/" in host or (":" in host and not host.startswith("[")):
                raise ConfigError(
                    f"allowed_hosts must be names without scheme and port, such as "
                    f"talk.example.org, not {host!r}"
                )
        for file in (self.certfile, self.keyfile):
            if file is not None and not Path(file).is_file():
                raise ConfigError(f"there is no file {file}")

    @property
    def worker_count(self) -> int:
        """How many processes take calls."""
        return available_cores() if self.workers == "auto" else self.workers

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def private(self) -> bool:
        """Whether only people on this machine can reach the server, also through a proxy.

        A page or a host name that is not this machine's means that there is a proxy.
        """
        urls = [*self.allowed_origins, *(f"//{host}" for host in self.allowed_hosts)]
        if self.public_url is not None:
            urls.append(self.public_url)
        return self.local and all(is_loopback(hostname_of(url)) for url in urls)

    @property
    def secure(self) -> bool:
        """Whether the server itself uses TLS."""
        return self.certfile is not None

    def address(self, port: int) -> str:
        """Return the address to open; a token follows the ``#``, so that no browser sends it."""
        fragment = f"#token={self.token}" if self.token else ""
        if self.public_url is not None:
            return self.public_url.rstrip("/") + "/" + fragment
        name = socket.gethostname() if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104
        name = "localhost" if is_loopback(name) and not _is_v6(name) else name
        name = f"[{name}]" if _is_v6(name) else name
        return f"{'https' if self.secure else 'http'}://{name}:{port}/{fragment}"

    async def ice_servers_for(self, request: CallRequest) -> tuple[IceServer, ...]:
        """Return the STUN and TURN servers for one call.

        Raises:
            TimeoutError: A function of the program took longer than `ICE_SERVERS_S`.
        """
        if not callable(self.ice_servers):
            return self.ice_servers
        servers = self.ice_servers(request)
        if not isinstance(servers, Awaitable):
            return tuple(servers)
        # Nobody reads the socket meanwhile, so a page that has left would keep its place.
        async with asyncio.timeout(ICE_SERVERS_S):
            return tuple(await servers)

    def config_message(self, ice_servers: Sequence[IceServer] | None = None) -> JsonObject:
        """Return the ``config`` message that an admitted page gets.

        Args:
            ice_servers: What `ice_servers_for` returned; not needed unless they are a function.
        """
        if ice_servers is None:
            ice_servers = () if callable(self.ice_servers) else self.ice_servers
        servers: list[Json] = []
        for server in ice_servers:
            urls = (server.urls,) if isinstance(server.urls, str) else server.urls
            entry: JsonObject = {"urls": list(urls)}
            if server.username is not None:
                entry["username"] = server.username
                entry["credential"] = server.credential
            servers.append(entry)
        return {"type": "config", "ice_servers": servers, **self.page}

    @property
    def path(self) -> str:
        """The path under which a proxy serves the page, such as ``/voice``; "" if it is ``/``."""
        return "" if self.public_url is None else urlsplit(self.public_url).path.rstrip("/")

    def is_from_this_machine(self, request: CallRequest) -> bool:
        """Return whether the caller is on this machine and no proxy is between."""
        if not self.local:
            return False
        origin, host = request.headers.get("origin"), request.headers.get("host")
        urls = [self.public_url, origin, None if host is None else f"//{host}"]
        return all(is_loopback(hostname_of(url)) for url in urls if url is not None)

    @property
    def warning(self) -> str | None:
        """A warning for the person who starts the server, in a sentence; None if there is none."""
        if self.public_url is not None:
            name = hostname_of(self.public_url)
            if self.token is None and not is_loopback(name):
                return (
                    f"anyone who can reach {name} may call: "
                    "pass a token, or let the proxy check them"
                )
            if self.public_url.startswith("https:"):
                return None
        if self.local or self.secure:
            return None
        return (
            "browsers give the microphone to https pages only: pass certfile and keyfile, "
            "or put a proxy that speaks https in front"
        )


def _is_page_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not (parts.query or parts.fragment or parts.username)
        )
    except ValueError:
        return False


def _is_v6(host: str) -> bool:
    return ":" in host
