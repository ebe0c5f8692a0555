"""A small Bedrock on loopback, controlled by tests: HTTP/2 and event-stream frames only."""

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


def encode_frame(headers, payload=b""):
    """Encode an event-stream message with string headers."""
    head = b""
    for name, value in headers.items():
        raw = value.encode()
        head += bytes([len(name)]) + name.encode() + b"\x07" + struct.pack("!H", len(raw)) + raw
    prelude = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    message = prelude + head + payload
    return message + struct.pack("!I", zlib.crc32(message))


def decode_frames(data):
    """Decode the complete messages of ``data``; return (payloads, rest)."""
    found = []
    while len(data) >= 12:
        total, head = struct.unpack_from("!II", data)
        if len(data) < total:
            break
        found.append(data[12 + head : total - 4])
        data = data[total:]
    return found, data


def encode_event(name, **fields):
    body = json.dumps({"event": {name: fields}}).encode()
    payload = json.dumps({"bytes": base64.b64encode(body).decode(), "p": "abcd"}).encode()
    kind = {":message-type": "event", ":event-type": "chunk", ":content-type": "application/json"}
    return encode_frame(kind, payload)


class Request:
    """One client's request; its decoded events are in ``events``."""

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
        self.has_headers = asyncio.Event()
        self.changed = asyncio.Event()
        self.is_reading = True
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

    def send_event(self, name, **fields):
        self.send(encode_event(name, **fields))

    def send_exception(self, name, message):
        kind = {":message-type": "exception", ":exception-type": name}
        self.send(encode_frame(kind, json.dumps({"message": message}).encode()))

    def end(self):
        self.h2.end_stream(self.id)
        self.flush()

    def send_http_error(self, status, body, **fields):
        self.accept(status, **fields)
        self.send(body)
        self.end()

    def abort(self):
        self.transport.abort()

    def resume_reading(self):
        self.is_reading = True
        self.h2.acknowledge_received_data(self.unread, self.id)
        self.flush()

    async def wait_until(self, done):
        while not done(self):
            self.changed.clear()
            await self.changed.wait()

    def event_names(self):
        return [next(iter(one)) for one in self.events]

    def handle_event(self, event):
        match event:
            case RequestReceived(stream_id=number, headers=headers):
                self.id = number
                self.headers = dict(headers)
                self.has_headers.set()
            case DataReceived(data=data, flow_controlled_length=size):
                if self.is_reading:
                    self.h2.acknowledge_received_data(size, self.id)
                else:
                    self.unread += size
                found, self.body = decode_frames(self.body + data)
                for signed in found:
                    inner, _ = decode_frames(signed)
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
        self.changed.set()


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
        self.service.connected.set()

    def data_received(self, data):
        request = self.request
        if self.service.silent:
            return
        try:
            for one in request.h2.receive_data(data):
                request.handle_event(one)
        except ProtocolError:
            self.service.protocol_errors += 1
            request.transport.abort()
        if request.answers_pings:
            request.flush()

    def connection_lost(self, exc):
        self.request.closed.set()
        self.request.changed.set()


class BedrockService:
    """``silent``: accepts connections but never answers. ``window``: a larger HTTP/2 window."""

    def __init__(self):
        self.requests = []
        self.connected = asyncio.Event()
        self.silent = False
        self.window = 0
        self.protocol_errors = 0
        self.url = ""

    async def next(self):
        """Wait for the next request and its headers."""
        self.connected.clear()
        await self.connected.wait()
        request = self.requests[-1]
        await request.has_headers.wait()
        return request


@asynccontextmanager
async def run_service(tls=None):
    service = BedrockService()
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
