"""What stands in front of every request: who is asked for, by which page, and what may be done."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from duologue.server.config import ServerConfig, is_loopback

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")

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


class Guard:
    """ASGI middleware: checks ``Host`` and ``Origin``, and adds the security headers.

    A server on loopback answers to loopback names only, so that a foreign page can't reach it by
    a name that was rebound to 127.0.0.1. A WebSocket that a browser opens (only browsers send
    ``Origin``, and always do) must come from a page of this server.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self.app = app
        self._names = {name.lower() for name in config.allowed_hosts}
        self._local = config.local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it with a sentence."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(headers, websocket=scope["type"] == "websocket")
        if scope["type"] == "websocket":
            if refusal is None:
                await self.app(scope, receive, send)
            else:
                await refuse_socket(WebSocket(scope, receive, send), refusal)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    out.setdefault(name, value)
            await send(message)

        if refusal is None:
            await self.app(scope, receive, send_with_headers)
        else:
            await PlainTextResponse(refusal, 421)(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers, *, websocket: bool) -> str | None:
        hosts = headers.getlist("host")
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None:
            return "This request names no host. Open the page by its address.\n"
        name = match["name"].lower()
        known = name in self._names or is_loopback(name)
        if not known and (self._local or self._names):
            return "This server is not known by that name. Open the page by its own address.\n"
        origins = headers.getlist("origin")
        if websocket and origins:
            origin = urlsplit(origins[0])
            same = origin.scheme in ("http", "https") and origin.netloc.lower() == hosts[0].lower()
            if not same or len(origins) > 1:
                return "Calls are taken from this server's own page only.\n"
        return None


async def refuse_socket(websocket: WebSocket, text: str, status: int = 403) -> None:
    """Refuse a WebSocket before it opens, with an HTTP status and a sentence."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(PlainTextResponse(text, status))
    else:
        await websocket.close()
