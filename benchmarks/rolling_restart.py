"""Two servers behind nginx are replaced one after the other under 40 calls: nobody is cut.

``python -m benchmarks.rolling_restart`` measures the figure; a test does the same with few calls.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import websockets

from benchmarks.figures import Figure, give
from duologue.json_types import Json
from duologue.rtc.config import PeerError
from duologue.testing.caller import Caller

NGINX = shutil.which("nginx")

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
from duologue.testing import Reply, ScriptedRealtime

def make_agent(edge):
    return Agent(edge=edge, llm=ScriptedRealtime([Reply("Still here.", 0.5)] * 20))

config = ServerConfig(
    port=PORT, public_url=URL, drain_s=120, max_tick_delay_ms=None, max_sessions=100
)
run(serve(make_agent, config))
"""


class Page:
    """The signalling of a page over a WebSocket."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket

    async def receive(self) -> Mapping[str, Json] | None:
        try:
            message: Mapping[str, Json] = json.loads(await self._socket.recv())
        except websockets.ConnectionClosed:
            return None
        return message

    async def send(self, message: Mapping[str, Json]) -> None:
        with suppress(websockets.ConnectionClosed):
            await self._socket.send(json.dumps(message))


@asynccontextmanager
async def call(address: str) -> AsyncIterator[Caller]:
    """Yield a caller whose agent has joined."""
    async with websockets.connect(f"ws://{address}/call") as socket:
        await socket.send('{"type": "hello"}')
        async with Caller(Page(socket), on_audio=lambda frame: None, timeout=30) as caller:
            async with asyncio.timeout(30):
                while not has(caller, "RealtimeConnectedEvent"):
                    await asyncio.sleep(0.02)
            yield caller


def has(caller: Caller, kind: str) -> bool:
    """Return whether the agent of a caller has emitted an event."""
    return any(event["type"] == kind for event in caller.events)


async def ask(caller: Caller) -> bool:
    """Write to the agent, and wait for the beginning of its reply; return whether it came."""
    caller.events.clear()
    await caller.send_text("are you there")
    with suppress(TimeoutError):
        async with asyncio.timeout(20):
            while not has(caller, "AgentTurnStartedEvent"):
                if caller.ended.is_set():
                    return False
                await asyncio.sleep(0.02)
            return True
    return False


async def call_again_until_admitted(address: str) -> None:
    """Call as a page does: again if the server that took the connection has begun to drain."""
    for _ in range(5):
        with suppress(PeerError, TimeoutError):
            async with call(address) as caller:
                if await ask(caller):
                    return
        await asyncio.sleep(0.3)
    raise AssertionError("no server admits a call")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def _nginx(directory: Path, one: int, two: int) -> AsyncIterator[int]:
    assert NGINX is not None
    port = _free_port()
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


async def _start_server(port: int, public_port: int) -> asyncio.subprocess.Process:
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


@dataclass(frozen=True, slots=True)
class Restarted:
    """What a rolling restart did to its calls."""

    cut: int
    """Calls that ended, or whose agent did not reply any more."""
    seconds: float
    """From the first SIGTERM until both successors took calls."""
    codes: tuple[int, ...]
    """Exit codes of the old servers, after their calls had ended."""


async def restart(calls: int, directory: Path) -> Restarted:
    """Replace two servers under so many calls, which all talk before, meanwhile and after."""
    ports = [_free_port(), _free_port()]
    async with _nginx(directory, *ports) as port, AsyncExitStack() as stack:
        address = f"127.0.0.1:{port}"
        servers = [await _start_server(one, port) for one in ports]
        processes = list(servers)
        try:
            callers = [await stack.enter_async_context(call(address)) for _ in range(calls)]

            async def count_silent() -> int:
                return calls - sum(await asyncio.gather(*map(ask, callers)))

            cut = [await count_silent()]
            began = time.monotonic()
            for number, own in enumerate(ports):
                servers[number].terminate()
                # While it drains, and before its successor listens, nginx finds the other one.
                await call_again_until_admitted(address)
                cut.append(await count_silent())
                servers[number] = await _start_server(own, port)
                processes.append(servers[number])
                await call_again_until_admitted(address)
            seconds = time.monotonic() - began
            cut.append(await count_silent())
            assert all(process.returncode is None for process in processes)
            await stack.aclose()
            codes = [await asyncio.wait_for(old.wait(), 30) for old in processes[:2]]
            return Restarted(max(cut), seconds, tuple(codes))
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=40)
    options = parser.parse_args()
    if NGINX is None:
        sys.exit("nginx is not installed: apt-get install nginx-light")
    with tempfile.TemporaryDirectory() as directory:
        done = asyncio.run(restart(options.calls, Path(directory)))
    give(
        [
            Figure(
                f"rolling restart of two servers behind nginx: calls cut of {options.calls}",
                "0",
                str(done.cut),
                done.cut == 0 and not any(done.codes),
                "WebRTC calls over nginx's WebSockets; every agent replied before, while each old "
                f"server drained, and after; both replaced in {done.seconds:.1f} s, the old ones "
                f"ended with the codes {done.codes} after their calls",
            )
        ]
    )


if __name__ == "__main__":
    main()
