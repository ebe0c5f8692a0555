"""Nova Sonic's part of the echo provider, and its baseline client: h2 and event-stream frames.

The service does the minimum: it checks no signature, and its flow control is that of h2. The client
signs each of its frames, because the service demands it and no client can leave that out.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import cast
from uuid import uuid4

import numpy as np
import orjson
import pybase64
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, StreamReset
from h2.settings import SettingCodes

from benchmarks.baseline_client import Pace, number_of
from benchmarks.echo_log import EchoLog
from duologue.simulators.nova._eventstream import (
    Decoder,
    Message,
    Timestamp,
    encode,
    encode_headers,
)

WINDOW = 1 << 20
_EVENT = {
    ":event-type": "chunk",
    ":content-type": "application/json",
    ":message-type": "event",
}
_PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_LPCM = {
    "mediaType": "audio/lpcm",
    "sampleRateHertz": 24000,
    "sampleSizeBits": 16,
    "encoding": "base64",
    "channelCount": 1,
}
_WIDE = np.arange(480) * 2 // 3


class H2Protocol(asyncio.Protocol):
    """One end of a connection that carries one stream."""

    def __init__(self, *, client: bool) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=client, header_encoding="utf-8"))
        self.frames = Decoder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not checked with isinstance: transports of uvloop are no subclasses of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: WINDOW})
        self.h2.increment_flow_control_window(WINDOW)
        self.flush()

    def data_received(self, data: bytes) -> None:
        at = time.perf_counter()
        events = self.h2.receive_data(data)
        # Before the audio that came with it: h2 refuses to send on a stream that is closed.
        if any(isinstance(event, (StreamReset, ConnectionTerminated)) for event in events):
            self.stream_closed()
        for event in events:
            match event:
                case DataReceived(stream_id=number, data=part, flow_controlled_length=size):
                    self.h2.acknowledge_received_data(size, number)
                    for message in self.frames.push(part):
                        self.take(number, message, at)
        self.flush()

    def stream_closed(self) -> None:
        """Handle the other end's leaving."""

    def take(self, number: int, message: Message, at: float) -> None:
        """Handle a message."""

    def flush(self) -> None:
        """Write the pending data."""
        data = self.h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)


class StreamConnection(H2Protocol):
    """One session of the service, whose endless audio block echoes the input."""

    def __init__(self, log: EchoLog) -> None:
        super().__init__(client=False)
        self._log = log
        self._begun = False
        self._closed = False
        self._count = 0
        self._ids = {name: str(uuid4()) for name in ("sessionId", "promptName", "completionId")}
        ids = {**self._ids, "contentId": str(uuid4()), "content": ""}
        self._ids["contentId"] = ids["contentId"]
        self._head = orjson.dumps({"event": {"audioOutput": ids}})[: -len(b'"}}}')]

    def take(self, number: int, message: Message, at: float) -> None:
        if not message.payload:
            return
        (inner,) = Decoder().push(message.payload)
        event = orjson.loads(pybase64.b64decode(orjson.loads(inner.payload)["bytes"]))["event"]
        if not self._begun:
            self._begun = True
            kind = "application/vnd.amazon.eventstream"
            self.h2.send_headers(number, [(":status", "200"), ("content-type", kind)])
        if event.get("contentStart", {}).get("type") == "AUDIO":
            start = {"type": "AUDIO", "role": "ASSISTANT", "audioOutputConfiguration": _LPCM}
            messages = {"completionStart": self._ids, "contentStart": {**self._ids, **start}}
            for name, fields in messages.items():
                self._send(number, self._chunk(orjson.dumps({"event": {name: fields}})))
        if "audioInput" in event:
            self._echo(number, pybase64.b64decode(event["audioInput"]["content"]), at)

    def stream_closed(self) -> None:
        self._closed = True

    def _echo(self, number: int, pcm: bytes, at: float) -> None:
        samples = np.frombuffer(pcm, "<i2")
        wide = _WIDE if len(samples) == 320 else np.arange(len(samples) * 3 // 2) * 2 // 3
        content = pybase64.b64encode(samples[wide].tobytes())
        chunk = self._chunk(b"".join((self._head, content, b'"}}}')))
        frame = number_of(pcm)
        if frame:
            self._log.arrived.setdefault(frame, at)
            self._log.left.setdefault(frame, time.perf_counter())
        self._send(number, chunk)

    def _chunk(self, event: bytes) -> bytes:
        self._count += 1
        padding = _PADDING[: self._count % len(_PADDING)]
        payload = {"bytes": pybase64.b64encode(event).decode(), "p": padding}
        return encode(Message(_EVENT, orjson.dumps(payload)))

    def _send(self, number: int, chunk: bytes) -> None:
        if self._closed:
            return
        assert len(chunk) <= self.h2.local_flow_control_window(number), "the client does not read"
        self.h2.send_data(number, chunk)


class BareStream(H2Protocol):
    """A client of h2, orjson and hashlib only."""

    rate = 16000

    def __init__(self, port: int, pace: Pace) -> None:
        super().__init__(client=True)
        self._port = port
        self.pace = pace
        self._key = hashlib.sha256(b"a key derived once").digest()
        self._last = "0" * 64
        self._id = 0

    async def run(self, frames: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        self._id = self.h2.get_next_available_stream_id()
        path = "/model/amazon.nova-2-sonic-v1%3A0/invoke-with-bidirectional-stream"
        host = f"127.0.0.1:{self._port}"
        head = {":method": "POST", ":scheme": "http", ":authority": host, ":path": path}
        self.h2.send_headers(self._id, [*head.items()])
        ids = {"promptName": str(uuid4()), "contentName": str(uuid4())}
        self._send({"event": {"contentStart": {**ids, "type": "AUDIO", "role": "USER"}}})

        async def send(pcm: bytes) -> None:
            audio = pybase64.b64encode(pcm).decode()
            self._send({"event": {"audioInput": {**ids, "content": audio}}})

        try:
            await self.pace.keep(frames, send)
        finally:
            self.transport.abort()

    def take(self, number: int, message: Message, at: float) -> None:
        del number, at
        event = orjson.loads(pybase64.b64decode(orjson.loads(message.payload)["bytes"]))["event"]
        audio = event.get("audioOutput")
        if audio is not None:
            self.pace.take(pybase64.b64decode(audio["content"]))

    def _send(self, event: dict[str, object]) -> None:
        data = pybase64.b64encode(orjson.dumps(event)).decode()
        inner = encode(Message(_EVENT, orjson.dumps({"bytes": data})))
        self.h2.send_data(self._id, self._signed(inner))
        self.flush()

    def _signed(self, inner: bytes) -> bytes:
        now = time.time()
        date = {":date": Timestamp(int(now * 1000))}
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        text = "\n".join(
            (
                "AWS4-HMAC-SHA256-PAYLOAD",
                stamp,
                f"{stamp[:8]}/us-east-1/bedrock/aws4_request",
                self._last,
                hashlib.sha256(encode_headers(date)).hexdigest(),
                hashlib.sha256(inner).hexdigest(),
            )
        )
        signature = hmac.digest(self._key, text.encode(), "sha256")
        self._last = signature.hex()
        return encode(Message({**date, ":chunk-signature": signature}, inner))
