"""A wire over a WebSocket, for providers that send text messages."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
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
from duologue.realtime._websocket_protocol import WebSocketProtocol
from duologue.realtime.border import WireFacts

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Bytes of the longest message that is accepted."""
OPEN_TIMEOUT_S = 10.0
PING_INTERVAL_S = 2.0
PONG_TIMEOUT_S = 4.0
"""A dead connection is noticed after the two together at the latest."""
CLOSE_TIMEOUT_S = 0.4

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
    """Sends and receives messages over a WebSocket: bytes are text frames, `BinaryMessage` binary.

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
        self._protocol: WebSocketProtocol | None = None
        self.facts = WireFacts()

    async def open(self) -> None:
        """Connect within ten seconds.

        Raises:
            SessionError: that failed; the text has the server's own words, if there are any.
            MissingExtraError: ``websockets`` is not installed.
        """
        import_optional("websockets", self._extra)
        from websockets.exceptions import InvalidProxy, InvalidStatus, WebSocketException

        from duologue.realtime._websocket_handshake import shake_hands

        headers = await self._headers() if callable(self._headers) else self._headers
        is_secure = urlsplit(self._url).scheme == "wss"
        try:
            handshake = await shake_hands(
                self._url,
                headers=headers,
                logger=_LOG,
                timeout_s=OPEN_TIMEOUT_S,
                proxy=self._proxy or (None if is_loopback(self._host) else True),
                ssl_context=(self._ssl_context or True) if is_secure else None,
            )
        except InvalidStatus as error:
            response, status = error.response, error.response.status_code
            if 300 <= status < 400:
                location = response.headers.get_all("Location") or [""]
                raise redirect_error(self._host, status, location[0]) from None
            self.facts.refused = status, bytes(response.body or b"")
            raise self._http_error(*self.facts.refused) from None
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
        self._set_ack_timeout(handshake.transport)
        self._protocol = WebSocketProtocol(
            handshake.transport,
            handshake.rest,
            max_message_bytes=MAX_MESSAGE_BYTES,
            ping_interval=self._ping_interval,
            pong_timeout=self._pong_timeout,
        )
        if self._on_server_time is not None:
            server_time = unix_time(handshake.response.headers.get_all("Date"))
            if server_time is not None:
                self.apply(WireFacts(server_time=server_time))

    def apply(self, facts: WireFacts) -> SessionError | None:
        """Learn facts; return the error that they mean, or None."""
        if facts.server_time is not None:
            self.facts.server_time = facts.server_time
            if self._on_server_time is not None:
                self._on_server_time(facts.server_time)
        if facts.refused is not None:
            self.facts.refused = facts.refused
            return self._http_error(*facts.refused)
        if facts.closed is not None:
            self.facts.closed = facts.closed
            return self._close_error(*facts.closed)
        return None

    async def run(self, receive: Callable[[bytes], None]) -> None:
        """Pass each message to ``receive``, inside the event loop's own read callback.

        Return after an end that ``close_error`` calls clean.

        Raises:
            SessionError: the connection has ended in any other way.
            Exception: ``receive`` raised it.
        """
        protocol = self._require_protocol()
        await protocol.run(receive)
        error = self._end_error(protocol)
        if error is not None:
            raise error

    async def send(self, message: bytes) -> None:
        """Send a message, without decoding it; wait while the server does not read."""
        protocol = self._require_protocol()
        if not await protocol.send(message):
            raise self._end_error(protocol) or self._connection_error("closed the connection")

    def try_send(self, message: bytes) -> bool:
        """Send a message at once; return False, without sending, if that has to wait."""
        protocol = self._protocol
        return protocol is not None and protocol.try_send(message)

    async def close(self) -> None:
        """Close within half a second, with a closing handshake if the server does its part."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            await protocol.close(CLOSE_TIMEOUT_S)

    def _redirect(self, receive: Callable[[bytes], None]) -> None:
        """Pass the next messages to another function than `run` was given."""
        self._require_protocol().receive = receive

    def _deliver(self, message: bytes) -> None:
        """Pass on a message that the server has not sent."""
        self._require_protocol().deliver(message)

    def _set_ack_timeout(self, transport: asyncio.BaseTransport) -> None:
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        raw_socket = transport.get_extra_info("socket")
        if self._ack_timeout is not None and option is not None and raw_socket is not None:
            raw_socket.setsockopt(socket.IPPROTO_TCP, option, int(self._ack_timeout * 1000))

    def _require_protocol(self) -> WebSocketProtocol:
        if self._protocol is None:
            raise self._connection_error("is not connected")
        return self._protocol

    def _end_error(self, protocol: WebSocketProtocol) -> SessionError | None:
        """Return the error of an end; None for a clean one, or while there is none."""
        ending = protocol.ending
        if ending is None:
            return None
        if ending.unresponsive:
            return self._connection_error("does not answer any more")
        self.facts.closed = ending.code, ending.reason
        return self._close_error(ending.code, ending.reason)

    def _connection_error(self, what: str) -> SessionError:
        return SessionError(f"{self._host} {what}", code="connection", kind=ErrorKind.RECYCLE)
