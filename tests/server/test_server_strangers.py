"""Hostile clients of the server, and the limits that contain them."""

import asyncio
import json
import logging
import struct

import pytest
import websockets
from server_fixture import answer, receive_close, served, until

from duologue.server import CallRequest, ServerConfig, _connection_limits, calls, create_call_app

TOKEN = "correct-horse-battery"  # noqa: S105


UPGRADE = b"GET /call HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


async def wait_for_bye(signalling) -> None:
    while (message := await signalling.receive()) is not None and message["type"] != "bye":
        pass


@pytest.fixture
def errors(caplog):
    """Yield the log, and fail the test if it contains errors or tracebacks."""
    caplog.set_level(logging.INFO)
    yield caplog
    own = [r for r in caplog.records if not r.name.startswith("websockets.client")]
    assert not [r.getMessage() for r in own if r.exc_info or r.levelno >= logging.ERROR]


async def open_socket(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("localhost", port)


async def lets_in(server, **options) -> bool:
    async with server.socket(TOKEN, **options) as socket:
        return (await answer(socket))["type"] == "config"


async def test_silent_sockets_do_not_keep_a_caller_out(monkeypatch, errors):
    monkeypatch.setattr(calls, "MAX_WAITING", 8)
    async with served(wait_for_bye, token=TOKEN, hello_timeout_s=30) as server:
        strangers = [server.socket(None) for _ in range(20)]
        silent = [await stranger.__aenter__() for stranger in strangers]
        for _ in range(5):
            assert await lets_in(server)
        error, code, _ = await receive_close(silent[0])
        assert (error["code"], code) == ("busy", 1013)
        for stranger in strangers:
            await stranger.__aexit__(None, None, None)


async def test_a_request_must_be_complete_in_time(monkeypatch, errors):
    monkeypatch.setattr(_connection_limits, "REQUEST_S", 0.3)
    async with served(wait_for_bye) as server:
        for head in (b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "):
            reader, writer = await open_socket(server.port)
            writer.write(head)
            began = asyncio.get_running_loop().time()
            await asyncio.wait_for(reader.read(), 3)
            assert 0.2 < asyncio.get_running_loop().time() - began < 2
            writer.close()


async def test_bytes_that_trickle_in_do_not_extend_the_time_of_a_request(monkeypatch, errors):
    monkeypatch.setattr(_connection_limits, "REQUEST_S", 0.4)
    async with served(wait_for_bye) as server:
        reader, writer = await open_socket(server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        reading = asyncio.create_task(reader.read())
        for _ in range(40):
            if reading.done():
                break
            writer.write(b"x")
            await asyncio.sleep(0.05)
        assert reading.done()
        writer.close()


async def test_a_second_request_and_an_endless_body_are_limited_like_the_first(monkeypatch, errors):
    monkeypatch.setattr(_connection_limits, "REQUEST_S", 0.4)
    host = b"Host: localhost\r\n"
    async with served(wait_for_bye) as server:
        for rest in (
            b"GET / HTTP/1.1\r\nX: ",
            b"POST /x HTTP/1.1\r\n" + host + b"Content-Length: 99999\r\n\r\n",
        ):
            reader, writer = await open_socket(server.port)
            writer.write(b"GET /health HTTP/1.1\r\n" + host + b"\r\n")
            assert b"200" in await reader.readline()
            writer.write(rest)
            reading = asyncio.create_task(reader.read())
            for _ in range(40):
                if reading.done():
                    break
                writer.write(b"x")
                await asyncio.sleep(0.05)
            assert reading.done()
            writer.close()


async def test_a_client_that_reads_no_response_is_disconnected(monkeypatch, errors):
    monkeypatch.setattr(_connection_limits, "RESPONSE_S", 0.3)
    page = b"GET /static/transcript.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with served(wait_for_bye) as server:
        reader, writer = await open_socket(server.port)
        # Send more responses than the buffers between hold, and read none of them for a while.
        writer.transport.pause_reading()
        writer.write(page * 2000)
        await asyncio.sleep(1.0)
        writer.transport.resume_reading()
        answers = 0
        try:
            while data := await asyncio.wait_for(reader.read(1 << 20), 3):
                answers += data.count(b"HTTP/1.1 200")
        except ConnectionError:
            pass
        assert 0 < answers < 2000
        writer.close()


async def test_unfinished_requests_do_not_block_the_page(monkeypatch, errors):
    monkeypatch.setattr(_connection_limits, "MAX_CONNECTIONS", 16)
    async with served(wait_for_bye, max_sessions=2) as server:
        async with server.socket() as live:
            await answer(live)
            lines = []
            for _ in range(60):
                _, writer = await open_socket(server.port)
                writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
                lines.append(writer)
            assert (await server.get("/"))[0] == 200
            async with server.socket() as other:
                assert (await answer(other))["type"] == "config"
            await live.send('{"type": "bye"}')
            assert (await receive_close(live))[1] == 1000
        for writer in lines:
            writer.close()


async def test_a_lone_surrogate_as_a_token_is_a_wrong_token(errors):
    async with served(wait_for_bye, token=TOKEN) as server, server.socket(None) as socket:
        await socket.send('{"type": "hello", "token": "\\ud800"}')
        error, code, _ = await receive_close(socket)
        assert (error["code"], code) == ("token", 4401)


@pytest.mark.parametrize(
    "origin",
    ["http://[", "http://[::1", "http://localhost:x", "http://localhost:99999999", "http://", "?"],
)
async def test_an_invalid_origin_is_refused_with_a_sentence(origin, errors):
    async with served(wait_for_bye) as server:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with server.socket(origin=origin):
                pass
        assert caught.value.response.status_code == 403
        assert b"own page" in caught.value.response.body


async def upgraded(server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await open_socket(server.port)
    writer.write(
        f"GET /call HTTP/1.1\r\nHost: localhost:{server.port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert b"101" in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def frame(opcode: int, payload: bytes = b"") -> bytes:
    return bytes([opcode, 0x80 | len(payload)]) + bytes(4) + payload


@pytest.mark.parametrize(
    "frames",
    [
        frame(0x81, b"\xff\xfe"),
        frame(0x83, b"reserved opcode"),
        frame(0x80, b"a continuation of nothing"),
        b"\x81\xff" + struct.pack("!Q", 1 << 62),
        frame(0x88, b"\x00"),
        frame(0x81, b'{"type": "hello", "token": {"a": []}}'),
        frame(0x82, b'{"type": "hello"}'),
    ],
)
async def test_an_invalid_hello_ends_the_socket_and_logs_nothing(frames, errors):
    async with served(wait_for_bye, token=TOKEN) as server:
        reader, writer = await upgraded(server)
        writer.write(frames)
        await asyncio.wait_for(reader.read(200), 3)
        writer.close()
        assert await lets_in(server)


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET \xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        UPGRADE + b"\r\n",
        UPGRADE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_an_invalid_request_is_answered_and_logs_nothing(head, errors):
    async with served(wait_for_bye) as server:
        reader, writer = await open_socket(server.port)
        writer.write(head)
        await asyncio.wait_for(reader.read(20), 3)
        writer.close()
        assert (await server.get("/health"))[0] == 200


async def test_a_flood_of_pings_ends_the_socket(errors):
    async with served(wait_for_bye) as server:
        reader, writer = await upgraded(server)
        writer.write(frame(0x81, b'{"type":"hello"}'))
        await until(lambda: server.calls.sessions == 1)
        writer.write(frame(0x89) * 3)
        await asyncio.sleep(0.1)
        assert server.calls.sessions == 1
        writer.write(frame(0x89) * 100)
        await until(lambda: server.calls.sessions == 0)
        await asyncio.wait_for(reader.read(10_000), 3)
        writer.close()


async def test_a_message_of_endless_fragments_ends_the_socket(errors):
    async with served(wait_for_bye) as server:
        _, writer = await upgraded(server)
        writer.write(frame(0x81, b'{"type":"hello"}'))
        await until(lambda: server.calls.sessions == 1)
        writer.write(frame(0x01) + frame(0x00) * 2000)
        await until(lambda: server.calls.sessions == 0)
        writer.close()


async def test_an_offer_without_a_description_does_not_stop_the_offer_timeout(errors):
    async with served(wait_for_bye, offer_timeout_s=0.3) as server:
        for offer in ('{"type": "offer"}', '{"type": "offer", "sdp": 5}'):
            async with server.socket() as socket:
                await answer(socket)
                await socket.send(offer)
                error, code, _ = await receive_close(socket)
                assert (error["code"], code) == ("offer", 4408)


async def test_offers_and_texts_count_for_more_than_other_messages(errors):
    async with served(wait_for_bye, messages_per_s=50) as server:
        for message, allowed in (
            ({"type": "offer", "sdp": ""}, 5),
            ({"type": "text", "text": "x"}, 10),
            ({"type": "mute", "muted": True}, 50),
        ):
            async with server.socket() as socket:
                await answer(socket)
                for _ in range(allowed - 1):
                    await socket.send(json.dumps(message))
                await asyncio.sleep(0.05)
                assert server.calls.sessions == 1
                for _ in range(allowed):
                    await socket.send(json.dumps(message))
                error, code, _ = await receive_close(socket)
                assert (error["code"], code) == ("too_fast", 4429)
            await until(lambda: server.calls.sessions == 0)


HERE = "https://talk.example.org"


@pytest.mark.parametrize(
    ("settings", "host", "origin", "is_admitted"),
    [
        ({"allowed_hosts": ("talk.example.org",)}, "talk.example.org", HERE, True),
        ({"allowed_hosts": ("talk.example.org",)}, "127.0.0.1:8000", HERE, True),
        ({"allowed_hosts": ("talk.example.org",)}, "talk.example.org", HERE + ":8443", True),
        ({"allowed_hosts": ("talk.example.org",)}, "127.0.0.1:8000", "https://evil.example", False),
        ({"public_url": HERE + "/voice/"}, "127.0.0.1:8000", HERE, True),
        ({"public_url": HERE + "/voice/"}, "talk.example.org", HERE, True),
        ({"public_url": HERE}, "127.0.0.1:8000", HERE + ":8443", False),
        ({"public_url": HERE}, "127.0.0.1:8000", "http://talk.example.org", False),
        ({"public_url": HERE + ":443"}, "127.0.0.1:8000", HERE, True),
        (
            {"allowed_origins": ("https://www.example.org",)},
            "localhost",
            "https://www.example.org",
            True,
        ),
        (
            {"allowed_origins": ("https://www.example.org",)},
            "localhost",
            "https://example.org",
            False,
        ),
        ({"allowed_origins": ("https://www.example.org",)}, "www.example.org", HERE, False),
        ({}, "127.0.0.1:8000", HERE, False),
        ({}, "localhost:8000", "http://localhost:3000", False),
        ({}, "localhost:8000", "http://localhost:8000", True),
        ({"host": "0.0.0.0", "token": TOKEN}, "talk.example.org", HERE, True),  # noqa: S104
        ({"host": "0.0.0.0", "token": TOKEN}, "talk.example.org", HERE + ":8443", False),  # noqa: S104
        ({"host": "0.0.0.0", "token": TOKEN}, "talk.example.org:8443", HERE + ":8443", True),  # noqa: S104
        ({"host": "0.0.0.0", "token": TOKEN, "public_url": HERE}, "10.0.0.5:8000", HERE, True),  # noqa: S104
    ],
)
def test_calls_from_a_page_behind_a_proxy_are_admitted_or_refused(
    settings, host, origin, is_admitted
):
    from starlette.testclient import TestClient, WebSocketDenialResponse
    from starlette.websockets import WebSocketDisconnect

    app = create_call_app(wait_for_bye, ServerConfig(**settings))
    client = TestClient(app, base_url=f"http://{host}")
    headers = {"host": host, "origin": origin}
    try:
        with client.websocket_connect("/call", headers=headers) as socket:
            socket.send_json({"type": "hello", "token": TOKEN})
            admitted = socket.receive_json()["type"] == "config"
    except (WebSocketDisconnect, WebSocketDenialResponse):
        admitted = False
    assert admitted is is_admitted
    response = client.post("/call", headers=headers)
    assert response.status_code in ({204} if is_admitted else {403, 421})


async def test_a_proxy_that_leaves_out_the_port_is_recognised_by_our_own_port():
    """nginx does so with "Host $host" if it listens on another port than 443."""
    async with served(wait_for_bye, allowed_hosts=("talk.test",)) as server:
        status, _, _ = await server.post("/call", host="localhost", origin="http://localhost:8443")
        assert status == 204
        status, _, _ = await server.post(
            "/call", host=f"localhost:{server.port}", origin="http://localhost:8443"
        )
        assert status == 403


async def test_the_log_says_once_why_a_page_is_refused(caplog):
    async with served(wait_for_bye) as server:
        for _ in range(20):
            for origin in ("https://talk.example.org", "https://other.example"):
                status, _, body = await server.post("/call", origin=origin)
                assert (status, body.startswith(b"Refused: ")) == (403, True)
    (line,) = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert "https://talk.example.org" in line
    assert "public_url=" in line


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"public_url": "talk.example.org"}, "public_url must be an address"),
        ({"public_url": "https://talk.example.org/#x"}, "public_url must be an address"),
        ({"public_url": "https://["}, "public_url must be an address"),
        ({"allowed_origins": ("*",)}, "allowed_origins must be an address"),
        ({"allowed_hosts": ("https://talk.example.org",)}, "allowed_hosts must be names"),
        ({"allowed_hosts": ("talk.example.org:8443",)}, "allowed_hosts must be names"),
    ],
)
def test_invalid_addresses_are_refused_at_once(settings, says):
    with pytest.raises(ValueError, match=says):
        ServerConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "headers", "here"),
    [
        ({}, {"host": "localhost:8000", "origin": "http://localhost:8000"}, True),
        ({}, {"host": "[::1]:8000"}, True),
        ({}, {}, True),
        ({}, {"host": "127.0.0.1:8000", "origin": HERE}, False),
        ({"allowed_hosts": ("talk.example.org",)}, {"host": "talk.example.org"}, False),
        ({"public_url": HERE}, {"host": "127.0.0.1:8000"}, False),
        ({"public_url": "http://localhost:8080"}, {"host": "127.0.0.1:8000"}, True),
        ({}, {"host": "localhost", "origin": "http://["}, False),
        ({"host": "0.0.0.0", "token": TOKEN}, {"host": "localhost:8000"}, False),  # noqa: S104
    ],
)
def test_a_caller_behind_a_proxy_is_not_on_this_machine(settings, headers, here):
    """Such a caller must not be offered loopback addresses."""
    assert ServerConfig(**settings).is_from_this_machine(CallRequest(headers=headers)) is here


