"""The server's end of HTTP/2 on asyncio: connections, and the requests on them; no tasks here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import cast

from duologue.clock import Clock, Timer
from duologue.extras import require
from duologue.simulator.tcp_reset import reset

require("h2", "simulate")

from h2.config import H2Configuration  # noqa: E402
from h2.connection import H2Connection  # noqa: E402
from h2.errors import ErrorCodes  # noqa: E402
from h2.events import (  # noqa: E402
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError  # noqa: E402
from h2.settings import SettingCodes  # noqa: E402

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MOST_STREAMS = 32
"""Requests at once on a connection."""
WINDOW = 65535
"""Bytes that a client may send on a stream before they are read: what HTTP/2 begins with."""
PATIENCE_S = 1.0
"""So long may a client go on sending once its answer is whole."""

_HTTP_1 = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\n"
    b"content-type: text/plain\r\ncontent-length: 26\r\n\r\nThis is an HTTP/2 service."
)


class StreamClosedError(ConnectionError):
    """The other side has reset the stream, or its connection is gone."""


class Stream:
    """One request, and the answer to it."""

    def __init__(self, connection: ServerConnection, number: int, fields: Mapping[str, str]):
        self._connection = connection
        self._number = number
        self.fields = fields
        """Its header fields, with names in lower case; also ``:method``, ``:path`` and ``host``."""
        self._received: deque[tuple[bytes, int]] = deque()
        self._whole = False
        self._over = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    @property
    def over(self) -> bool:
        """Nothing can be sent any more."""
        return self._over

    async def read(self) -> bytes:
        """The next bytes of the request; empty at its end. Raises `StreamClosedError`."""
        while not self._received:
            if self._over:
                raise StreamClosedError("the stream was reset")
            if self._whole:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data, size = self._received.popleft()
        self._connection.acknowledge(self._number, size)
        return data

    def respond(self, status: int, fields: Mapping[str, str]) -> None:
        """Begin the answer."""
        if not self._over:
            self._connection.respond(self._number, status, fields)

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client takes none. Raises `StreamClosedError`."""
        rest = memoryview(data)
        while rest:
            if self._over:
                raise StreamClosedError("the stream was reset")
            sent = self._connection.send(self._number, rest)
            rest = rest[sent:]
            if not sent:
                self._writable.clear()
                await self._writable.wait()

    def end(self) -> None:
        """The answer is whole. A client that goes on is told after a while that nobody listens."""
        if self._over:
            return
        self._over = True
        self._connection.end(self._number, whole=self._whole)
        self._wake()

    def reset(self) -> None:
        """Nothing more of it is sent or taken."""
        if not self._over:
            self._connection.reset(self._number)
            self.lose()

    def cut(self) -> None:
        """Reset the TCP connection, and so everything on it."""
        self._connection.cut()

    # What the connection tells

    def take(self, data: bytes, size: int) -> None:
        """More of the request; ``size`` is what it takes of the window."""
        self._received.append((data, size))
        self._readable.set()

    def finish(self) -> None:
        """The request is whole."""
        self._whole = True
        self._readable.set()

    def lose(self) -> None:
        """It was reset, or the connection is gone."""
        self._over = True
        self._wake()

    def go_on(self) -> None:
        """Perhaps it can send again."""
        self._writable.set()

    def drain(self) -> int:
        """Forget what was not read; its size."""
        size = sum(one for _, one in self._received)
        self._received.clear()
        return size

    def _wake(self) -> None:
        self._readable.set()
        self._writable.set()


