"""The server side of HTTP/2 on asyncio: connections and their requests. Starts no tasks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import cast

from duologue._optional import optional
from duologue.clock import Clock, Timer
from duologue.simulators._tcp_reset import reset

with optional("simulate"):
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.errors import ErrorCodes
    from h2.events import (
        ConnectionTerminated,
        DataReceived,
        Event,
        RemoteSettingsChanged,
        RequestReceived,
        StreamEnded,
        StreamReset,
        WindowUpdated,
    )
    from h2.exceptions import ProtocolError
    from h2.settings import SettingCodes


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_STREAMS = 32
"""Concurrent requests on a connection."""
STREAM_WINDOW = 65535
"""Bytes that a client may send on a stream before they are read; HTTP/2's initial window."""
LINGER_S = 1.0
"""Seconds in which a client may still send after the complete response."""

_HTTP_1 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\n"
    b"content-type: text/plain\r\ncontent-length: 26\r\n\r\nThis is an HTTP/2 service."
)


class StreamClosedError(ConnectionError):
    """The client has reset the stream, or its connection is closed."""


class Stream:
    """One request, and the response to it."""

    def __init__(self, connection: ServerConnection, number: int, fields: Mapping[str, str]):
        self._connection = connection
        self._number = number
        self.fields = fields
        """Header fields with names in lower case, including ``:method``, ``:path`` and ``host``."""
        self._received: deque[tuple[bytes, int]] = deque()
        self._request_complete = False
        self._closed = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closed

    async def read(self) -> bytes:
        """Return the next bytes of the request; empty at its end. Raises `StreamClosedError`."""
        while not self._received:
            if self._closed:
                raise StreamClosedError("the stream was reset")
            if self._request_complete:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data, size = self._received.popleft()
        self._connection.acknowledge(self._number, size)
        return data

    def respond(self, status: int, fields: Mapping[str, str]) -> None:
        """Send the response's status and header fields."""
        if not self._closed:
            self._connection.respond(self._number, status, fields)

    async def write(self, data: bytes) -> None:
        """Send bytes; wait while the client's window is closed. Raises `StreamClosedError`."""
        rest = memoryview(data)
        while rest:
            if self._closed:
                raise StreamClosedError("the stream was reset")
            sent = self._connection.send(self._number, rest)
            rest = rest[sent:]
            if not sent:
                self._writable.clear()
                await self._writable.wait()

    def end(self) -> None:
        """End the response. The stream of a client that still sends is reset after `LINGER_S`."""
        if self._closed:
            return
        self._closed = True
        self._connection.end(self._number, request_complete=self._request_complete)
        self._wake()

    def reset(self) -> None:
        """Reset the stream."""
        if not self._closed:
            self._connection.reset(self._number)
            self.mark_closed()

    def abort(self) -> None:
        """Reset the TCP connection, and with it all streams on it."""
        self._connection.abort()

    # Called by the connection

    def receive_data(self, data: bytes, size: int) -> None:
        """Append bytes of the request; ``size`` is their share of the flow-control window."""
        self._received.append((data, size))
        self._readable.set()

    def receive_end(self) -> None:
        """Mark the request as complete."""
        self._request_complete = True
        self._readable.set()

    def mark_closed(self) -> None:
        """Mark the stream as closed, because it was reset or the connection was lost."""
        self._closed = True
        self._wake()

    def resume_writing(self) -> None:
        """Wake the writer, because the window may be open again."""
        self._writable.set()

    def drain(self) -> int:
        """Drop the bytes that were not read and return their share of the window."""
        size = sum(one for _, one in self._received)
        self._received.clear()
        return size

    def _wake(self) -> None:
        self._readable.set()
        self._writable.set()


