"""A server in a process of its own, with workers."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import websockets
from server_fixture import answer


class Server:
    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    @asynccontextmanager
    async def admitted(
        self, **hello: str
    ) -> AsyncIterator[tuple[websockets.ClientConnection, dict]]:
        """Yield the socket of an admitted call, and its configuration."""
        async with websockets.connect(self.url.replace("http", "ws") + "call") as socket:
            await socket.send(json.dumps({"type": "hello"} | hello))
            config = await answer(socket)
            assert config["type"] == "config"
            yield socket, config

    async def take_up(self, ticket: str) -> dict:
        """Take up a call, as a page does until it succeeds; return its configuration."""
        async with asyncio.timeout(10):
            while True:
                # A process that is about to die may still get the connection.
                with suppress(OSError, websockets.WebSocketException):
                    async with self.admitted(ticket=ticket) as (_, config):
                        return config
                await asyncio.sleep(0.1)

    @asynccontextmanager
    async def call(self) -> AsyncIterator[tuple[websockets.ClientConnection, int]]:
        """Yield the socket of an admitted call, and the pid of its worker."""
        async with self.admitted() as (socket, _):
            await socket.send('{"type": "mute", "muted": false}')
            yield socket, (await answer(socket))["pid"]

    async def get(self, path: str) -> dict:
        async with httpx.AsyncClient(base_url=self.url) as client:
            return (await client.get(path)).json()

    async def workers(self, count: int, seconds: float = 20) -> list[int]:
        """Wait until so many workers are ready; return their pids."""
        async with asyncio.timeout(seconds):
            while True:
                pids = [worker["pid"] for worker in (await self.get("/health"))["workers"]]
                if len(pids) == count:
                    # Until the workers have reported that these connections are closed.
                    await asyncio.sleep(0.3)
                    return pids
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running_program(program: str) -> AsyncIterator[Server]:
    """Run a program that prints its address; interrupt it at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        yield Server(process, line.split()[-1] if line else "")
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
            process.send_signal(signal.SIGINT)
        try:
            await asyncio.wait_for(process.communicate(), 10)
        except TimeoutError:
            process.kill()
            raise
