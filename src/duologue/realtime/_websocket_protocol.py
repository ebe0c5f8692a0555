"""The client's end of an open WebSocket: an asyncio protocol over `_websocket_frames`.

    socket --> read buffer of the thread --> FrameDecoder --> receive(message)    one plain call
    try_send(message) --> FrameEncoder --> socket                                 one plain call

A message reaches its receiver inside the event loop's read callback: no task switch, no queue. So
there is nothing to hold back a server with, and no need to: a message has been handled before the
next one is read. In the other direction, `try_send` refuses when the socket did not take all of the
message before, and `send` waits until it has.

All connections of a thread read into one buffer. asyncio asks for it, reads, and hands it over
without returning to the event loop, and `FrameDecoder` copies what it passes on.

`ending` says how a connection ended. The first of these decides it:

    the server's close frame      it is sent back, and has the code and the reason
    a broken protocol             a close frame with the code of the error is sent
    no pong for `pong_timeout`    a close frame is sent, which will hardly arrive
    the end of the stream         1006, because there was no close frame (RFC 6455, 7.1.5)
    an exception of the receiver  `run` raises it

The TCP connection is the server's to close (7.1.1). `close` waits for that, within its time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from duologue.realtime._websocket_frames import (
    ABNORMAL,
    BINARY,
    CLOSE,
    INTERNAL_ERROR,
    NORMAL,
    PING,
    PONG,
    TEXT,
    BinaryMessage,
    Frame,
    FrameDecoder,
    FrameEncoder,
    decode_close,
    encode_close,
)

READ_BYTES = 64 * 1024
"""Bytes that are read at once."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended.

    ``code`` and ``reason`` are those of the server's close frame; without one, ``code`` is 1006.
    ``unresponsive``: the server did not answer a ping.
    """

    code: int
    reason: str
    unresponsive: bool = False


class _ReadBuffer(threading.local):
    """A buffer of each thread's own, because a thread may run an event loop of its own."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BYTES))


_read_buffer = _ReadBuffer()


def _discard(_: bytes) -> None:
    """Receive nothing any more."""


