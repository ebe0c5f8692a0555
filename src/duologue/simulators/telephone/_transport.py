"""How a simulated carrier reaches an app: over the network, or within this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from duologue.errors import DuologueError

type Message = str | bytes
type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Scope]]
type Send = Callable[[Scope], Awaitable[None]]
type AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_END_S = 2.0
"""Seconds that an app gets to end a request of a carrier that has hung up."""


class CallRejectedError(DuologueError):
    """The app did not take the call; ``status`` is HTTP's, 200 if the response is of no use."""

    def __init__(self, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.status = status


class Channel(Protocol):
    """One WebSocket to the app.

    Attributes:
        close_code: The code with which the app has closed it; None before that.
    """

    @property
    def close_code(self) -> int | None: ...

    async def send(self, message: Message) -> None:
        """Send a message; do nothing after the end."""

    async def receive(self) -> Message | None:
        """Return the next message; None after the end."""
        ...

    async def close(self, code: int = 1000) -> None:
        """Close it."""


class Transport(Protocol):
    """Makes the requests of a carrier."""

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str]:
        """Return status and body of the response."""
        ...

    async def connect(self, url: str, headers: Mapping[str, str]) -> Channel:
        """Open a WebSocket.

        Raises:
            CallRejectedError: The app refused it.
        """
        ...


class NetworkTransport:
    """Reaches an app by its address."""

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str]:
        """Return status and body of the response."""
        async with (
            aiohttp.ClientSession() as client,
            client.request(method, url, headers=headers, data=body) as response,
        ):
            return response.status, await response.text()

    async def connect(self, url: str, headers: Mapping[str, str]) -> Channel:
        """Open a WebSocket."""
        client = aiohttp.ClientSession()
        try:
            socket = await client.ws_connect(url, headers=headers, autoping=True)
        except aiohttp.WSServerHandshakeError as error:
            await client.close()
            raise CallRejectedError("the app refused the socket", error.status) from error
        except BaseException:
            await client.close()
            raise
        return _NetworkChannel(client, socket)


class _NetworkChannel:
    def __init__(
        self, client: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse
    ) -> None:
        self._client = client
        self._socket = socket

    @property
    def close_code(self) -> int | None:
        return self._socket.close_code

    async def send(self, message: Message) -> None:
        with suppress(ConnectionError):
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)

    async def receive(self) -> Message | None:
        message = await self._socket.receive()
        if message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            data: Message = message.data
            return data
        return None

    async def close(self, code: int = 1000) -> None:
        try:
            await self._socket.close(code=code)
        finally:
            await self._client.close()


class AppTransport:
    """Reaches an ASGI app within this process, in virtual time as well.

    Args:
        app: The app.
        public_url: Its public address, below which the app sees the paths.
    """

    def __init__(self, app: AsgiApp, public_url: str) -> None:
        self._app = app
        self._prefix = urlsplit(public_url).path.rstrip("/")

    def _scope(self, kind: str, url: str, headers: Mapping[str, str]) -> Scope:
        parts = urlsplit(url)
        sent = {"host": parts.netloc, **headers}
        return {
            "type": kind,
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": parts.scheme,
            "path": parts.path.removeprefix(self._prefix),
            "raw_path": parts.path.removeprefix(self._prefix).encode(),
            "root_path": "",
            "query_string": parts.query.encode(),
            "headers": [(k.lower().encode(), v.encode()) for k, v in sent.items()],
            "client": ("127.0.0.1", 40000),
            "server": (parts.hostname, parts.port or (443 if parts.scheme[-1] == "s" else 80)),
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
            "state": {},
        }

    async def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str]:
        """Return status and body of the response."""
        status, answer = 0, b""

        async def receive() -> Scope:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Scope) -> None:
            nonlocal status, answer
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                answer += message.get("body", b"")

        scope = self._scope("http", url, headers)
        scope["method"] = method
        await self._app(scope, receive, send)
        return status, answer.decode()

    async def connect(self, url: str, headers: Mapping[str, str]) -> Channel:
        """Open a WebSocket."""
        channel = _AppChannel()
        channel.task = asyncio.ensure_future(
            self._app(
                self._scope("websocket", url, headers), channel.app_receives, channel.app_sends
            )
        )
        both: set[asyncio.Future[Any]] = {channel.task, channel.opened}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not channel.opened.done() or channel.opened.result() != 101:
            status = channel.opened.result() if channel.opened.done() else 500
            await channel.close()
            raise CallRejectedError("the app refused the socket", status)
        return channel


class _AppChannel:
    def __init__(self) -> None:
        self.task: asyncio.Future[None] | None = None
        self.opened: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._to_app: asyncio.Queue[Scope] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message | None] = asyncio.Queue()
        self._to_app.put_nowait({"type": "websocket.connect"})
        self._over = False
        self.close_code: int | None = None

    async def app_receives(self) -> Scope:
        return await self._to_app.get()

    async def app_sends(self, message: Scope) -> None:
        match message["type"]:
            case "websocket.accept":
                self.opened.set_result(101)
            case "websocket.http.response.start":
                self.opened.set_result(message["status"])
            case "websocket.close":
                if not self.opened.done():
                    self.opened.set_result(403)
                if not self._over:
                    self.close_code = message.get("code", 1000)
                self._end()
            case "websocket.send" if not self._over:
                text = message.get("text")
                self._from_app.put_nowait(message["bytes"] if text is None else text)
            case _:
                pass

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._from_app.put_nowait(None)
            self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1005})

    async def send(self, message: Message) -> None:
        if not self._over:
            key = "text" if isinstance(message, str) else "bytes"
            self._to_app.put_nowait({"type": "websocket.receive", key: message})

    async def receive(self) -> Message | None:
        if self._over and self._from_app.empty():
            return None
        return await self._from_app.get()

    async def close(self, code: int = 1000) -> None:
        del code
        self._end()
        if self.task is not None:
            _, late = await asyncio.wait({self.task}, timeout=_END_S)
            for task in late:
                task.cancel()
            if not late:
                self.task.result()
