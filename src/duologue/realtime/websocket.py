"""A wire over a WebSocket, for providers that send text messages."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from duologue._net import (
    CLIENT_FAULT_CLOSE_CODES,
    closed_error,
    hostname_of,
    http_status_kind,
    http_status_text,
    is_loopback,
    one_line,
    proxy_error,
    redirect_error,
    unix_time,
    without_password,
)
from duologue._optional import import_optional
from duologue.errors import ErrorKind, SessionError

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed
    from websockets.protocol import State

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Bytes of the longest message that is accepted."""
OPEN_TIMEOUT_S = 10.0
PING_INTERVAL_S = 2.0
PONG_TIMEOUT_S = 4.0
"""A dead connection is noticed after the two together at the latest."""
CLOSE_TIMEOUT_S = 0.4
MAX_TRY_SEND_BYTES = 16 * 1024
"""Bytes of a message that fits into an empty write buffer (32 KiB) without waiting."""

_FATAL_CLOSE_CODES = CLIENT_FAULT_CLOSE_CODES | {3000, 3003}
"""Close codes for an error on our side; all others are the network's or the server's."""

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_LOG = logging.getLogger("duologue.realtime.websocket")
# At DEBUG websockets logs the headers of the handshake, in which the key is, and all messages.
_LOG.setLevel(logging.INFO)


def http_error(status: int, body: bytes) -> SessionError:
    """Return the error of an HTTP response, by its status and with the first words of its body."""
    text = one_line(body.decode(errors="replace")) or http_status_text(status)
    return SessionError(text, code=str(status), kind=http_status_kind(status))


def close_error(code: int, reason: str) -> SessionError:
    """Return the error of a close frame; a clean close is one too: we did not ask for it."""
    kind = ErrorKind.FATAL if code in _FATAL_CLOSE_CODES else ErrorKind.RECYCLE
    return closed_error(code, reason, kind)


