import asyncio
import json
import logging
import os
import signal
import sys
import time

import pytest
import websockets
from server_fixture import answer, receive_close, served, until

from duologue.clock import LoopClock
from duologue.errors import ConfigError
from duologue.rtc.turn import turn_server
from duologue.ticker import ticker_for
from event_loops import EVENT_LOOPS

TOKEN = "correct-horse-battery"  # noqa: S105


class Recorder:
    """Answers offers, and records the messages and the end of each call."""

    def __init__(self) -> None:
        self.got: list = []
        self.ended: list[str] = []

    async def __call__(self, signalling) -> None:
        try:
            while (message := await signalling.receive()) is not None:
                self.got.append(message)
                if message["type"] == "bye":
                    break
                await signalling.send({"type": "echo", "of": message["type"]})
            self.ended.append("ended")
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise


async def test_a_call_runs_from_hello_to_bye():
    handler = Recorder()
    async with served(handler, page={"agent": "Ada"}) as server:
        async with server.socket() as socket:
            config = await answer(socket)
            assert config == {"type": "config", "ice_servers": [], "agent": "Ada"}
            assert server.calls.sessions == 1
            await socket.send('{"type": "offer", "sdp": "v=0"}')
            assert await answer(socket) == {"type": "echo", "of": "offer"}
            await socket.send('{"type": "bye"}')
            assert await receive_close(socket) == ({}, 1000, "")
        assert handler.got == [{"type": "offer", "sdp": "v=0"}, {"type": "bye"}]
        await until(lambda: server.calls.sessions == 0)
    assert handler.ended == ["ended"]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_function_returns_the_ice_servers_of_each_call(waits):
    requests = []

    def ice_servers(request):
        requests.append(request)
        return [turn_server("turn:a", "correct-horse", now=len(requests), ttl_s=10)]

    async def later(request):
        await asyncio.sleep(0)
        return ice_servers(request)

    async with served(Recorder(), ice_servers=later if waits else ice_servers) as server:
        for number in (1, 2):
            async with server.socket() as socket:
                (entry,) = (await answer(socket))["ice_servers"]
                assert (entry["urls"], entry["username"]) == (["turn:a"], f"{10 + number}:duologue")
    assert requests[0].headers["host"]


async def test_a_call_whose_ice_servers_fail_is_refused(caplog):
    def ice_servers(request):
        raise ValueError("no secret")

    async with served(Recorder(), ice_servers=ice_servers) as server, server.socket() as socket:
        error, code, _ = await receive_close(socket)
        assert (error["code"], code) == ("failed", 1011)
    assert "ice_servers failed: ValueError: no secret" in caplog.text


async def test_ice_servers_that_do_not_come_keep_no_place(monkeypatch):
    monkeypatch.setattr("duologue.server.config.ICE_SERVERS_S", 0.1)

    async def ice_servers(request):
        await asyncio.Event().wait()

    async with served(Recorder(), ice_servers=ice_servers) as server:
        async with server.socket() as socket, asyncio.timeout(3):
            error, code, _ = await receive_close(socket)
        assert (error["code"], code) == ("failed", 1011)
        await until(lambda: server.calls.sessions == 0)


async def test_the_end_of_the_socket_ends_the_session():
    handler = Recorder()
    async with served(handler) as server:
        async with server.socket() as socket:
            await answer(socket)
        await until(lambda: handler.ended == ["ended"])
        await until(lambda: server.calls.sessions == 0)


async def test_a_session_that_does_not_end_is_cancelled():
    state = []

    async def stubborn(signalling) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            state.append("cancelled")
            raise

    async with served(stubborn, end_timeout_s=0.2) as server:
        async with server.socket() as socket:
            await answer(socket)
        await until(lambda: state == ["cancelled"])
        await until(lambda: server.calls.sessions == 0)


async def test_a_wrong_token_is_refused():
    async with served(Recorder(), token=TOKEN) as server:
        for token in ["", "correct-horse-batterz", "correct-horse-battery-", "ü" * 21]:
            async with server.socket(token) as socket:
                error, code, reason = await receive_close(socket)
            assert (error["code"], code) == ("token", 4401)
            assert error["message"] == reason
            assert server.calls.sessions == 0


