"""A session's channel over one HTTP/2 stream: signed chunks in, event messages out."""

from __future__ import annotations

import asyncio
import random
import string
from typing import Protocol

import orjson
import pybase64

from duologue.clock import Clock, Timer
from duologue.json_types import Json
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators.nova._eventstream import Decoder, FramingError, Message, Value, encode
from duologue.simulators.nova._http2 import Stream, StreamClosedError
from duologue.simulators.nova._sigv4 import ChunkChain, SignatureError

CLOSE_TIMEOUT_S = 10.0
"""Seconds in which a client must read the end of its stream."""

_HEADERS = {"content-type": "application/vnd.amazon.eventstream"}
_LETTERS = string.ascii_letters + string.digits


class ChannelSession(Protocol):
    """A session as its channel uses it."""

    async def run_backend(self) -> None:
        """Run the model until it ends."""

    def begin(self) -> None:
        """Start the session."""

    async def receive(self, data: bytes) -> None:
        """Handle an event of the client."""

    def finish(self) -> None:
        """End the session, because the client sends no more."""

    def fail(self, kind: str, message: str) -> None:
        """End the stream with an exception."""

    def close(self) -> None:
        """Release the session, because the channel has ended."""


class H2Channel(EventChannel):
    """The server's side of one stream. Without a ``chain``, no signature is checked."""

    def __init__(
        self,
        stream: Stream,
        chain: ChunkChain | None,
        plan: FaultPlan,
        clock: Clock,
        seed: int,
    ) -> None:
        super().__init__(plan, clock, seed)
        self._stream = stream
        self._chain = chain
        self._padding = random.Random(seed)  # noqa: S311 - no secret
        self._responded = False
        self._close_timer: Timer | None = None

    async def serve(self, session: ChannelSession) -> None:
        """Run the session until either side ends it."""
        async with asyncio.TaskGroup() as tasks:
            session.begin()
            writing = tasks.create_task(self.run_writer(), name="simulator writes")
            backend = tasks.create_task(session.run_backend(), name="simulator backend")
            reading = tasks.create_task(self._read(session), name="simulator reads")
            # A session that waits for its backend does not notice that its channel has ended.
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and reading.result():
                session.finish()
                await writing
            session.close()
            for task in (reading, writing, backend):
                task.cancel()
        if self._close_timer is not None:
            self._close_timer.cancel()

    def close(self, code: int, reason: str) -> None:
        """End the stream after the queued events."""
        super().close(code, reason)
        if self._close_timer is None:
            when = max(self.clock.now(), self._writing_paused_until) + CLOSE_TIMEOUT_S
            self._close_timer = self.clock.call_at(when, self._stream.reset)

    def fail(self, kind: str, message: str) -> None:
        """Send an exception after the queued events, and end the stream."""
        self._enqueue(encode(_exception(kind, message)))
        self.close(0, kind)

    def reject(self, code: str, message: str) -> None:
        """Send an error that the service's API model does not have, and end the stream."""
        headers: dict[str, Value] = {
            ":message-type": "error",
            ":error-code": code,
            ":error-message": message,
        }
        self._enqueue(encode(Message(headers)))
        self.close(0, code)

    async def deliver(self, data: str | bytes) -> None:
        """Send one message."""
        self._respond()
        if isinstance(data, str):
            data = encode(self._chunk(data))
        await self._stream.write(data)

    async def close_transport(self, code: int, reason: str) -> None:
        """End the stream."""
        self._respond()
        self._stream.end()

    def abort(self) -> None:
        """Reset the TCP connection."""
        self._stream.abort()

    def drop_packets(self, fraction: float) -> None:
        """Do nothing, because TCP loses no packets."""

    def apply_fault(self, action: faults.Action) -> None:
        """Inject a fault."""
        match action:
            case faults.Garbage("binary"):
                message = bytearray(encode(self._chunk("{}")))
                message[-1] ^= 0xFF
                self._enqueue(bytes(message))
            case _:
                super().apply_fault(action)

    def unknown_event(self, kind: str) -> str:
        """Return an event of an unknown name."""
        return orjson.dumps({"event": {kind: {"surprise": [1, {"a": None}]}}}).decode()

    def _respond(self) -> None:
        if not self._responded:
            self._responded = True
            self._stream.respond(200, _HEADERS)

    def _chunk(self, text: str) -> Message:
        payload = {
            "bytes": pybase64.b64encode_as_string(text.encode()),
            # Padding hides the length of a message, as the service does.
            "p": _LETTERS[: self._padding.randrange(len(_LETTERS))],
        }
        headers: dict[str, Value] = {
            ":event-type": "chunk",
            ":content-type": "application/json",
            ":message-type": "event",
        }
        return Message(headers, orjson.dumps(payload))

    async def _read(self, session: ChannelSession) -> bool:
        """Read from the client; return True if it has ended its side."""
        decoder = Decoder()
        while True:
            await self.wait_until_reading()
            try:
                data = await self._stream.read()
            except StreamClosedError:
                return False
            if not data:
                return True
            try:
                for message in decoder.push(data):
                    event = self._extract_event(message)
                    # Respond only after the first message, as the service does. A client that waits
                    # for the response before it sends would wait forever.
                    self._respond()
                    if event:
                        await session.receive(event)
            except (SignatureError, FramingError) as error:
                named = error.kind if isinstance(error, SignatureError) else None
                self.reject(named or "SerializationException", f"{error}")
                session.close()
                return True

    def _extract_event(self, message: Message) -> bytes:
        """Return the event in a message; empty for the last one. Raises the message's error."""
        if self._chain is not None:
            self._chain.check(message)
        if ":chunk-signature" in message.headers:
            if not message.payload:
                return b""
            decoder = Decoder()
            (message, *others) = decoder.push(message.payload) or [Message()]
            if others or decoder:
                raise FramingError("a signed message must contain exactly one message")
        if message.text(":message-type") != "event" or message.text(":event-type") != "chunk":
            raise FramingError("a message must be an event of type chunk")
        try:
            payload: Json = orjson.loads(message.payload)
            text = payload.get("bytes") if isinstance(payload, dict) else None
            return bytes(pybase64.b64decode(text if isinstance(text, str) else "?", validate=True))
        except (orjson.JSONDecodeError, ValueError) as error:
            raise FramingError('the payload of a chunk must be {"bytes": BASE64}') from error


def _exception(kind: str, message: str) -> Message:
    headers: dict[str, Value] = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return Message(headers, orjson.dumps({"message": message}))
