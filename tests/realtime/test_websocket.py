"""The WebSocket wire against a real server on loopback."""

import asyncio
import json
import re
import socket
import time
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
from websockets.asyncio.server import serve
from websockets.utils import accept_key

from duologue.errors import ErrorKind, SessionError
from duologue.providers._openai_protocol.errors import close_error, http_error
from duologue.realtime.websocket import WebSocketWire


def wire_to(port, **options):
    return WebSocketWire(
        f"ws://127.0.0.1:{port}/v1/realtime?model=m",
        headers={"Authorization": "Bearer k"},
        http_error=http_error,
        close_error=options.pop("close_error", close_error),
        **options,
    )


class Inbox:
    """Receives the messages of a wire, which is closed at the end."""

    def __init__(self, wire):
        self.wire = wire
        self.messages = asyncio.Queue()

    async def __aenter__(self):
        await self.wire.open()
        self.running = asyncio.create_task(self.wire.run(self.messages.put_nowait))
        return self

    async def __aexit__(self, *_):
        self.running.cancel()
        await asyncio.wait([self.running])
        await self.wire.close()

    async def get(self):
        async with asyncio.timeout(5):
            return await self.messages.get()


@asynccontextmanager
async def server(handler, **options):
    async with serve(handler, "127.0.0.1", 0, **options) as running:
        yield next(iter(running.sockets)).getsockname()[1]


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def test_messages_are_text_frames_and_come_back_as_bytes():
    got = []

    async def handler(connection):
        got.append((connection.request.path, connection.request.headers["Authorization"]))
        async for message in connection:
            got.append(message)
            await connection.send("ä")
            await connection.send(b"binary")

    async with server(handler) as port, Inbox(wire_to(port)) as inbox:
        await inbox.wire.send("ö".encode())
        assert [await inbox.get(), await inbox.get()] == ["ä".encode(), b"binary"]
    assert got == [("/v1/realtime?model=m", "Bearer k"), "ö"]
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    ("date", "unix"),
    [
        ("Tue, 14 Nov 2023 22:13:20 GMT", 1.7e9),
        ("Tue, 99 Nov 2023 22:13:20 GMT", None),
        ("tomorrow", None),
        ("", None),
        (None, None),
    ],
)
async def test_the_servers_own_time_is_passed_on(date, unix):
    def head(connection, request, response):
        del response.headers["Date"]
        if date is not None:
            response.headers["Date"] = date

    times = []
    async with server(echo, process_response=head) as port:
        wire = wire_to(port, on_server_time=times.append)
        await wire.open()
        await wire.close()
    assert times == ([] if unix is None else [unix])


async def test_a_refused_handshake_is_reported_in_the_servers_words():
    def refuse(connection, request):
        body = json.dumps({"error": {"message": "Wrong key.", "code": "invalid_api_key"}})
        return connection.respond(HTTPStatus.UNAUTHORIZED, body)

    async with server(echo, process_request=refuse) as port:
        wire = wire_to(port)
        with pytest.raises(SessionError, match=r"^Wrong key\.$") as caught:
            await wire.open()
        await wire.close()
    assert (caught.value.kind, caught.value.code) == (ErrorKind.FATAL, "invalid_api_key")


async def test_an_unreachable_server_is_one_line_that_names_the_host():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(SessionError, match=r"127\.0\.0\.1 can't be reached") as caught:
        await wire_to(port).open()
    assert caught.value.kind is ErrorKind.RECYCLE
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [1000, 1001, 1011])
async def test_a_close_by_the_server_is_an_error_with_its_reason(code):
    async with server(lambda connection: connection.close(code, "sixty minutes")) as port:
        wire = wire_to(port)
        await wire.open()
        with pytest.raises(SessionError, match="sixty minutes") as caught:
            await wire.run(print)
        assert (caught.value.code, caught.value.kind) == (str(code), ErrorKind.RECYCLE)
        with pytest.raises(SessionError, match="sixty minutes"):
            await wire.send(b"{}")
        await wire.close()


