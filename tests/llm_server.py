"""An HTTP server on loopback that streams server-sent events, for tests of text models.

It keeps connections open between requests, as the vendors' servers do, and sends bodies in chunks.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

from duologue.json_types import Json, JsonObject
from duologue.pipeline.interfaces import LLMOutput

type Answer = Callable[[Request], Awaitable[None]]


class Request:
    """One request to the server, and the means to answer it."""

    def __init__(
        self,
        path: str,
        headers: dict[str, str],
        body: JsonObject,
        out: asyncio.StreamWriter,
        connection: int,
    ) -> None:
        self.path = path
        self.headers = headers
        self.body = body
        self.connection = connection
        """The number of the connection that it came over."""
        self.gone = asyncio.Event()
        """Set when the client has closed the connection."""
        self.open = True
        self._out = out
        self._chunked = False

    def at(self, *path: str | int) -> Json:
        """Return a value of the body."""
        value: Json = self.body
        for key in path:
            if isinstance(value, dict) and isinstance(key, str):
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int):
                value = value[key]
            else:
                raise KeyError(path)
        return value

    def begin(self, status: int = 200, **headers: str) -> None:
        """Send the head of a response whose body comes in chunks."""
        self._chunked = True
        fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase if status < 500 else 'No'}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        self._out.write("\r\n".join([*lines, "", ""]).encode())

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if not self._chunked:
            self.begin()
        self._out.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._out.drain()

    async def end(self) -> None:
        """End the body."""
        self._out.write(b"0\r\n\r\n")
        await self._out.drain()

    async def refuse(self, status: int, body: Json | str, **headers: str) -> None:
        """Send an error with a body of JSON, or of text."""
        self.begin(status, content_type="application/json", **headers)
        await self.write((body if isinstance(body, str) else json.dumps(body)).encode())
        await self.end()

    def drop(self) -> None:
        """Close the connection in mid-response."""
        self.open = False


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[str, list[Request]]]:
    """Run the server; yield its address and the requests that it got."""
    requests: list[Request] = []
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    count = 0

    async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        number = count
        task = asyncio.current_task()
        assert task is not None
        connections[task] = writer
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            is_open = True
            while is_open:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                first, *lines = head.strip().split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                request = Request(first.split()[1], headers, body, writer, number)
                requests.append(request)
                answering = asyncio.ensure_future(answer(request))
                while not answering.done():
                    # A client sends nothing while it reads a response: what ends is the connection.
                    if reader.at_eof() or writer.transport.is_closing():
                        request.gone.set()
                    await asyncio.sleep(0.001)
                await answering
                is_open = request.open
        writer.close()

    server = await asyncio.start_server(serve_connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", requests
    finally:
        server.close()
        for writer in connections.values():
            writer.close()
        if connections:
            await asyncio.wait(connections, timeout=5)


async def collect(
    stream: AsyncIterator[LLMOutput], outputs: list[LLMOutput] | None = None
) -> list[LLMOutput]:
    """Return all outputs; add each to ``outputs`` as it comes, if given."""
    outputs = [] if outputs is None else outputs
    async for output in stream:
        outputs.append(output)
    return outputs
