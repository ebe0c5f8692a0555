"""A session over one HTTP/2 stream: signed chunks in, event messages out."""

from __future__ import annotations

import asyncio
import random
import string
from typing import Protocol

import orjson
import pybase64

from duologue.clock import Clock, Timer
from duologue.items import Json
from duologue.simulator import faults
from duologue.simulator.line import EventLine
from duologue.simulator.nova.eventstream import Decoder, FramingError, Message, Value, encode
from duologue.simulator.nova.http2 import Stream, StreamClosedError
from duologue.simulator.nova.sigv4 import ChunkChain, SignatureError

LAST_WORDS_S = 10.0
"""So long a client may take to read the end of its stream."""

_DEAF_STEP_S = 0.2
_HEADERS = {"content-type": "application/vnd.amazon.eventstream"}
_LETTERS = string.ascii_letters + string.digits


class ServedSession(Protocol):
    """What a line needs of the session that it carries."""

    async def run_brain(self) -> None:
        """Live as long as the model does."""

    def begin(self) -> None:
        """The stream is there."""

    async def take(self, data: bytes) -> None:
        """An event of the client, as it came."""

    def finish(self) -> None:
        """The client sends no more."""

    def fail(self, kind: str, message: str) -> None:
        """End the stream with an exception."""

    def close(self) -> None:
        """The line is gone."""


class StreamLine(EventLine):
    """The server's end of one stream; without a ``chain`` no signature is checked."""

    def __init__(
        self,
        stream: Stream,
        chain: ChunkChain | None,
        plan: faults.FaultPlan,
        clock: Clock,
        seed: int,
    ) -> None:
        super().__init__(plan, clock, seed)
        self._stream = stream
        self._chain = chain
        self._padding = random.Random(seed)  # noqa: S311 - no secret
        self._begun = False
        self._last_words: Timer | None = None

    async def serve(self, session: ServedSession) -> None:
        """Hold the session until either side ends it."""
        async with asyncio.TaskGroup() as tasks:
            session.begin()
            writing = tasks.create_task(self.write(), name="simulator writes")
            brain = tasks.create_task(session.run_brain(), name="simulator brain")
            reading = tasks.create_task(self._read(session), name="simulator reads")
            # A session may be waiting for its brain, and not see that its line has ended.
            await asyncio.wait({reading, writing}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and reading.result():
                session.finish()
                await writing
            session.close()
            for task in (reading, writing, brain):
                task.cancel()
        if self._last_words is not None:
            self._last_words.cancel()

    def close(self, code: int, reason: str) -> None:
        """End the stream, behind what was sent."""
        super().close(code, reason)
        if self._last_words is None:
            when = max(self.clock.now(), self._held_until) + LAST_WORDS_S
            self._last_words = self.clock.call_at(when, self._stream.reset)

    def fail(self, kind: str, message: str) -> None:
        """Send an exception behind what was sent, and end."""
        self._put(encode(_exception(kind, message)))
        self.close(0, kind)

    def reject(self, code: str, message: str) -> None:
        """Send an error that the service's model does not know, and end."""
        headers: dict[str, Value] = {
            ":message-type": "error",
            ":error-code": code,
            ":error-message": message,
        }
        self._put(encode(Message(headers)))
        self.close(0, code)

    async def deliver(self, data: str | bytes) -> None:
        """Send one message."""
        self._respond()
        if isinstance(data, str):
            data = encode(self._chunk(data))
        await self._stream.write(data)

    async def end(self, code: int, reason: str) -> None:
        """End the stream."""
        self._respond()
        self._stream.end()

    def break_off(self) -> None:
        """Reset the TCP connection."""
        self._stream.cut()

    def lose(self, fraction: float) -> None:
        """TCP loses nothing."""

    def fault(self, action: faults.Action) -> None:
        """Let something go wrong."""
        match action:
            case faults.Garbage("binary"):
                message = bytearray(encode(self._chunk("{}")))
                message[-1] ^= 0xFF
                self._put(bytes(message))
            case _:
                super().fault(action)

    def surprise(self, kind: str) -> str:
        """An event of a name that nobody knows."""
        return orjson.dumps({"event": {kind: {"surprise": [1, {"a": None}]}}}).decode()

    def _respond(self) -> None:
        if not self._begun:
            self._begun = True
            self._stream.respond(200, _HEADERS)

    def _chunk(self, text: str) -> Message:
        payload = {
            "bytes": pybase64.b64encode_as_string(text.encode()),
            # So that the length of a message tells nothing about its words.
            "p": _LETTERS[: self._padding.randrange(len(_LETTERS))],
        }
        headers: dict[str, Value] = {
            ":event-type": "chunk",
            ":content-type": "application/json",
            ":message-type": "event",
        }
        return Message(headers, orjson.dumps(payload))

    async def _read(self, session: ServedSession) -> bool:
        """Take what the client sends; True when it has sent all."""
        decoder = Decoder()
        while True:
            wait = self.deaf_until - self.clock.now()
            if wait > 0 and not self.over:
                # In short steps: a stalled session ends with the simulator, too.
                await self.clock.sleep(min(wait, _DEAF_STEP_S))
                continue
            try:
                data = await self._stream.read()
            except StreamClosedError:
                return False
            if not data:
                return True
            try:
                for message in decoder.push(data):
                    event = self._event(message)
                    # Not before: a client that waits for it before it sends waits for ever.
                    self._respond()
                    if event:
                        await session.take(event)
            except (SignatureError, FramingError) as error:
                named = error.kind if isinstance(error, SignatureError) else None
                self.reject(named or "SerializationException", f"{error}")
                session.close()
                return True

    def _event(self, message: Message) -> bytes:
        """The event in a message; empty in the last one. Raises what the message is wrong with."""
        if self._chain is not None:
            self._chain.check(message)
        if ":chunk-signature" in message.headers:
            if not message.payload:
                return b""
            decoder = Decoder()
            (message, *others) = decoder.push(message.payload) or [Message()]
            if others or decoder:
                raise FramingError("a signed message has one message in it")
        if message.text(":message-type") != "event" or message.text(":event-type") != "chunk":
            raise FramingError("a message is no event of the type chunk")
        try:
            payload: Json = orjson.loads(message.payload)
            text = payload.get("bytes") if isinstance(payload, dict) else None
            return bytes(pybase64.b64decode(text if isinstance(text, str) else "?", validate=True))
        except (orjson.JSONDecodeError, ValueError) as error:
            raise FramingError('the payload of a chunk is not {"bytes": BASE64}') from error


def _exception(kind: str, message: str) -> Message:
    headers: dict[str, Value] = {
        ":exception-type": kind,
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return Message(headers, orjson.dumps({"message": message}))
