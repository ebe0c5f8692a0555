"""The end of a server: the listener is closed first, and calls go on."""

import asyncio
import json
import os
import re
import signal
import sys
import time

import httpx
import pytest
import websockets
from server_fixture import answer, receive_close, served, until
from starlette.applications import Starlette
from starlette.routing import Mount

from duologue.server import ServerConfig, create_call_app
from event_loops import EVENT_LOOPS


async def until_bye(signalling) -> None:
    while (message := await signalling.receive()) is not None:
        if message["type"] == "bye":
            return
        await signalling.send({"type": "echo", "of": message["type"]})


class Warned:
    """A control that records how it was warned."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def state(self):
        return {}

    def say(self, text, *, interrupt):
        raise AssertionError

    def interrupt(self):
        raise AssertionError

    async def end_soon(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(60)


async def test_a_draining_app_goes_on_with_its_calls_and_admits_no_other():
    async with served(until_bye) as server:
        app = server.app
        async with server.socket() as socket:
            await answer(socket)
            draining = asyncio.create_task(app.drain(20))
            await until(lambda: app.draining)
            await socket.send('{"type": "offer", "sdp": "v=0"}')
            assert await answer(socket) == {"type": "echo", "of": "offer"}
            async with server.socket() as other:
                error, code, _ = await receive_close(other)
                assert (error, code) == ({}, 1012)
            status, headers, body = await server.get("/ready")
            assert (status, json.loads(body)["reason"]) == (503, "draining")
            assert headers["retry-after"]
            assert json.loads((await server.get("/health"))[2])["status"] == "draining"
            assert not draining.done()
            await socket.send('{"type": "bye"}')
            assert (await receive_close(socket))[1] == 1000
        async with asyncio.timeout(3):
            await draining


async def test_people_and_handlers_are_told_before_a_drain_ends_their_calls():
    control = Warned()

    async def handler(signalling) -> None:
        signalling.control = control
        await until_bye(signalling)

    async with served(handler) as server, server.socket() as socket:
        await answer(socket)
        began = time.monotonic()
        draining = asyncio.create_task(server.app.drain(0.8, warn_s=0.3))
        assert await answer(socket) == {"type": "ending", "seconds": 0.3}
        assert time.monotonic() - began >= 0.49
        assert (await receive_close(socket))[:2] == ({}, 1012)
        assert time.monotonic() - began >= 0.79
        await draining
        assert control.seconds == [0.3]


async def test_the_notice_comes_in_the_second_half_of_a_short_drain():
    async with served(until_bye) as server, server.socket() as socket:
        await answer(socket)
        draining = asyncio.create_task(server.app.drain(0.4))
        assert await answer(socket) == {"type": "ending", "seconds": 0.2}
        await draining


async def test_a_handler_whose_notice_fails_loses_no_call(caplog):
    class Failing(Warned):
        async def end_soon(self, seconds: float) -> None:
            raise ValueError("no")

    async def handler(signalling) -> None:
        signalling.control = Failing()
        await until_bye(signalling)

    async with served(handler) as server, server.socket() as socket:
        await answer(socket)
        draining = asyncio.create_task(server.app.drain(2, warn_s=1.9))
        await answer(socket)
        await until(lambda: "the notice of a call's end failed" in caplog.text)
        await socket.send('{"type": "bye"}')
        assert (await receive_close(socket))[1] == 1000
        await draining


async def test_a_drain_can_be_shortened_by_another():
    async with served(until_bye) as server, server.socket() as socket:
        await answer(socket)
        first = asyncio.create_task(server.app.drain(60))
        await until(lambda: server.app.draining)
        await server.app.drain(0)
        assert (await receive_close(socket))[1] == 1012
        async with asyncio.timeout(3):
            await first


async def test_the_work_after_a_call_is_waited_for():
    done = []

    async def handler(signalling) -> None:
        async def after() -> None:
            await asyncio.sleep(0.3)
            done.append(True)

        signalling.after_call = after
        await until_bye(signalling)

    async with served(handler) as server:
        async with server.socket() as socket:
            await answer(socket)
        await until(lambda: server.calls.sessions == 0)
        assert not done
        await server.app.drain(5)
        assert done


async def test_ready_says_why_no_call_would_be_admitted():
    async with served(until_bye, max_sessions=1) as server:
        assert json.loads((await server.get("/ready"))[2]) == {
            "ready": True,
            "reason": None,
            "sessions": 0,
            "limit": 1,
        }
        server.app.loading = True
        status, _, body = await server.get("/ready")
        assert (status, json.loads(body)["reason"]) == (503, "loading")
        async with server.socket() as socket:
            error, code, _ = await receive_close(socket)
            assert (error["code"], code) == ("loading", 1013)
        server.app.loading = False
        async with server.socket() as socket:
            await answer(socket)
            status, _, body = await server.get("/ready")
            assert (status, json.loads(body)["reason"]) == (503, "full")
            assert (await server.get("/ready?full=ok"))[0] == 200
            assert (await server.get("/health"))[0] == 200


async def test_a_mounted_app_drains():
    app = create_call_app(until_bye, ServerConfig())
    outer = Starlette(routes=[Mount("/voice", app)])
    transport = httpx.ASGITransport(outer)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/voice/ready")).status_code == 200
        await app.drain()
        assert (await client.get("/voice/ready")).status_code == 503


PROGRAM = """
import asyncio
from duologue import run
from duologue._running import run_in_loop
from duologue.server import ServerConfig, create_call_app, serve_app

