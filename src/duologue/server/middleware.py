"""Check the host and the origin of every request, and add security headers to every response."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from duologue._net import is_loopback
from duologue.server.config import ServerConfig

log = logging.getLogger(__name__)

_LOG_INTERVAL_S = 60.0
"""Seconds between two log lines about refused requests."""

_MAX_LOGGED = 64
"""Most different log lines about refused requests while the server runs."""

_SAFE_METHODS = ("GET", "HEAD")
"""Methods that change nothing, whose responses a foreign page can't read."""

_PORTS = {"http": 80, "https": 443}

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?")

type Origin = tuple[str, str, int]
"""Scheme, name (an IPv6 address in brackets) and port of a page."""

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; media-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "permissions-policy": (
        "microphone=(self), camera=(self), autoplay=(self), geolocation=(), display-capture=(), "
        "usb=(), payment=()"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class _Refusal(NamedTuple):
    status: int
    text: str


_NO_HOST = _Refusal(421, "This request names no host. Open the page by its address.\n")
_WRONG_HOST = _Refusal(
    421, "This server is not known by that name. Open the page by its own address.\n"
)
_WRONG_ORIGIN = _Refusal(
    403,
    "Refused: calls are taken from this server's own page only. Whoever runs the server finds the "
    "reason in its log.\n",
)


class OriginMiddleware:
    """ASGI middleware that checks ``Host`` and ``Origin`` and adds the security headers.

    A server on loopback answers only to loopback names and to those of its configuration, so that a
    foreign page can't reach it through a name that was rebound to 127.0.0.1. A WebSocket or a POST
    from a browser must come from a page of this server: from the requested address, from
    ``public_url`` or one of ``allowed_origins``, or from a name in ``allowed_hosts``. Only browsers
    send ``Origin``, and they always do with such requests.

    Args:
        app: The app.
        config: Names and addresses of the server.
        more_origins: Further origins that may open single WebSocket routes, by their paths.
        is_local: Says of a request to an app that has no `ServerConfig` whether the address that it
            came in by is this machine's or this network's, so that ``Host`` must be checked.
        options: What has the options ``allowed_hosts`` and ``allowed_origins``, for the log.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: ServerConfig,
        *,
        more_origins: Mapping[str, frozenset[Origin]] | None = None,
        is_local: Callable[[Scope], bool] | None = None,
        options: str = "its ServerConfig",
    ) -> None:
        self.app = app
        self._more_origins = more_origins or {}
        self._is_local = is_local
        self._options = options
        self._hosts = {name.lower() for name in config.allowed_hosts}
        own = [origin_of(url) for url in (config.public_url, *config.allowed_origins) if url]
        self._origins = {origin for origin in own if origin is not None}
        public = origin_of(config.public_url) if config.public_url else None
        self._names = self._hosts | ({public[1]} if public is not None else set())
        self._local = config.local
        self._path = config.path
        self._proxies = [ip_network(proxy, strict=False) for proxy in config.trusted_proxies]
        self._logged: dict[str, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with a sentence."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        scope = self._seen_through_proxy(scope)
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal is None:
                await self.app(scope, receive, send)
            else:
                await refuse_websocket(WebSocket(scope, receive, send), refusal.text)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    out.setdefault(name, value)
            await send(message)

        if refusal is None and self._path and scope["path"] == self._path:
            # Without the slash, the page's relative addresses would lead out of its path.
            redirect = RedirectResponse(self._path + "/", 308)
            await redirect(scope, receive, send_with_headers)
        elif refusal is None:
            await self.app(scope, receive, send_with_headers)
        else:
            await PlainTextResponse(refusal.text, refusal.status)(scope, receive, send_with_headers)

    def _seen_through_proxy(self, scope: Scope) -> Scope:
        """Return the scope as it would be without the proxies in front.

        A proxy may pass on the path of ``public_url`` or strip it. The caller's address is taken
        from ``X-Forwarded-For`` only if a trusted proxy has sent it: it is the last one that no
        trusted proxy has.
        """
        scope = dict(scope)
        scope["duologue.peer"] = scope.get("client")
        root = scope.get("root_path", "") + self._path
        if self._path and scope["path"].startswith(root + "/"):
            scope["root_path"] = root
        if self._proxies and self._is_proxy((scope.get("client") or ("", 0))[0]):
            named = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
            for address in map(str.strip, reversed(named)):
                if _ip_address(address) is None:
                    break  # Nothing to the left of it can be trusted either.
                scope["client"] = (address, 0)
                if not self._is_proxy(address):
                    break
        return scope

    def _is_proxy(self, host: str) -> bool:
        address = _ip_address(host)
        return address is not None and any(address in network for network in self._proxies)

    def _refusal(self, scope: Scope) -> _Refusal | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return _NO_HOST
        name, port = match["name"].lower(), match["port"]
        known = name in self._names or is_loopback(name)
        if self._is_local is None:
            must_know = self._local or bool(self._hosts)
        else:
            # A name can be rebound to an address of this network, an address can't.
            must_know = self._is_local(scope) and _ip_address(name.strip("[]")) is None
        if not known and must_know:
            self._log_once(
                f"refused a request for the host {name}: if it is this server, "
                f"add allowed_hosts=({name!r},) to {self._options}"
            )
            return _WRONG_HOST
        origins = headers.getlist("origin")
        if not origins or (scope["type"] == "http" and scope["method"] in _SAFE_METHODS):
            return None
        origin = origin_of(origins[0]) if len(origins) == 1 else None
        if origin is not None and self._is_own_origin(origin, name, port, scope):
            return None
        page = origins[0] if origin is not None else "an unknown address"
        path = _route_path(scope)
        if scope["type"] == "http" and path != "/call":
            # Nobody's page has to ask this, so there is nothing to advise.
            self._log_once(f"refused a request of the page {page} to the REST API")
        elif self._is_local is not None:
            self._log_once(
                f"refused a call from the page {page}, which asked for {hosts[0]}: if the page is "
                f"yours, add allowed_origins=({page!r},) to {self._options}"
            )
        else:
            self._log_once(
                f"refused a call from the page {page}, which asked for {hosts[0]}: if the page is "
                f"this server's own, behind a proxy, add public_url={page!r} to {self._options}"
            )
        return _WRONG_ORIGIN

    def _is_own_origin(self, origin: Origin, name: str, port: str | None, scope: Scope) -> bool:
        if origin in self._origins or origin[1] in self._hosts:
            return True
        if scope["type"] == "websocket" and self._more_origins:
            more = self._more_origins.get(_route_path(scope), frozenset())
            if origin in more:
                return True
        if origin[1] != name:
            return False
        if port is not None:
            return origin[2] == int(port)
        # A browser leaves out the default port. If this server has another port, a proxy has left
        # it out, as nginx does with "Host $host".
        server = scope.get("server")
        direct = not server or server[1] is None or server[1] in _PORTS.values()
        return not direct or origin[2] in _PORTS.values()

    def _log_once(self, line: str) -> None:
        """Log each line once, and at most one line a minute, because strangers can cause them."""
        now = time.monotonic()
        recent = max(self._logged.values(), default=-_LOG_INTERVAL_S)
        if (
            line in self._logged
            or now - recent < _LOG_INTERVAL_S
            or len(self._logged) >= _MAX_LOGGED
        ):
            return
        self._logged[line] = now
        log.warning("%s", line)


def _route_path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _ip_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def origin_of(url: str) -> Origin | None:
    """Return scheme, name and port of a page's address; None if the address is none of a page."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        return None
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.scheme, name, _PORTS[parts.scheme] if port is None else port


async def refuse_websocket(websocket: WebSocket, text: str, status: int = 403) -> None:
    """Refuse a WebSocket before it opens, with an HTTP status and a sentence."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(PlainTextResponse(text, status))
    else:
        await websocket.close()
