"""Limit the connections of a server: the time that each may take, and their number.

uvicorn keeps a connection until its request is complete, and refuses all new connections once there
are too many. Here a request must be complete within `REQUEST_S`, the client must have read the
response within `RESPONSE_S`, and a new connection replaces an older one if there are too many (see
`EvictingPool`). uvicorn has no settings for this, so `limit_connections` extends its protocol
classes, and checks that they have the methods that this needs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from duologue.errors import UnsupportedError
from duologue.server._rate_limits import EvictingPool, TokenBucket
from duologue.server.direct_socket import EXTENSION

if TYPE_CHECKING:
    import uvicorn

MAX_CONNECTIONS = 256
"""Most connections that are not, or not yet, a call."""

REQUEST_S = 10.0
"""Seconds from the start of a connection, or the first byte of a request, to its last byte."""

RESPONSE_S = 30.0
"""Seconds from the end of a request until the client has read the whole response."""

MAX_PINGS_PER_S = 5.0
"""Most pings that a client may send each second; one second's worth may arrive at once."""

MAX_FRAGMENTS = 256
"""Most fragments of one WebSocket message."""

_SUPPRESSED_MESSAGES = (
    "Invalid HTTP request received.",
    "Invalid UTF-8 sequence received from client.",
    "Unsupported upgrade request.",
    # uvicorn 0.54 logs this for every WebSocket that is refused with a message.
    "ASGI callable returned without completing handshake.",
)


class _NoiseFilter(logging.Filter):
    """Drops log messages that strangers could cause as often as they like."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(_SUPPRESSED_MESSAGES)


uvicorn_log = logging.getLogger("duologue.server.uvicorn")
"""Replaces uvicorn's logger for each connection; at INFO it would be an access log."""

uvicorn_log.addFilter(_NoiseFilter())
uvicorn_log.setLevel(logging.WARNING)

type Client = tuple[str, int] | None
"""Address and port of the client, as ASGI names it; no two open connections share one."""


class ConnectionLimiter:
    """Limits the number of open connections that are not a call."""

    def __init__(self) -> None:
        self._connections: EvictingPool[object] = EvictingPool(MAX_CONNECTIONS)

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, transport: asyncio.Transport) -> None:
        """Add a new connection; abort an older one if there are too many."""
        client = client_of(transport)
        host = client[0] if client is not None else ""
        self._connections.add(client or transport, host, transport.abort)

    def remove(self, transport: asyncio.Transport) -> None:
        """Remove a connection that has ended."""
        self._connections.remove(client_of(transport) or transport)

    def exempt(self, client: Client) -> None:
        """Remove a connection that has become a call."""
        self._connections.remove(client)


def client_of(transport: asyncio.BaseTransport) -> Client:
    """Return the client of a connection; None for a socket without an address."""
    peer = transport.get_extra_info("peername")
    return (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) and len(peer) >= 2 else None


def limit_connections(settings: uvicorn.Config, limiter: ConnectionLimiter) -> None:
    """Apply the limits to every connection of a loaded uvicorn configuration.

    Raises:
        UnsupportedError: uvicorn's protocol classes lack a method that this module needs.
    """
    http, ws = settings.http_protocol_class, settings.ws_protocol_class
    wanted = ("connection_made", "connection_lost", "data_received")
    missing = [
        f"{getattr(owner, '__name__', owner)}.{name}"
        for owner in (http, ws)
        for name in wanted
        if not hasattr(owner, name)
    ]
    if not (hasattr(ws, "handle_ping") or hasattr(ws, "pong")):
        missing.append("a method that answers pings")
    if missing:
        raise UnsupportedError(
            f"this uvicorn is not built as this library needs it ({', '.join(missing)}): "
            "pip install 'uvicorn>=0.53,<1'"
        )
    settings.http_protocol_class = _limited_http(http, limiter)
    limited = _limited_ws(ws, limiter)
    sans_io = all(hasattr(ws, name) for name in ("handle_connect", "send_receive_event_to_app"))
    settings.ws_protocol_class = _direct_ws(limited) if sans_io else limited


