"""One HTTP/2 request whose body and response flow at the same time, on its own connection.

It has no tasks: the event loop's callbacks process what comes.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from duologue._optional import optional
from duologue.clock import Clock, Timer
from duologue.providers.aws._tunnel import open_tunnel

with optional("aws"):
    from h2.errors import ErrorCodes
    from h2.events import (
        ConnectionTerminated,
        Event,
        PingAckReceived,
        ResponseReceived,
        StreamEnded,
        StreamReset,
    )
    from h2.exceptions import ProtocolError

    from duologue.providers.aws._h2_request import H2Request, Headers


READ_BYTES = 1 << 16
"""Bytes that are read from the socket at once."""
PING_EVERY_S = 3.0
PONG_TIMEOUT_S = 4.0
"""With `PING_EVERY_S`: a dead connection is found in 8 s, if the server answers pings."""
TCP_USER_TIMEOUT_S = 10.0
"""Break the connection when TCP has not acknowledged sent data for this long; Linux only."""
TLS_SHUTDOWN_TIMEOUT_S = 0.1
"""Time that a socket may take to close."""


class ConnectionLostError(ConnectionError):
    """The connection is lost or was aborted; the text says how, without the host."""


class _ReadBuffer(threading.local):
    """A thread's buffer for received bytes.

    All its connections share it, because each copies the bytes before another one can read.
    """

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BYTES))


_READ_BUFFER = _ReadBuffer()


class H2Stream(asyncio.BufferedProtocol):
    """The request and its response; call `connect` first.

    Writing waits for the server's flow control and for the socket; the response is bounded by our
    own flow control. Once the connection is lost or the response has ended, writing raises
    `ConnectionLostError` at once. Reading first returns everything that was received, then raises
    it, unless the server ended the response properly.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._http = H2Request()
        self._buffer = _READ_BUFFER.view
        self._transport: asyncio.Transport | None = None
        self._requested = False
        self._received = bytearray()
        self._response_headers: Headers | None = None
        self._response_ended = False
        self._failure: ConnectionLostError | None = None
        self._request_ended = False
        self._paused = False
        self.on_readable: Callable[[], None] | None = None
        """Called when there is something to read, instead of ending a `wait`."""
        self._changed = asyncio.Event()
        self._alarm: Timer | None = None
        """Ends a `wait` in time; it is kept for the next one when a wait ends early."""
        self._alarm_at = 0.0
        self._writable = asyncio.Event()
        self._disconnected = asyncio.Event()
        self._disconnected.set()
        self._received_at = 0.0
        self._answers_pings = False
        self._timer: Timer | None = None

    async def connect(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        proxy: str | None = None,
        proxy_given: bool = False,
    ) -> None:
        """Connect to the server.

        Args:
            host: The name of the server.
            port: Its port.
            tls: None speaks HTTP/2 in the clear, with prior knowledge.
            proxy: The address of an HTTP proxy to connect through.
            proxy_given: Whether the program named it, not the environment.

        Raises:
            OSError: The connection failed.
            SessionError: The proxy can't be used.
        """
        loop = asyncio.get_running_loop()
        if proxy is not None:
            transport = await open_tunnel(proxy, host, port, given=proxy_given)
            transport.set_protocol(self)
            if tls is not None:
                try:
                    secured = await loop.start_tls(
                        transport,
                        self,
                        tls,
                        server_hostname=host,
                        ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT_S,
                    )
                except BaseException:
                    transport.abort()
                    raise
                assert secured is not None  # noqa: S101 - only a closed transport has none
                transport = secured
            self.connection_made(transport)
        elif tls is None:
            await loop.create_connection(lambda: self, host, port)
        else:
            await loop.create_connection(
                lambda: self,
                host,
                port,
                ssl=tls,
                server_hostname=host,
                ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT_S,
            )
        assert self._transport is not None  # noqa: S101 - connection_made has set it
        if tls is not None:
            connection = self._transport.get_extra_info("ssl_object")
            if connection.selected_alpn_protocol() != "h2":
                self.abort()
                raise ConnectionLostError("does not speak HTTP/2")
        self._set_tcp_user_timeout(self._transport)
        self._http.open()
        self._flush()
        self._received_at = self._clock.now()
        self._check_alive()

    def request(self, headers: Headers) -> None:
        """Send the headers of the request."""
        self._check_writable()
        self._http.send_headers(headers)
        self._requested = True
        self._flush()

    async def write(self, data: bytes) -> None:
        """Send the next bytes of the request body."""
        at = 0
        while at < len(data):
            self._check_writable()
            room = 0 if self._paused else self._http.room
            if room <= 0:
                self._writable.clear()
                await self._writable.wait()
                continue
            self.write_now(data[at : at + room])
            at += room

    def can_write(self, size: int) -> bool:
        """Return whether ``size`` bytes can be sent without waiting."""
        return (
            self._failure is None
            and not (self._response_ended or self._request_ended or self._paused)
            and self._http.room >= size
        )

    def write_now(self, data: bytes) -> None:
        """Send the next bytes of the request body, if `can_write` allows it."""
        self._http.send_data(data)
        self._flush()

    def end_request(self) -> None:
        """End the request body; does nothing if it or the response has ended already."""
        if (
            not self._request_ended
            and self._failure is None
            and not self._response_ended
            and self._requested
        ):
            self._request_ended = True
            self._http.end()
            self._flush()

    async def response(self) -> Headers:
        """Wait for the headers of the response."""
        while self._response_headers is None:
            if self._failure is not None:
                raise self._failure
            await self._wait_for_change()
        return self._response_headers

    async def read(self) -> bytes:
        """Wait for bytes of the response, and return all that have come; none at its end."""
        while not self.is_readable:
            await self._wait_for_change()
        return self.read_now()

    def read_now(self) -> bytes:
        """Return all bytes of the response that have come, perhaps none."""
        data = bytes(self._received)
        if not data and not self._response_ended and self._failure is not None:
            raise self._failure
        self._received.clear()
        if data and not self._response_ended and self._failure is None:
            self._http.acknowledge(len(data))
            self._flush()
        return data

    @property
    def has_response(self) -> bool:
        """Whether the headers of the response have come, or never will."""
        return self._response_headers is not None or self._failure is not None

    @property
    def is_readable(self) -> bool:
        """Whether there is something to read: bytes, an end or a failure."""
        return bool(self._received) or self._response_ended or self._failure is not None

    async def wait(self, until: float) -> None:
        """Wait for any change, `wake`, or this time of the clock; it may end for no reason, too."""
        if self._alarm is None or self._alarm_at > until:
            # An earlier alarm stays, because nearly all waits end before it.
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm_at = until
            self._alarm = self._clock.call_at(until, self._ring)
        await self._wait_for_change()

    def wake(self) -> None:
        """Make `wait` return now."""
        self._changed.set()

    def abort(self, reason: str = "was closed") -> None:
        """Abort the connection now: nothing more is sent or read."""
        is_live = (
            self._failure is None
            and self._requested
            and not (self._response_ended and self._request_ended)
        )
        self._fail(ConnectionLostError(reason))
        if is_live:
            with suppress(ProtocolError):
                self._http.cancel()
            self._flush()
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Abort the connection and wait until the socket is closed."""
        self.abort()
        await self._disconnected.wait()

    # Methods of asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._disconnected.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to put received bytes."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Process received bytes."""
        self._received_at = self._clock.now()
        if self._failure is not None:
            return
        try:
            found = self._http.receive(self._buffer[:nbytes])
        except ProtocolError as error:
            self._flush()
            self.abort(f"broke the protocol: {error}")
            return
        for one in found:
            if isinstance(one, bytes):
                self._received += one
            else:
                self._handle_event(one)
        self._writable.set()
        self._flush()
        self._notify()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail whatever still waits for the connection."""
        reason = f": {exc}" if exc is not None else ""
        self._fail(ConnectionLostError(f"closed the connection{reason}"))
        self._disconnected.set()

    def pause_writing(self) -> None:
        """Hold back writers: the socket's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Let writers continue."""
        self._paused = False
        self._writable.set()

    def _handle_event(self, event: Event) -> None:
        match event:
            case ResponseReceived(headers=headers) if self._response_headers is None:
                # They are text because the configuration names an encoding.
                self._response_headers = cast("Headers", headers)
            case StreamEnded():
                self._response_ended = True
            case StreamReset(error_code=code) if not self._response_ended:
                self._fail(ConnectionLostError(f"reset the stream ({_error_name(code)})"))
            case ConnectionTerminated(error_code=code) if not self._response_ended:
                self._fail(ConnectionLostError(f"ended the connection ({_error_name(code)})"))
            case PingAckReceived():
                self._answers_pings = True
            case _:
                pass

    def _fail(self, failure: ConnectionLostError) -> None:
        if self._failure is None:
            self._failure = failure
        for timer in (self._timer, self._alarm):
            if timer is not None:
                timer.cancel()
        self._timer = self._alarm = None
        self._writable.set()
        self._notify()

    def _notify(self) -> None:
        if self.on_readable is not None and self.is_readable:
            self.on_readable()
        else:
            self._changed.set()

    def _check_writable(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._response_ended:
            raise ConnectionLostError("ended the stream")
        if self._request_ended:
            raise ConnectionLostError("got the end of the request already")

    def _set_tcp_user_timeout(self, transport: asyncio.Transport) -> None:
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        sock = transport.get_extra_info("socket")
        if option is not None and sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, int(TCP_USER_TIMEOUT_S * 1000))

    def _ring(self) -> None:
        self._alarm = None
        self._changed.set()

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _flush(self) -> None:
        data = self._http.data_to_send()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _check_alive(self) -> None:
        """Ping a silent server; abort if it has stopped answering."""
        silent = self._clock.now() - self._received_at
        if silent >= PING_EVERY_S + PONG_TIMEOUT_S and self._answers_pings:
            self.abort("does not answer any more")
            return
        wait = PING_EVERY_S - silent
        if wait <= 0:
            wait = PONG_TIMEOUT_S
            with suppress(ProtocolError):
                self._http.ping()
            self._flush()
        self._timer = self._clock.call_at(self._clock.now() + wait, self._check_alive)


def _error_name(code: ErrorCodes | int | None) -> str:
    return code.name if isinstance(code, ErrorCodes) else str(code)
