"""A small Bedrock on loopback, in a test's hands: HTTP/2 and event-stream frames, nothing else."""

import asyncio
import base64
import json
import struct
import zlib
from contextlib import asynccontextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    PingReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes


def frame(headers, payload=b""):
    """An event-stream message with string headers."""
    head = b""
    for name, value in headers.items():
        raw = value.encode()
        head += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(raw)) + raw
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    message = prelude + head + payload
    return message + struct.pack("!I", zlib.crc32(message))


def frames(data):
    """Whole messages of ``data``, as (payload, rest)."""
    found = []
    while len(data) >= 12:
        total, head = struct.unpack_from("!II", data)
        if len(data) < total:
            break
        found.append(data[12 + head : total - 4])
        data = data[total:]
    return found, data


def event(name, **fields):
    body = json.dumps({"event": {name: fields}}).encode()
    payload = json.dumps({"bytes": base64.b64encode(body).decode(), "p": "abcd"}).encode()
    kind = {":message-type": "event", ":event-type": "chunk", ":content-type": "application/json"}
    return frame(kind, payload)


class Request:
    """One client's request; what came of it is in ``events``."""

    def __init__(self, transport, alpn=None):
        self.transport = transport
        self.alpn = alpn
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.headers = {}
        self.events = []
        self.body = b""
        self.id = None
        self.ended = asyncio.Event()
        self.reset = asyncio.Event()
        self.closed = asyncio.Event()
        self.began = asyncio.Event()
        self.news = asyncio.Event()
        self.reads = True
        self.answers_pings = True
        self.pings = 0
        self.unread = 0

    def flush(self):
        data = self.h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def accept(self, status=200, **fields):
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        self.h2.send_headers(self.id, [(":status", str(status)), *fields.items()])
        self.flush()

    def send(self, data):
        room = self.h2.local_flow_control_window(self.id)
        assert len(data) <= room, "the test sends more than the window takes"
        size = self.h2.max_outbound_frame_size
        for begin in range(0, len(data), size):
            self.h2.send_data(self.id, data[begin : begin + size])
        self.flush()

    def tell(self, name, **fields):
        self.send(event(name, **fields))

    def fail(self, name, message):
        kind = {":message-type": "exception", ":exception-type": name}
        self.send(frame(kind, json.dumps({"message": message}).encode()))

    def end(self):
        self.h2.end_stream(self.id)
        self.flush()

    def refuse(self, status, body, **fields):
        self.accept(status, **fields)
        self.send(body)
        self.end()

    def cut(self):
        self.transport.abort()

    def read_on(self):
        self.reads = True
        self.h2.acknowledge_received_data(self.unread, self.id)
        self.flush()

    async def until(self, done):
        while not done(self):
            self.news.clear()
            await self.news.wait()

    def names(self):
        return [next(iter(one)) for one in self.events]

    def take(self, one):
        match one:
            case RequestReceived(stream_id=number, headers=headers):
                self.id = number
                self.headers = dict(headers)
                self.began.set()
            case DataReceived(data=data, flow_controlled_length=size):
                if self.reads:
                    self.h2.acknowledge_received_data(size, self.id)
                else:
                    self.unread += size
                found, self.body = frames(self.body + data)
                for signed in found:
                    inner, _ = frames(signed)
                    for payload in inner:
                        chunk = base64.b64decode(json.loads(payload)["bytes"])
                        self.events.append(json.loads(chunk)["event"])
            case StreamEnded():
                self.ended.set()
            case StreamReset():
                self.reset.set()
            case PingReceived():
                self.pings += 1
            case WindowUpdated():
                pass
        self.news.set()


class _Server(asyncio.Protocol):
    def __init__(self, service):
        self.service = service

    def connection_made(self, transport):
        tls = transport.get_extra_info("ssl_object")
        alpn = None if tls is None else tls.selected_alpn_protocol()
        self.request = Request(transport, alpn)
        if not self.service.silent:
            self.request.h2.initiate_connection()
            if self.service.window:
                size = {SettingCodes.INITIAL_WINDOW_SIZE: self.service.window}
                self.request.h2.update_settings(size)
                self.request.h2.increment_flow_control_window(self.service.window)
            self.request.flush()
        self.service.requests.append(self.request)
        self.service.came.set()

    def data_received(self, data):
        request = self.request
        if self.service.silent:
            return
        try:
            for one in request.h2.receive_data(data):
                request.take(one)
        except ProtocolError:
            self.service.broken += 1
            request.transport.abort()
        if request.answers_pings:
            request.flush()

    def connection_lost(self, exc):
        self.request.closed.set()
        self.request.news.set()


class Service:
    """``silent``: takes connections, and never says a word on them. ``window``: more than usual."""

    def __init__(self):
        self.requests = []
        self.came = asyncio.Event()
        self.silent = False
        self.window = 0
        self.broken = 0
        self.url = ""

    async def next(self):
        """The next request, when its head is there."""
        self.came.clear()
        await self.came.wait()
        request = self.requests[-1]
        await request.began.wait()
        return request


@asynccontextmanager
async def serving(tls=None):
    service = Service()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Server(service), "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    service.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield service
    finally:
        server.close()
        for request in service.requests:
            request.transport.abort()
        await asyncio.sleep(0)