async def test_the_right_token_is_admitted_and_never_logged(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    async with served(Recorder(), token=TOKEN) as server:
        await server.get(f"/?token={TOKEN}")
        async with server.socket(TOKEN) as socket:
            assert (await answer(socket))["type"] == "config"
    own = [r.getMessage() for r in caplog.records if not r.name.startswith("websockets.client")]
    assert not [line for line in own if TOKEN in line]
    assert TOKEN not in "".join(capfd.readouterr())


async def test_a_foreign_page_is_refused():
    async with served(Recorder()) as server:
        names = ("evil.example", "localhost:1", f"localhost.evil.example:{server.port}")
        for origin in [*(f"http://{name}" for name in names), "null", "file://"]:
            with pytest.raises(websockets.InvalidStatus) as caught:
                async with server.socket(origin=origin):
                    pass
            assert caught.value.response.status_code == 403
            assert b"own page" in caught.value.response.body


async def test_a_client_without_origin_is_not_a_foreign_page():
    async with served(Recorder()) as server, server.socket(origin=None) as socket:
        assert (await answer(socket))["type"] == "config"


async def test_a_rebound_name_is_refused():
    async with served(Recorder()) as server:
        origin = f"http://evil.example:{server.port}"
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with server.socket(origin=origin, name="evil.example"):
                pass
        assert caught.value.response.status_code == 403


async def test_a_full_server_refuses_the_next_call_and_admits_a_later_one():
    async with served(Recorder(), max_sessions=2) as server:
        async with server.socket() as first, server.socket() as second:
            await answer(first)
            await answer(second)
            async with server.socket() as third:
                error, code, reason = await receive_close(third)
            assert (error["code"], code) == ("full", 1013)
            assert "2 people talk" in reason
            assert server.calls.refused == 1
        await until(lambda: server.calls.sessions == 0)
        async with server.socket() as socket:
            assert (await answer(socket))["type"] == "config"


async def keep_busy(busy: asyncio.Event) -> None:
    """Let the loop do nothing else for 45 ms at a time, until the event is cleared."""
    while busy.is_set():
        time.sleep(0.045)
        await asyncio.sleep(0)


async def test_a_server_whose_ticks_are_late_refuses_a_call_until_it_has_recovered():
    busy = asyncio.Event()
    async with (
        served(Recorder(), max_sessions=9, max_tick_delay_ms=20) as server,
        server.socket() as first,
    ):
        await answer(first)
        busy.set()
        work = asyncio.create_task(keep_busy(busy))
        await until(lambda: server.calls.tick_delay_ms > 30, seconds=20)
        async with server.socket() as second:
            error, code, reason = await receive_close(second)
        assert (error["code"], code) == ("full", 1013)
        assert error["message"] == reason
        assert "too busy" in reason
        health = json.loads((await server.get("/health"))[2])
        assert health["tick_delay_ms"] > 20
        assert health["late"] is True
        status, _, body = await server.get("/ready")
        assert (status, json.loads(body)["reason"]) == (503, "late")
        assert health["refused"] == server.calls.refused_late == 1
        busy.clear()
        await work
        await until(lambda: server.calls.tick_delay_ms < 20, seconds=20)
        async with server.socket() as third:
            assert (await answer(third))["type"] == "config"
        assert server.calls.refused == 1


class OtherProcess:
    """The other worker of a server, which is on time."""

    prefix = "1-"

    async def is_elsewhere(self):
        return True

    async def admit(self):
        return True

    def free(self):
        pass

    async def health(self):
        return None


async def test_a_late_worker_sends_a_caller_to_one_that_is_on_time():
    busy = asyncio.Event()
    async with served(Recorder(), max_sessions=9, max_tick_delay_ms=20) as server:
        server.calls.shared = OtherProcess()
        async with server.socket() as first:
            await answer(first)
            busy.set()
            work = asyncio.create_task(keep_busy(busy))
            await until(lambda: server.calls.tick_delay_ms > 30, seconds=20)
            async with server.socket() as second:
                error, code, reason = await receive_close(second)
            busy.clear()
            await work
        # On 1012 without an error message, the page calls again by itself.
        assert (error, code) == ({}, 1012)
        assert "too busy" in reason


async def test_the_only_caller_is_admitted_however_late_the_ticks_are():
    busy = asyncio.Event()
    async with served(Recorder(), max_tick_delay_ms=20) as server:
        async with server.socket() as first:
            await answer(first)
            busy.set()
            work = asyncio.create_task(keep_busy(busy))
            await until(lambda: server.calls.tick_delay_ms > 30, seconds=20)
        await until(lambda: server.calls.sessions == 0)
        assert server.calls.tick_delay_ms > 20
        async with server.socket() as second:
            assert (await answer(second))["type"] == "config"
        busy.clear()
        await work


async def test_late_ticks_refuse_nobody_without_a_bound():
    busy = asyncio.Event()
    async with (
        served(Recorder(), max_sessions=9, max_tick_delay_ms=None) as server,
        server.socket() as first,
    ):
        await answer(first)
        busy.set()
        work = asyncio.create_task(keep_busy(busy))
        await until(lambda: server.calls.tick_delay_ms > 30, seconds=20)
        async with server.socket() as second:
            assert (await answer(second))["type"] == "config"
        busy.clear()
        await work


async def test_a_server_without_calls_has_no_ticks():
    async with served(Recorder()) as server:
        async with server.socket() as socket:
            await answer(socket)
            assert len(ticker_for(LoopClock())) == 1
        await until(lambda: server.calls.sessions == 0)
        assert len(ticker_for(LoopClock())) == 0


@pytest.mark.parametrize(
    ("message", "code", "close"),
    [
        (b"binary", "format", 1003),
        ("no json", "format", 1003),
        ("[1]", "format", 1003),
        ('{"kind": "offer"}', "format", 1003),
        ('{"type": 3}', "format", 1003),
        ("[" * 60000, "format", 1003),
        (json.dumps({"type": "text", "text": "é" * 300}, ensure_ascii=False), "too_big", 1009),
    ],
)
async def test_an_invalid_message_ends_the_call(message, code, close):
    limit = 500 if code == "too_big" else 65536
    async with served(Recorder(), max_message_bytes=limit) as server, server.socket() as socket:
        await answer(socket)
        await socket.send(message)
        error, closed, _ = await receive_close(socket)
        assert closed == close
        assert not error or error["code"] == code  # uvicorn may refuse the size before us
        await until(lambda: server.calls.sessions == 0)


async def test_a_big_message_is_refused_before_it_is_read():
    async with served(Recorder()) as server, server.socket() as socket:
        await answer(socket)
        await socket.send(json.dumps({"type": "text", "text": "x" * 66000}))
        error, closed, _ = await receive_close(socket)
        assert (error, closed) == ({}, 1009)  # by the WebSocket library, before our code


async def test_a_flood_of_messages_ends_the_call_and_a_steady_stream_does_not():
    handler = Recorder()
    async with served(handler, messages_per_s=20) as server:
        async with server.socket() as socket:
            await answer(socket)
            for _ in range(30):
                await socket.send('{"type": "mute", "muted": true}')
                await asyncio.sleep(0.05)
            await socket.send('{"type": "bye"}')
            assert (await receive_close(socket))[1] == 1000
        async with server.socket() as socket:
            await answer(socket)
            for _ in range(40):
                await socket.send('{"type": "mute", "muted": true}')
            error, code, _ = await receive_close(socket)
            assert (error["code"], code) == ("too_fast", 4429)


async def test_a_call_that_reads_nothing_is_ended():
    async def deaf(signalling) -> None:
        await asyncio.sleep(60)

    async with (
        served(deaf, messages_per_s=1000, end_timeout_s=0.1) as server,
        server.socket() as socket,
    ):
        await answer(socket)
        for _ in range(100):
            await socket.send('{"type": "mute", "muted": true}')
        assert (await receive_close(socket))[1] == 4429


@pytest.mark.parametrize("hello", [None, "other"])
async def test_a_socket_without_a_hello_is_closed(hello):
    async with served(Recorder(), hello_timeout_s=0.2) as server, server.socket(None) as socket:
        if hello:
            await socket.send('{"type": "offer", "sdp": ""}')
        error, code, _ = await receive_close(socket)
        assert (error["code"], code) == ("hello", 4408)


async def test_a_socket_without_an_offer_is_closed():
    async with served(Recorder(), offer_timeout_s=0.3) as server:
        async with server.socket() as socket:
            await answer(socket)
            await socket.send('{"type": "mute", "muted": true}')
            error, code, _ = await receive_close(socket)
            assert (error["code"], code) == ("offer", 4408)
        async with server.socket() as socket:
            await answer(socket)
            await socket.send('{"type": "offer", "sdp": ""}')
            await asyncio.sleep(0.5)
            assert server.calls.sessions == 1


async def test_a_socket_that_answers_no_ping_is_closed():
    async with served(Recorder(), ping_s=0.2) as server:
        reader, writer = await asyncio.open_connection("localhost", server.port)
        writer.write(
            f"GET /call HTTP/1.1\r\nHost: localhost:{server.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        hello = b'{"type":"hello"}'
        writer.write(bytes([0x81, 0x80 | len(hello)]) + b"\0\0\0\0" + hello)
        await until(lambda: server.calls.sessions == 1)
        await until(lambda: server.calls.sessions == 0)
        writer.close()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConfigError("the model is not there: fetch it"), "the model is not there: fetch it"),
        (RuntimeError("secret inside"), "Something failed on the server"),
        (ConfigError("é" * 300), "The call ended: éé"),
    ],
)
async def test_a_call_that_fails_reports_it_to_the_page(error, says, caplog):
    async def failing(signalling) -> None:
        raise error

    async with served(failing) as server, server.socket() as socket:
        error, code, reason = await receive_close(socket)
        assert (error["code"], code) == ("failed", 1011)
        assert says in error["message"]
        assert reason == error["message"]
        assert "secret" not in reason
    assert any(record.name.startswith("duologue.server") for record in caplog.records)