async def handler(signalling):
    while (message := await signalling.receive()) is not None:
        if message["type"] == "bye":
            break
        await signalling.send({"type": "echo"})
    print("session ended", flush=True)

config = ServerConfig(port=0, drain_s=DRAIN)
RUN
print("served", flush=True)
"""


class Program:
    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    @property
    def port(self) -> int:
        found = re.search(r":(\d+)/", self.url)
        assert found is not None
        return int(found[1])

    def socket(self):
        return websockets.connect(self.url.replace("http", "ws") + "call")


async def start(run: str, drain: float = 60) -> Program:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM.replace("DRAIN", str(drain)).replace("RUN", run),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
    assert line.startswith("Talk at ")
    return Program(process, line.split()[-1])


IN_ASYNCIO = "run_in_loop(serve_app(create_call_app(handler, config), config), 'asyncio')"


@pytest.mark.parametrize("loop", EVENT_LOOPS)
@pytest.mark.parametrize("function", ["run", "run_in_loop"])
async def test_sigterm_closes_the_port_and_lets_calls_end(function, loop):
    serving = "serve_app(create_call_app(handler, config), config)"
    program = await start(f"{function}({serving}, loop={loop!r})")
    async with program.socket() as socket:
        await socket.send('{"type": "hello"}')
        await answer(socket)
        os.kill(program.process.pid, signal.SIGTERM)
        async with asyncio.timeout(3):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", program.port)
                except OSError:
                    break
                writer.close()
                await asyncio.sleep(0.02)
        await socket.send('{"type": "offer", "sdp": ""}')
        assert await answer(socket) == {"type": "echo"}
        await socket.send('{"type": "bye"}')
        assert (await receive_close(socket))[1] == 1000
    out, err = await asyncio.wait_for(program.process.communicate(), 5)
    assert out.decode().split("\n") == ["session ended", "served", ""]
    assert (program.process.returncode, err) == (0, b"")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(second):
    program = await start(IN_ASYNCIO)
    async with program.socket() as socket:
        await socket.send('{"type": "hello"}')
        await answer(socket)
        os.kill(program.process.pid, signal.SIGTERM)
        await asyncio.sleep(0.3)
        began = time.monotonic()
        os.kill(program.process.pid, second)
        assert (await receive_close(socket))[1] == 1012
    out, _ = await asyncio.wait_for(program.process.communicate(), 5)
    assert time.monotonic() - began < 4
    assert b"session ended" in out
    assert program.process.returncode != 0


async def test_a_drain_that_is_over_ends_the_calls_with_1012():
    program = await start(IN_ASYNCIO, drain=0.6)
    async with program.socket() as socket:
        await socket.send('{"type": "hello"}')
        await answer(socket)
        os.kill(program.process.pid, signal.SIGTERM)
        assert (await answer(socket))["type"] == "ending"
        assert (await receive_close(socket))[1] == 1012
    await asyncio.wait_for(program.process.communicate(), 5)
    assert program.process.returncode == 0


async def test_a_connection_in_the_queue_of_a_closing_listener_is_served():
    program = await start(IN_ASYNCIO)
    async with program.socket() as socket:
        await socket.send('{"type": "hello"}')
        await answer(socket)
        os.kill(program.process.pid, signal.SIGSTOP)
        pending = [asyncio.create_task(waiting_request(program.port)) for _ in range(5)]
        await asyncio.sleep(0.2)
        os.kill(program.process.pid, signal.SIGTERM)
        os.kill(program.process.pid, signal.SIGCONT)
        for request in pending:
            assert b"200 OK" in await asyncio.wait_for(request, 5)
        await socket.send('{"type": "bye"}')
        await receive_close(socket)
    await asyncio.wait_for(program.process.communicate(), 5)


async def waiting_request(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    reply = await reader.read()
    writer.close()
    return reply