class WebSocketWire:
    """Sends and receives messages as bytes, each a text frame.

    It notices a dead connection by pings, bounds the size of messages, and sends without waiting
    where it can. Nothing is compressed, because audio gets no smaller. Redirects are not followed,
    because the key would be sent along.

    Args:
        url: the address.
        headers: headers of the handshake, or a coroutine function that returns them for each
            connection.
        http_error: makes the error of an HTTP status and body that came instead of a connection.
        close_error: makes the error of a close code and reason; None where that is a clean end.
        proxy: the address of a proxy; None uses those of the environment, but not for this machine.
        ssl_context: whom to trust, and with which certificate of our own.
        extra: the extra of this package that installs ``websockets``.
        ping_interval: seconds between pings.
        pong_timeout: seconds that an answer may take.
        ack_timeout: seconds after which data that TCP has not acknowledged breaks the connection,
            on systems that can do so (Linux), for servers that are slow to answer pings.
        on_server_time: called with the server's own time, in Unix seconds, if the response has it.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | Callable[[], Awaitable[Mapping[str, str]]] = _NO_HEADERS,
        http_error: Callable[[int, bytes], SessionError] = http_error,
        close_error: Callable[[int, str], SessionError | None] = close_error,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        extra: str = "websocket",
        ping_interval: float = PING_INTERVAL_S,
        pong_timeout: float = PONG_TIMEOUT_S,
        ack_timeout: float | None = None,
        on_server_time: Callable[[float], None] | None = None,
    ) -> None:
        self._url = url
        self._host = hostname_of(url) or url
        self._headers = headers
        self._http_error = http_error
        self._close_error = close_error
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._extra = extra
        self._ping_interval = ping_interval
        self._pong_timeout = pong_timeout
        self._ack_timeout = ack_timeout
        self._on_server_time = on_server_time
        self._socket: ClientConnection | None = None
        self._connection_closed: type[ConnectionClosed]
        self._open_state: State
        """Both are set once there is a socket."""

    async def open(self) -> None:
        """Connect within ten seconds.

        Raises:
            SessionError: that failed; the text has the server's own words, if there are any.
            MissingExtraError: ``websockets`` is not installed.
        """
        import_optional("websockets", self._extra)
        from websockets.exceptions import (
            ConnectionClosed,
            InvalidProxy,
            InvalidStatus,
            WebSocketException,
        )
        from websockets.protocol import State

        self._connection_closed = ConnectionClosed
        self._open_state = State.OPEN
        headers = await self._headers() if callable(self._headers) else self._headers
        is_secure = urlsplit(self._url).scheme == "wss"
        try:
            # Awaited, `connect` does not retry: that is the session's task.
            self._socket = await _connector()(
                self._url,
                additional_headers=headers,
                logger=_LOG,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                open_timeout=OPEN_TIMEOUT_S,
                ping_interval=self._ping_interval,
                ping_timeout=self._pong_timeout,
                close_timeout=CLOSE_TIMEOUT_S,
                proxy=self._proxy or (None if is_loopback(self._host) else True),
                ssl=(self._ssl_context or True) if is_secure else None,
            )
        except InvalidStatus as error:
            response, status = error.response, error.response.status_code
            if 300 <= status < 400:
                location = response.headers.get_all("Location") or [""]
                raise redirect_error(self._host, status, location[0]) from None
            raise self._http_error(status, bytes(response.body or b"")) from None
        except TimeoutError:
            raise self._connection_error(
                f"can't be reached: no answer within {OPEN_TIMEOUT_S:g} s"
            ) from None
        except InvalidProxy as error:
            reason = f"{without_password(error.proxy)}: {error.msg}"
            raise proxy_error(reason, given=self._proxy is not None) from None
        except ImportError as error:  # of python-socks
            raise proxy_error(str(error), given=self._proxy is not None) from error
        except (OSError, WebSocketException, EOFError, ValueError) as error:
            # A ValueError: a host's name that can't be encoded, for example.
            raise self._connection_error(
                f"can't be reached: {error or type(error).__name__}"
            ) from error
        self._set_ack_timeout(self._socket.transport)
        handshake = self._socket.response
        if self._on_server_time is not None and handshake is not None:
            server_time = unix_time(handshake.headers.get_all("Date"))
            if server_time is not None:
                self._on_server_time(server_time)

    async def send(self, message: bytes) -> None:
        """Send a text frame, without decoding it; wait while the server does not read."""
        live = self._require_socket()
        try:
            await live.send(message, text=True)
        except self._connection_closed as error:
            raise self._end_error(error) or self._connection_error(
                "closed the connection"
            ) from None

    def try_send(self, message: bytes) -> bool:
        """Send a text frame at once; return False, without sending, if that has to wait."""
        socket = self._socket
        if (
            socket is None
            or len(message) > MAX_TRY_SEND_BYTES
            or socket.state is not self._open_state
        ):
            return False
        transport, protocol = socket.transport, socket.protocol
        if transport.is_closing() or transport.get_write_buffer_size():
            return False
        # This is what `send` of websockets does when it does not have to wait, at half its cost.
        protocol.send_text(message)
        transport.write(b"".join(protocol.data_to_send()))
        return True

    async def receive(self) -> bytes | None:
        """Return the next message; None after an end that ``close_error`` calls clean."""
        live = self._require_socket()
        try:
            return await live.recv(decode=False)
        except self._connection_closed as error:
            ended = self._end_error(error)
            if ended is None:
                return None
            raise ended from None

    async def close(self) -> None:
        """Close within half a second, with a closing handshake if the server does its part."""
        socket, self._socket = self._socket, None
        if socket is None:
            return
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await socket.close()
        finally:
            socket.transport.abort()

    def _set_ack_timeout(self, transport: asyncio.BaseTransport) -> None:
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        raw_socket = transport.get_extra_info("socket")
        if self._ack_timeout is not None and option is not None and raw_socket is not None:
            raw_socket.setsockopt(socket.IPPROTO_TCP, option, int(self._ack_timeout * 1000))

    def _require_socket(self) -> ClientConnection:
        if self._socket is None:
            raise self._connection_error("is not connected")
        return self._socket

    def _end_error(self, error: ConnectionClosed) -> SessionError | None:
        """Return the error of an end; without a close frame the code is 1006 (RFC 6455, 7.1.5)."""
        if error.rcvd is not None:
            return self._close_error(error.rcvd.code, error.rcvd.reason)
        if error.sent is not None and error.sent.code == 1011:
            return self._connection_error("does not answer any more")
        return self._close_error(1006, "the connection broke")

    def _connection_error(self, what: str) -> SessionError:
        return SessionError(f"{self._host} {what}", code="connection", kind=ErrorKind.RECYCLE)


@cache
def _connector() -> type[connect]:
    """Return a `websockets.connect` that follows no redirect."""
    from websockets.asyncio.client import connect

    class Straight(connect):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc

    return Straight