def test_a_public_page_without_a_token_causes_a_warning():
    assert "pass a token" in (ServerConfig(public_url=HERE).warning or "")
    assert ServerConfig(public_url=HERE, token=TOKEN).warning is None
    assert ServerConfig(public_url="http://localhost:8080").warning is None


def test_the_public_address_is_printed():
    config = ServerConfig(
        host="0.0.0.0",  # noqa: S104
        token=TOKEN,
        public_url="https://talk.example.org/voice",
    )
    assert config.address(8000) == f"https://talk.example.org/voice/#token={TOKEN}"
    assert config.warning is None


async def test_long_texts_count_for_more_than_short_ones(errors):
    async with served(wait_for_bye) as server, server.socket() as socket:
        await answer(socket)
        await socket.send(json.dumps({"type": "text", "text": "x" * 4000}))
        await asyncio.sleep(0.05)
        assert server.calls.sessions == 1
        await socket.send(json.dumps({"type": "text", "text": "x" * 4000}))
        assert (await receive_close(socket))[1] == 4429


async def test_a_low_rate_still_lets_a_call_begin(errors):
    async with served(wait_for_bye, messages_per_s=2) as server, server.socket() as socket:
        await answer(socket)
        await socket.send('{"type": "offer", "sdp": ""}')
        await asyncio.sleep(0.1)
        assert server.calls.sessions == 1
        await socket.send('{"type": "bye"}')
        assert (await receive_close(socket))[1] == 1000