async def test_the_end_of_the_server_ends_sessions_in_bounded_time():
    handler = Recorder()
    async with served(handler) as server:
        async with server.socket() as socket:
            await answer(socket)
            began = time.monotonic()
            server.task.cancel()
            _, code, _ = await receive_close(socket)
            assert code == 1012
        await asyncio.wait({server.task})
        assert time.monotonic() - began < 3
    assert handler.ended == ["ended"]


async def test_a_session_that_ignores_cancellation_does_not_keep_the_server_running():
    async def stubborn(signalling) -> None:
        await asyncio.sleep(60)

    async with served(stubborn) as server, server.socket() as socket:
        await answer(socket)
        began = time.monotonic()
        server.task.cancel()
        await asyncio.wait({server.task})
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("loop", EVENT_LOOPS)
async def test_a_signal_ends_a_server_program(loop):
    program = (
        "from duologue._running import run_in_loop\n"
        "from duologue.server import ServerConfig, create_call_app, serve_app\n"
        "async def handler(s):\n"
        "    while await s.receive() is not None: pass\n"
        "    print('session ended', flush=True)\n"
        "config = ServerConfig(port=0, drain_s=0)\n"
        f"run_in_loop(serve_app(create_call_app(handler, config), config), {loop!r})\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
    assert line.startswith("Talk at http://localhost:")
    async with websockets.connect(line.split()[-1].replace("http", "ws") + "call") as socket:
        await socket.send('{"type": "hello"}')
        await answer(socket)
        os.kill(process.pid, signal.SIGTERM)
        out, _ = await asyncio.wait_for(process.communicate(), 5)
    assert b"session ended" in out
    assert process.returncode == -signal.SIGTERM


async def test_sessions_leave_nothing_behind():
    async with served(Recorder(), messages_per_s=500) as server:
        before = len(asyncio.all_tasks())
        for _ in range(25):
            async with server.socket() as socket:
                await answer(socket)
                await socket.send('{"type": "offer", "sdp": ""}')
                await answer(socket)
        await until(lambda: server.calls.sessions == 0)
        await until(lambda: len(asyncio.all_tasks()) == before)
