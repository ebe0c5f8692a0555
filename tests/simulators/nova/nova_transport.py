"""Carries the official SDK's requests over HTTP/2, in the clear or over TLS, for tests."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.settings import SettingCodes
from smithy_http import Field, Fields
from smithy_http.aio import HTTPResponse

HOP = {"host", "connection", "transfer-encoding"}


class Body:
    """The response's body, as it arrives."""

    def __init__(self, exchange):
        self.exchange = exchange

    def __aiter__(self):
        return self

    async def __anext__(self):
        data = await self.exchange.chunks.get()
        if isinstance(data, Exception):
            raise data
        if data is None:
            raise StopAsyncIteration
        self.exchange.acknowledge(len(data))
        return data

    async def close(self):
        self.exchange.writer.close()


class Exchange:
    """One request on a connection of its own."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        configuration = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(configuration)
        self.head = asyncio.get_running_loop().create_future()
        self.chunks = asyncio.Queue()
        self.window = asyncio.Event()
        self.paused = asyncio.Event()
        self.paused.set()
        self.over = False
        self.whole = False
        self.received = bytearray()
        self.reset = None

    def flush(self):
        data = self.h2.data_to_send()
        if data and not self.writer.is_closing():
            self.writer.write(data)

    def begin(self, headers, window=None):
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
            self.h2.increment_flow_control_window(window - 65535)
        self.number = self.h2.get_next_available_stream_id()
        self.h2.send_headers(self.number, headers)
        self.flush()

    def acknowledge(self, size):
        if not self.over:
            with suppress(h2.exceptions.ProtocolError):
                self.h2.acknowledge_received_data(size, self.number)
                self.flush()

    def fail(self, error):
        self.over = True
        if not self.head.done():
            self.head.set_exception(error)
        self.chunks.put_nowait(error)
        self.window.set()

    async def read(self):
        try:
            while True:
                await self.paused.wait()
                data = await self.reader.read(65536)
                self.received += data
                if not data:
                    raise ConnectionResetError("the connection is gone")
                for event in self.h2.receive_data(data):
                    self.take(event)
                self.flush()
        except OSError as error:
            if not self.whole:
                self.fail(error)

    def take(self, event):
        match event:
            case h2.events.ResponseReceived(headers=headers):
                self.head.set_result(headers)
            case h2.events.DataReceived(data=data):
                self.chunks.put_nowait(data)
            case h2.events.StreamEnded():
                self.over = True
                self.chunks.put_nowait(None)
                self.window.set()
                self.whole = True
            case h2.events.StreamReset(error_code=code):
                self.reset = code
                if not self.over:
                    raise ConnectionResetError(f"the stream was reset: {code}")
            case h2.events.ConnectionTerminated():
                raise ConnectionResetError("the service says goodbye")
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self.window.set()

    async def write(self, body):
        try:
            async for chunk in body:
                rest = bytes(chunk)
                while rest and not self.over:
                    size = min(
                        self.h2.local_flow_control_window(self.number),
                        self.h2.max_outbound_frame_size,
                        len(rest),
                    )
                    if size <= 0:
                        self.window.clear()
                        await self.window.wait()
                        continue
                    self.h2.send_data(self.number, rest[:size])
                    rest = rest[size:]
                    self.flush()
                if self.over:
                    return
                await self.writer.drain()
            if self.reset is None:
                self.h2.end_stream(self.number)
                self.flush()
        except OSError as error:
            self.fail(error)


class H2Transport:
    """Opens a connection for each request. Use as ``async with``."""

    SUPPORTS_DUPLEX_STREAMING = True
    TIMEOUT_EXCEPTIONS = (TimeoutError,)

    def __init__(self, ssl_context=None, window=None):
        self.ssl_context = ssl_context
        self.window = window
        self.exchanges = []
        self.tasks = asyncio.TaskGroup()

    async def __aenter__(self):
        await self.tasks.__aenter__()
        self.running = []
        return self

    async def __aexit__(self, *args):
        for task in self.running:
            task.cancel()
        await self.tasks.__aexit__(*args)
        for exchange in self.exchanges:
            exchange.writer.close()
            with suppress(OSError):
                await exchange.writer.wait_closed()

    def __deepcopy__(self, memo):
        return self

    async def send(self, request, *, request_config=None):
        to = request.destination
        reader, writer = await asyncio.open_connection(to.host, to.port, ssl=self.ssl_context)
        exchange = Exchange(reader, writer)
        self.exchanges.append(exchange)
        path = to.path + ("" if to.query is None else f"?{to.query}")
        headers = [
            (":method", request.method),
            (":scheme", to.scheme),
            (":authority", to.netloc),
            (":path", path),
        ]
        for field in request.fields:
            if field.name.lower() not in HOP:
                headers += [(field.name.lower(), value) for value in field.values]
        exchange.begin(headers, self.window)
        self.running.append(self.tasks.create_task(exchange.read()))
        self.running.append(self.tasks.create_task(exchange.write(request.body)))
        head = dict(await exchange.head)
        fields = Fields(
            [
                Field(name=name, values=[value])
                for name, value in head.items()
                if not name.startswith(":")
            ]
        )
        return HTTPResponse(
            status=int(head[":status"]), fields=fields, body=Body(exchange), reason=None
        )