class ServerConnection(asyncio.Protocol):
    """One client's connection; tells ``requested`` of every request."""

    def __init__(
        self,
        clock: Clock,
        requested: Callable[[Stream], None],
        opened: Callable[[ServerConnection], None],
        closed: Callable[[ServerConnection], None],
    ) -> None:
        self._clock = clock
        self._requested = requested
        self._opened = opened
        self._closed = closed
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._ended: dict[int, Timer] = {}
        self._first = bytearray()
        self._paused = False

    # Stream: what it needs

    def acknowledge(self, number: int, size: int) -> None:
        """Let the client send so much more."""
        if size and self._transport is not None:
            self._h2.acknowledge_received_data(size, number)
            self._flush()

    def respond(self, number: int, status: int, fields: Mapping[str, str]) -> None:
        """Send the head of an answer."""
        self._h2.send_headers(number, [(":status", str(status)), *fields.items()])
        self._flush()

    def send(self, number: int, data: memoryview) -> int:
        """Send as much as the client takes now; how much that was."""
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

    def end(self, number: int, *, whole: bool) -> None:
        """End an answer; ``whole``: the request has ended, too."""
        self._h2.end_stream(number)
        self._flush()
        self._forget(number)
        if not whole:
            when = self._clock.now() + PATIENCE_S
            self._ended[number] = self._clock.call_at(when, lambda: self._turn_away(number))

    def reset(self, number: int) -> None:
        """End a stream at once."""
        self._h2.reset_stream(number, ErrorCodes.CANCEL)
        self._flush()
        self._forget(number)

    def cut(self) -> None:
        """Reset the TCP connection."""
        transport = self._transport
        if transport is None:
            return
        reset(transport)
        self._lose()

    def close(self) -> None:
        """Say goodbye, and close."""
        if self._transport is not None:
            self._h2.close_connection()
            self._flush()
            if self._transport.get_write_buffer_size():
                # Nobody reads: closing would wait for that.
                self._transport.abort()
            else:
                self._transport.close()
            self._lose()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = wire = cast("asyncio.Transport", transport)
        self._opened(self)
        if wire.is_closing():
            return  # There were too many already.
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._refuse()
            return
        # It is sent with the first answer: somebody who speaks HTTP/1 is to understand that.
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: MOST_STREAMS})
        # A stream that nobody reads is not to stop the others.
        self._h2.increment_flow_control_window(WINDOW * (MOST_STREAMS - 1))

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._transport is None:
            return
        if len(self._first) < len(PREFACE):
            self._first += data[: len(PREFACE) - len(self._first)]
            if not PREFACE.startswith(self._first):
                self._refuse()
                return
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._flush()
            self._transport.close()
            self._lose()
            return
        for event in events:
            self._take(event)
        self._flush()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is sent to."""
        self._paused = True

    def resume_writing(self) -> None:
        """It has read."""
        self._paused = False
        self._go_on()

    def eof_received(self) -> bool:
        """The client sends no more: it is gone."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._lose()

    def _take(self, event: Event) -> None:
        match event:
            case RequestReceived(stream_id=number, headers=headers):
                fields = {str(name).lower(): str(value) for name, value in headers}
                fields.setdefault("host", fields.get(":authority", ""))
                stream = self._streams[number] = Stream(self, number, fields)
                self._requested(stream)
            case DataReceived(stream_id=number, data=data, flow_controlled_length=size):
                found = self._streams.get(number)
                if found is None:
                    self.acknowledge(number, size)
                else:
                    found.take(data, size)
            case StreamEnded(stream_id=number):
                self._done(number)
                if number in self._streams:
                    self._streams[number].finish()
            case StreamReset(stream_id=number):
                self._done(number)
                if number in self._streams:
                    self._streams[number].lose()
                    self._forget(number)
            case WindowUpdated() | RemoteSettingsChanged():
                self._go_on()
            case ConnectionTerminated():
                self.close()

    def _go_on(self) -> None:
        for stream in [*self._streams.values()]:
            stream.go_on()

    def _forget(self, number: int) -> None:
        self.acknowledge(number, self._streams.pop(number).drain())

    def _turn_away(self, number: int) -> None:
        """The client goes on though it has its answer."""
        self._done(number)
        self._h2.reset_stream(number, ErrorCodes.NO_ERROR)
        self._flush()

    def _done(self, number: int) -> None:
        timer = self._ended.pop(number, None)
        if timer is not None:
            timer.cancel()

    def _refuse(self) -> None:
        """Somebody speaks another protocol."""
        if self._transport is not None:
            self._transport.write(_HTTP_1)
            self._transport.close()
            self._lose()

    def _lose(self) -> None:
        if self._transport is None:
            return
        self._transport = None
        for stream in [*self._streams.values()]:
            stream.lose()
        self._streams.clear()
        for number in [*self._ended]:
            self._done(number)
        self._closed(self)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None:
            self._transport.write(data)