def _limited_http(base: Any, limiter: ConnectionLimiter) -> type[asyncio.Protocol]:
    class GuardedHttp(base):  # type: ignore[misc]
        """An HTTP connection, until it becomes a WebSocket."""

        _timer: asyncio.TimerHandle | None = None
        _timed: Any = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.logger = uvicorn_log
            limiter.add(transport)
            self._limit(None, REQUEST_S)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.transport.get_protocol() is not self:
                self._limit_no_more()
                return
            cycle = self.cycle
            answering = cycle is not None and not cycle.response_complete
            now = cycle if answering else None
            if self._timer is None or now is not self._timed:
                self._limit(now, RESPONSE_S if answering else REQUEST_S)

        def connection_lost(self, exc: Exception | None) -> None:
            self._limit_no_more()
            limiter.remove(self.transport)
            super().connection_lost(exc)

        def _limit(self, cycle: Any, seconds: float) -> None:
            self._limit_no_more()
            self._timed = cycle
            self._timer = asyncio.get_running_loop().call_later(seconds, self._too_long)

        def _limit_no_more(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_long(self) -> None:
            self._timer = None
            timed, cycle = self._timed, self.cycle
            if timed is None or not timed.response_complete:
                self.transport.abort()
            elif cycle is not timed and not cycle.response_complete:
                self._limit(cycle, RESPONSE_S)
            # Otherwise the connection is idle, and uvicorn limits that time itself.

    return GuardedHttp


def _limited_ws(base: Any, limiter: ConnectionLimiter) -> type[asyncio.Protocol]:
    class GuardedWebSocket(base):  # type: ignore[misc]
        """A WebSocket connection."""

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.logger = uvicorn_log
            self._pings = TokenBucket(MAX_PINGS_PER_S, asyncio.get_running_loop().time())

        def connection_lost(self, exc: Exception | None) -> None:
            limiter.remove(self.transport)
            super().connection_lost(exc)

        def handle_ping(self) -> None:
            if self._may_ping():
                super().handle_ping()

        async def pong(self, *args: Any, **kwargs: Any) -> None:
            if self._may_ping():
                await super().pong(*args, **kwargs)

        def handle_cont(self, event: Any) -> None:
            if len(self.frames) >= MAX_FRAGMENTS:
                self.transport.abort()
                return
            super().handle_cont(event)

        def _may_ping(self) -> bool:
            if self._pings.spend(asyncio.get_running_loop().time()):
                return True
            self.transport.abort()
            return False

    return GuardedWebSocket


def _direct_ws(base: Any) -> type[asyncio.Protocol]:
    class DirectWebSocket(base):  # type: ignore[misc]
        """A WebSocket connection of uvicorn's own protocol class that is a `DirectSocket`."""

        frames: list[bytes]
        _receive: Callable[[str | bytes], None] | None = None

        def handle_connect(self, event: Any) -> None:
            super().handle_connect(event)
            scope = getattr(self, "scope", None)
            if scope is not None:  # The task of the app begins later.
                scope["extensions"][EXTENSION] = self

        def receive_directly(self, receive: Callable[[str | bytes], None] | None) -> bool:
            if receive is not None and not self.queue.empty():
                return False
            self._receive = receive
            return True

        def send_receive_event_to_app(self) -> None:
            receive, frames = self._receive, self.frames
            if receive is None or self.close_sent:
                super().send_receive_event_to_app()
                return
            self.frames = []
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            if self.curr_msg_data_type != "text":
                receive(data)
                return
            try:
                text = str(data, "utf-8")
            except UnicodeDecodeError:
                self._receive = None
                self.frames = frames
                super().send_receive_event_to_app()  # It closes the connection with 1007.
                return
            receive(text)

        def try_send(self, message: str | bytes) -> bool:
            open_now = self.handshake_complete and not (self.close_sent or self.disconnected)
            if not (open_now and self.writable.is_set()) or self.transport.is_closing():
                return False
            data = message.encode() if isinstance(message, str) else message
            if self.conn.extensions:
                send = self.conn.send_text if isinstance(message, str) else self.conn.send_binary
                send(data)
                self.transport.write(b"".join(self.conn.data_to_send()))
                return True
            size = len(data)
            kind = b"\x81" if isinstance(message, str) else b"\x82"
            if size < 126:
                head = kind + bytes((size,))
            elif size < 1 << 16:
                head = kind + b"\x7e" + size.to_bytes(2, "big")
            else:
                head = kind + b"\x7f" + size.to_bytes(8, "big")
            self.transport.write(head + data)
            return True

    return DirectWebSocket
