"""Run a web app on a free loopback port during a block."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import websockets
from websockets.asyncio.client import ClientConnection

from duologue.server import CallApp, CallHandler, ServerConfig, create_call_app, serve_app
from duologue.server.calls import CallLimiter


@dataclass
class Served:
    url: str
    port: int
    app: CallApp
    task: asyncio.Task[None]

    @property
    def calls(self) -> CallLimiter:
        return self.app.calls

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    @asynccontextmanager
    async def socket(
        self, hello: str | None = "", *, name: str = "localhost", **options
    ) -> AsyncIterator[ClientConnection]:
        options = {"origin": self.origin, "host": "localhost"} | options
        address = f"ws://{name}:{self.port}/call"
        async with websockets.connect(address, compression=None, **options) as socket:
            if hello is not None:
                await socket.send(json.dumps({"type": "hello", "token": hello}))
            yield socket

    async def get(self, path: str = "/", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Send one plain HTTP request with the given headers."""
        return await self._request("GET", path, headers)

    async def post(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Send a POST without a body, as the page does."""
        return await self._request("POST", path, {"content-length": "0"} | headers)

    async def _request(
        self, method: str, path: str, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("localhost", self.port)
        lines = {"host": f"localhost:{self.port}", "connection": "close"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode())
        answer = await reader.read()
        writer.close()
        status, _, rest = answer.partition(b"\r\n")
        fields, _, body = rest.partition(b"\r\n\r\n")
        pairs = (line.split(": ", 1) for line in fields.decode().split("\r\n"))
        return int(status.split()[1]), {name.lower(): value for name, value in pairs}, body


@asynccontextmanager
async def served(handler: CallHandler, **settings) -> AsyncIterator[Served]:
    # A busy machine must not refuse the calls of a test.
    config = ServerConfig(**{"port": 0, "max_tick_delay_ms": None} | settings)
    async with serving(create_call_app(handler, config), config) as server:
        yield server


@asynccontextmanager
async def serving(app: CallApp, config: ServerConfig) -> AsyncIterator[Served]:
    ready = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(serve_app(app, config, ready=ready.set_result, signals=False))
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        url = ready.result()
        # With a public address, the announced address is the proxy's.
        port = config.port or int(url.rsplit(":", 1)[1].split("/")[0])
        try:
            yield Served(url, port, app, task)
        finally:
            task.cancel()


async def answer(socket: ClientConnection) -> dict:
    return json.loads(await asyncio.wait_for(socket.recv(), 3))


async def receive_close(socket: ClientConnection) -> tuple[dict, int, str]:
    """Return the last error message, and the close code and reason."""
    error: dict = {}
    with suppress(websockets.ConnectionClosed):
        while True:
            message = await answer(socket)
            if message["type"] == "error":
                error = message
    return error, socket.close_code or 0, socket.close_reason or ""


async def until(condition, seconds: float = 3.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
