"""Two servers behind nginx are replaced one after the other, and no call notices."""

import asyncio
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest
import websockets
from server_fixture import until

from duologue.rtc.config import PeerError
from duologue.testing.caller import Caller

NGINX = shutil.which("nginx")
CALLS = 5

_CONF = """
daemon off; pid {dir}/nginx.pid; error_log {dir}/error.log; worker_processes 1;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3;
    uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5;
    upstream duologue {{
        server 127.0.0.1:{one} max_fails=0;
        server 127.0.0.1:{two} max_fails=0;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://duologue;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $host;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""

_PROGRAM = """
from duologue import Agent, run
from duologue.hosting import serve
from duologue.server import ServerConfig
from duologue.testing import ScriptedRealtime

def make_agent(edge):
    return Agent(edge=edge, llm=ScriptedRealtime(["Still here."] * 9))

config = ServerConfig(port=PORT, public_url=URL, drain_s=60, max_tick_delay_ms=None)
run(serve(make_agent, config))
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def nginx(directory, one: int, two: int) -> AsyncIterator[int]:
    if NGINX is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    port = free_port()
    conf = directory / "nginx.conf"
    conf.write_text(_CONF.format(dir=directory, port=port, one=one, two=two))
    process = await asyncio.create_subprocess_exec(
        NGINX, "-c", str(conf), "-p", str(directory), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(5):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def start_server(port: int, public_port: int) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM.replace("PORT", str(port)).replace("URL", f"'http://127.0.0.1:{public_port}/'"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    assert line.startswith(b"Talk at")
    return process


class Page:
    """The signalling of a page over a real WebSocket."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket

    async def receive(self):
        try:
            return json.loads(await self.socket.recv())
        except websockets.ConnectionClosed:
            return None

    async def send(self, message) -> None:
        with suppress(websockets.ConnectionClosed):
            await self.socket.send(json.dumps(message))


@asynccontextmanager
async def call(port: int) -> AsyncIterator[Caller]:
    async with websockets.connect(f"ws://127.0.0.1:{port}/call") as socket:
        await socket.send('{"type": "hello"}')
        async with Caller(Page(socket), on_audio=lambda frame: None) as caller:
            await until(lambda: has(caller, "RealtimeConnectedEvent"), 10)
            yield caller


async def call_again_until_admitted(port: int) -> None:
    """Call as a page does: again if the server that took the connection has begun to drain."""
    for _ in range(5):
        with suppress(PeerError):
            async with call(port) as caller:
                await ask(caller)
                return
        await asyncio.sleep(0.3)
    raise AssertionError("no server admits a call")


def has(caller: Caller, kind: str) -> bool:
    return any(event["type"] == kind for event in caller.events)


async def ask(caller: Caller) -> None:
    """Write to the agent, and wait for the beginning of its reply."""
    caller.events.clear()
    await caller.send_text("are you there")
    async with asyncio.timeout(10):
        while not has(caller, "AgentTurnStartedEvent"):
            assert not caller.ended.is_set()
            await asyncio.sleep(0.02)


async def test_a_rolling_restart_cuts_no_call(tmp_path):
    ports = [free_port(), free_port()]
    async with nginx(tmp_path, *ports) as port, AsyncExitStack() as calls:
        servers = [await start_server(one, port) for one in ports]
        processes = list(servers)
        try:
            opened = [call(port) for _ in range(CALLS)]
            callers = await asyncio.gather(*map(calls.enter_async_context, opened))
            await asyncio.gather(*map(ask, callers))
            for number, own in enumerate(ports):
                servers[number].terminate()
                # While it drains, and before its successor listens, nginx finds the other one.
                await call_again_until_admitted(port)
                await asyncio.gather(*map(ask, callers))
                servers[number] = await start_server(own, port)
                processes.append(servers[number])
                await call_again_until_admitted(port)
            await asyncio.gather(*map(ask, callers))
            assert all(process.returncode is None for process in processes)
            await calls.aclose()
            for old in processes[:2]:
                assert await asyncio.wait_for(old.wait(), 10) == 0
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