class WebSocketProtocol(asyncio.BufferedProtocol):
    """Runs one WebSocket whose opening handshake is over.

    Takes over ``transport``, whose reading is paused until `run`.

    Args:
        transport: of the connection.
        rest: what the server sent right behind its handshake.
        max_message_bytes: maximum length of a received message.
        ping_interval: seconds between pings.
        pong_timeout: seconds that a pong may take.

    Attributes:
        ending: how the connection ended; None while it is open.
    """

    __slots__ = (
        "_buffer",
        "_can_send",
        "_close_sent",
        "_decoder",
        "_encode",
        "_failure",
        "_loop",
        "_lost",
        "_over",
        "_ping",
        "_ping_at",
        "_ping_interval",
        "_pong_timeout",
        "_rest",
        "_timer",
        "_transport",
        "_unsent",
        "_whole_message",
        "_writable",
        "ending",
        "receive",
    )

    def __init__(
        self,
        transport: asyncio.Transport,
        rest: bytes,
        *,
        max_message_bytes: int,
        ping_interval: float,
        pong_timeout: float,
    ) -> None:
        self._transport = transport
        self._rest = rest
        self._ping_interval = ping_interval
        self._pong_timeout = pong_timeout
        self._loop = asyncio.get_running_loop()
        self._buffer = _read_buffer.view
        self._decoder = FrameDecoder(max_message_bytes)
        self._whole_message = self._decoder.whole_message
        self._encode = FrameEncoder().encode
        self.receive: Callable[[bytes], None] = _discard
        """Where messages go; may be changed by the receiver itself."""
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._writable = asyncio.Event()
        self._can_send = True
        """Whether a message can be sent at once: the connection is open, and nothing waits."""
        self._close_sent = False
        self._failure: BaseException | None = None
        self._ping = b""
        """The payload of the ping that has no pong yet."""
        self._ping_at = 0.0
        self._unsent = 0
        """Bytes that waited to be sent when the pong was last found missing."""
        self._timer: asyncio.TimerHandle | None = None
        self.ending: Ending | None = None
        transport.set_protocol(self)
        # Anything that the socket does not take makes the next message wait.
        transport.set_write_buffer_limits(high=1, low=0)
        if transport.is_closing():
            self._end(ABNORMAL, "the connection broke")

    async def run(self, receive: Callable[[bytes], None]) -> None:
        """Pass messages to ``receive`` until the connection ends; raise what ``receive`` raises."""
        self.receive = receive
        if self.ending is None:
            self._timer = self._loop.call_later(self._ping_interval, self._send_ping)
        self._resume_reading()
        try:
            await self._over
        finally:
            self.receive = _discard
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def deliver(self, message: bytes) -> None:
        """Pass on a message; if its receiver fails, so does `run`."""
        try:
            self.receive(message)
        except BaseException as error:  # noqa: BLE001 - raised by run
            self._fail(error)

    def try_send(self, message: bytes) -> bool:
        """Send a message at once; return False, without sending, if that has to wait.

        A `BinaryMessage` is sent as binary, and plain bytes as text.
        """
        if not self._can_send:
            return False
        transport = self._transport
        if transport.is_closing():
            # A write has failed; asyncio calls `connection_lost` in its next iteration.
            self._end(ABNORMAL, "the connection broke")
            return False
        transport.write(self._encode(TEXT if type(message) is bytes else BINARY, message))
        return True

    async def send(self, message: bytes) -> bool:
        """Send a message once it need not wait; return False if the connection has ended."""
        while not self.try_send(message):
            if self.ending is not None or self._close_sent:
                return False
            await self._writable.wait()
        return True

    async def close(self, timeout_s: float) -> None:
        """Close with a closing handshake, or without one if that takes longer than the timeout."""
        try:
            self._send_close(encode_close(NORMAL))
            self._resume_reading()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await asyncio.shield(self._lost)
        finally:
            self._cancel_timer()
            self._transport.abort()

    # What asyncio calls

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer to read into."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Handle what has been read."""
        message = self._whole_message(self._buffer, nbytes)
        if message is None:
            self._handle(self._decoder.feed(self._buffer, nbytes))
            return
        try:
            self.receive(message)
        except BaseException as error:  # noqa: BLE001 - raised by run
            self._fail(error)

    def eof_received(self) -> None:
        """Handle the end of the stream; the transport closes itself."""
        self._end(ABNORMAL, "the connection broke")

    def connection_lost(self, exc: Exception | None) -> None:
        """Handle the end of the TCP connection."""
        del exc
        self._end(ABNORMAL, "the connection broke")
        if not self._lost.done():
            self._lost.set_result(None)

    def pause_writing(self) -> None:
        """Make messages wait, because the socket takes no more."""
        self._can_send = False
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let messages pass, because the socket has taken everything."""
        self._can_send = self.ending is None and not self._close_sent
        self._writable.set()

    # Received frames

    def _handle(self, frames: list[Frame]) -> None:
        for opcode, payload in frames:
            if opcode == TEXT:
                self.deliver(payload)
            elif opcode == BINARY:
                self.deliver(BinaryMessage(payload))
            elif opcode == PING:
                self._write(PONG, payload)
            elif opcode == PONG:
                self._pong_received(payload)
            elif opcode == CLOSE:
                self._send_close(payload)
                self._end(*decode_close(payload))
        broken = self._decoder.error
        if broken is not None and self.ending is None:
            self._send_close(encode_close(broken.code, broken.reason))
            self._end(ABNORMAL, f"the connection broke: {broken.reason}")

    def _resume_reading(self) -> None:
        """Begin to read, with what came behind the handshake."""
        rest, self._rest = self._rest, b""
        if rest:
            self._handle(self._decoder.feed(memoryview(rest), len(rest)))
        if not self._transport.is_closing():
            self._transport.resume_reading()

    # The end

    def _end(self, code: int, reason: str, *, unresponsive: bool = False) -> None:
        if self.ending is None:
            self.ending = Ending(code, reason, unresponsive)
        self._can_send = False
        self._writable.set()
        self._cancel_timer()
        self._set_over()

    def _fail(self, error: BaseException) -> None:
        """Let `run` raise an exception of the receiver, which gets nothing more."""
        self.receive = _discard
        self._failure = self._failure or error
        self._set_over()
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error

    def _set_over(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _send_close(self, payload: bytes) -> None:
        """Send a close frame, unless one has been sent."""
        if not self._close_sent:
            self._write(CLOSE, payload)
        self._close_sent = True
        self._can_send = False
        self._writable.set()

    def _write(self, opcode: int, payload: bytes) -> None:
        """Send a control frame, which never waits, unless nothing may follow any more."""
        if not self._close_sent and not self._transport.is_closing():
            self._transport.write(self._encode(opcode, payload))

    # Pings

    def _send_ping(self) -> None:
        self._ping_at = self._loop.time()
        self._unsent = self._transport.get_write_buffer_size()
        self._ping = b"%.6f" % self._ping_at
        self._write(PING, self._ping)
        self._timer = self._loop.call_later(self._pong_timeout, self._pong_missing)

    def _pong_received(self, payload: bytes) -> None:
        if payload == self._ping and self._timer is not None:
            self._ping = b""
            self._timer.cancel()
            next_at = max(self._ping_at + self._ping_interval, self._loop.time())
            self._timer = self._loop.call_at(next_at, self._send_ping)

    def _pong_missing(self) -> None:
        unsent = self._transport.get_write_buffer_size()
        if unsent < self._unsent:
            # The ping waited behind something large (an image), of which the server reads more.
            self._unsent = unsent
            self._timer = self._loop.call_later(self._pong_timeout, self._pong_missing)
            return
        self._send_close(encode_close(INTERNAL_ERROR, "keepalive ping timeout"))
        self._end(ABNORMAL, "the connection broke", unresponsive=True)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