async def test_an_end_that_the_provider_calls_clean_returns_none():
    async with server(lambda connection: connection.close()) as port:
        wire = wire_to(port, close_error=lambda code, reason: None)
        await wire.open()
        assert await wire.run(print) is None
        await wire.close()


async def test_a_connection_that_breaks_is_an_error():
    async def cut(connection):
        connection.transport.abort()
        await connection.wait_closed()

    async with server(cut) as port:
        wire = wire_to(port)
        await wire.open()
        with pytest.raises(SessionError) as caught:
            await wire.run(print)
        assert (caught.value.code, caught.value.kind) == ("1006", ErrorKind.RECYCLE)
        await wire.close()


@asynccontextmanager
async def silent_server():
    """Accepts the handshake, and then neither reads nor sends."""
    over = asyncio.Event()

    async def handler(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = re.search(r"Sec-WebSocket-Key: (\S+)", head, re.IGNORECASE)[1]
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
        )
        writer.transport.pause_reading()
        await over.wait()
        writer.transport.abort()

    running = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield running.sockets[0].getsockname()[1]
    finally:
        over.set()
        running.close()
        await running.wait_closed()


async def test_a_dead_connection_is_noticed():
    async with silent_server() as port:
        wire = wire_to(port, ping_interval=0.2, pong_timeout=0.4)
        await wire.open()
        began = time.perf_counter()
        with pytest.raises(SessionError, match="does not answer any more") as caught:
            await wire.run(print)
        assert time.perf_counter() - began < 1.5
        assert caught.value.kind is ErrorKind.RECYCLE
        await wire.close()


async def test_sending_waits_for_a_server_that_does_not_read_and_closing_does_not():
    async with silent_server() as port:
        wire = wire_to(port)
        await wire.open()

        async def flood():
            for _ in range(200):
                await wire.send(b"x" * 1_000_000)

        sending = asyncio.create_task(flood())
        await asyncio.sleep(0.2)
        assert not sending.done()
        sending.cancel()
        began = time.perf_counter()
        await wire.close()
        await wire.close()
        assert time.perf_counter() - began < 0.5
        with pytest.raises(asyncio.CancelledError):
            await sending


@pytest.mark.parametrize("moment", ["opening", "receiving"])
async def test_being_cancelled_leaves_nothing(moment):
    started = asyncio.Event()

    async def hang(connection, request):
        started.set()
        if moment == "opening":
            await asyncio.sleep(0.3)

    async with server(echo, process_request=hang) as port:
        wire = wire_to(port)

        async def use():
            await wire.open()
            await wire.run(print)

        task = asyncio.create_task(use())
        await started.wait()
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await wire.close()
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize(
    ("proxy", "message"),
    [
        ("http://127.0.0.1:1", "127.0.0.1 can't be reached"),
        ("gopher://user:secret@127.0.0.1:1", "proxy can't be used: gopher://127.0.0.1:1"),
    ],
)
async def test_a_given_proxy_is_used_even_for_this_machine(proxy, message):
    async def handle(connection):
        await connection.wait_closed()

    async with serve(handle, "127.0.0.1", 0) as server:
        wire = wire_to(server.sockets[0].getsockname()[1], proxy=proxy)
        with pytest.raises(SessionError, match=message) as caught:
            await wire.open()
        assert "secret" not in str(caught.value)


async def test_an_ssl_context_says_whom_to_trust():
    pytest.importorskip("cryptography", reason="needs duologue[simulate]")
    from duologue.simulators._test_ca import TemporaryCA

    authority = TemporaryCA()

    async def handle(connection):
        await connection.send("hello")
        await connection.wait_closed()

    async with server(handle, ssl=authority.server_context()) as port:
        url = f"wss://127.0.0.1:{port}"
        wire = WebSocketWire(url, ssl_context=authority.client_context())
        async with Inbox(wire) as inbox:
            assert await inbox.get() == b"hello"
        with pytest.raises(SessionError, match="can't be reached"):
            await WebSocketWire(url).open()