class ServerConnection(asyncio.Protocol):
    """One client's connection; calls ``request_received`` for every request."""

    def __init__(
        self,
        clock: Clock,
        requested: Callable[[Stream], None],
        opened: Callable[[ServerConnection], None],
        closed: Callable[[ServerConnection], None],
    ) -> None:
        self._clock = clock
        self._request_received = requested
        self._connection_opened = opened
        self._connection_closed = closed
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._lingering: dict[int, Timer] = {}
        self._preface = bytearray()
        self._paused = False

    # Called by the streams

    def acknowledge(self, number: int, size: int) -> None:
        """Open the client's window by ``size`` bytes."""
        if size and self._transport is not None:
            self._h2.acknowledge_received_data(size, number)
            self._flush()

    def respond(self, number: int, status: int, fields: Mapping[str, str]) -> None:
        """Send the status and header fields of a response."""
        self._h2.send_headers(number, [(":status", str(status)), *fields.items()])
        self._flush()

    def send(self, number: int, data: memoryview) -> int:
        """Send as much as the client's window allows and return the number of bytes sent."""
        if self._paused:
            return 0
        size = min(
            self._h2.local_flow_control_window(number),
            self._h2.max_outbound_frame_size,
            len(data),
        )
        if size > 0:
            self._h2.send_data(number, bytes(data[:size]))
            self._flush()
        return max(0, size)

    def end(self, number: int, *, request_complete: bool) -> None:
        """End a response; ``request_complete`` says whether the request has ended, too."""
        self._h2.end_stream(number)
        self._flush()
        self._forget(number)
        if not request_complete:
            when = self._clock.now() + LINGER_S
            self._lingering[number] = self._clock.call_at(
                when, lambda: self._reset_lingering(number)
            )

    def reset(self, number: int) -> None:
        """Reset a stream."""
        self._h2.reset_stream(number, ErrorCodes.CANCEL)
        self._flush()
        self._forget(number)

    def abort(self) -> None:
        """Reset the TCP connection."""
        transport = self._transport
        if transport is None:
            return
        reset(transport)
        self._mark_closed()

    def close(self) -> None:
        """Send GOAWAY and close the connection."""
        if self._transport is not None:
            self._h2.close_connection()
            self._flush()
            if self._transport.get_write_buffer_size():
                # The client does not read, and a graceful close would wait for it.
                self._transport.abort()
            else:
                self._transport.close()
            self._mark_closed()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the connection, or refuse it if the client speaks HTTP/1."""
        self._transport = wire = cast("asyncio.Transport", transport)
        self._connection_opened(self)
        if wire.is_closing():
            return  # The server closed it, because it has too many connections.
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._refuse_http1()
            return
        # The settings are sent with the first response, so that an HTTP/1 client gets a readable
        # error.
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS})
        # A stream that is not read must not block the others.
        self._h2.increment_flow_control_window(STREAM_WINDOW * (MAX_STREAMS - 1))

    def data_received(self, data: bytes) -> None:
        """Process bytes of the client."""
        if self._transport is None:
            return
        if len(self._preface) < len(PREFACE):
            self._preface += data[: len(PREFACE) - len(self._preface)]
            if not PREFACE.startswith(self._preface):
                self._refuse_http1()
                return
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._flush()
            self._transport.close()
            self._mark_closed()
            return
        for event in events:
            self._handle(event)
        self._flush()

    def pause_writing(self) -> None:
        """Stop writing, because the client does not read fast enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """Write again, because the client has read."""
        self._paused = False
        self._resume_streams()

    def eof_received(self) -> bool:
        """Close the connection, because the client sends no more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Mark all streams as closed."""
        self._mark_closed()

    def _handle(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=number, headers=headers):
                fields = {str(name).lower(): str(value) for name, value in headers}
                fields.setdefault("host", fields.get(":authority", ""))
                stream = self._streams[number] = Stream(self, number, fields)
                self._request_received(stream)
            case DataReceived(stream_id=number, data=data, flow_controlled_length=size):
                open_stream = self._streams.get(number)
                if open_stream is None:
                    self.acknowledge(number, size)
                else:
                    open_stream.receive_data(data, size)
            case StreamEnded(stream_id=number):
                self._cancel_linger(number)
                if number in self._streams:
                    self._streams[number].receive_end()
            case StreamReset(stream_id=number):
                self._cancel_linger(number)
                if number in self._streams:
                    self._streams[number].mark_closed()
                    self._forget(number)
            case WindowUpdated() | RemoteSettingsChanged():
                self._resume_streams()
            case ConnectionTerminated():
                self.close()

    def _resume_streams(self) -> None:
        for stream in [*self._streams.values()]:
            stream.resume_writing()

    def _forget(self, number: int) -> None:
        self.acknowledge(number, self._streams.pop(number).drain())

    def _reset_lingering(self, number: int) -> None:
        """Reset the stream of a client that still sends after the response."""
        self._cancel_linger(number)
        self._h2.reset_stream(number, ErrorCodes.NO_ERROR)
        self._flush()

    def _cancel_linger(self, number: int) -> None:
        timer = self._lingering.pop(number, None)
        if timer is not None:
            timer.cancel()

    def _refuse_http1(self) -> None:
        """Answer a client that does not speak HTTP/2, and close."""
        if self._transport is not None:
            self._transport.write(_HTTP_1)
            self._transport.close()
            self._mark_closed()

    def _mark_closed(self) -> None:
        if self._transport is None:
            return
        self._transport = None
        for stream in [*self._streams.values()]:
            stream.mark_closed()
        self._streams.clear()
        for number in [*self._lingering]:
            self._cancel_linger(number)
        self._connection_closed(self)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)
