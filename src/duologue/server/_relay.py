"""Carry the messages of a page that has come back to another worker than the one with its call.

    page ──WebSocket──> worker B ──socket pair──> worker A, which has the call
                            └── supervisor: hands A its end

A connection is read before its ticket is known, and may be encrypted, so it can't be handed to
another process any more. B keeps the WebSocket, with all its limits, and passes messages on. They
are few: audio and video go to A directly. Each line is JSON:

    B to A: {"hello": {"ticket", "received"}}, {"message": {...}}, {"end": CLOSE CODE}
    A to B: {"text": TEXT FOR THE PAGE}, {"close": null or [code, close code, message]}
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from typing import Self, cast

from duologue.json_types import Json, JsonObject
from duologue.server.call_socket import (
    CLOSE_S,
    FAILED,
    RESTARTING,
    TOO_FAST,
    CallSocket,
    Hello,
    Refusal,
    RefusedError,
)

_POLICY = 1008
"""Close code of a page that broke a limit, after which its call ends."""

_LOST = 1006

_HELLO_S = 2.0
"""Seconds in which the other worker sends the first line."""

_MAX_UNREAD = 1024 * 1024
"""Most bytes that may wait for the worker that has the call."""

_ESCAPES = 6
"""Most characters of JSON for one byte of text."""


class RelayedSocket:
    """The `PageSocket` of a page whose WebSocket another worker has.

    Args:
        reader: Lines of the other worker.
        writer: Lines for it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._closed = False

    @classmethod
    async def open(cls, channel: socket.socket, max_message_bytes: int) -> Self:
        """Take over this end of the socket pair."""
        limit = max_message_bytes * _ESCAPES + 1024
        return cls(*await asyncio.open_unix_connection(sock=channel, limit=limit))

    async def receive_hello(self) -> Hello:
        """Receive what the page has shown.

        Raises:
            RefusedError: The other worker does not send it.
        """
        try:
            async with asyncio.timeout(_HELLO_S):
                line = await self._line()
        except TimeoutError:
            line = None
        match line:
            case {"hello": {"ticket": str(ticket), "received": int(received)}}:
                return Hello("", ticket, received)
            case _:
                raise RefusedError(FAILED)

    async def read(
        self, deliver: Callable[[Mapping[str, Json]], None], *, offer_due: bool = False
    ) -> int:
        """Read messages until the page's socket ends; return its close code."""
        while (line := await self._line()) is not None:
            match line:
                case {"message": dict(message)} if isinstance(message.get("type"), str):
                    deliver(message)
                case {"end": int(code)}:
                    return code
                case _:
                    pass
        return _LOST

    async def send(self, text: str) -> None:
        """Send the page a message; do nothing after the end of its socket."""
        await self._write({"text": text})

    async def close(self, refusal: Refusal | None = None) -> None:
        """Let the other worker close the page's socket."""
        if self._closed:
            return
        reason: list[Json] | None = None
        if refusal is not None:
            reason = [refusal.code, refusal.close_code, refusal.message]
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._write({"close": reason})
        except TimeoutError:
            pass
        self._closed = True
        self._writer.close()

    async def _line(self) -> JsonObject | None:
        try:
            line = await self._reader.readline()
            return cast("JsonObject", json.loads(line)) if line else None
        except (OSError, ValueError):
            return None

    async def _write(self, line: JsonObject) -> None:
        if self._closed:
            return
        try:
            self._writer.write(json.dumps(line).encode() + b"\n")
            await self._writer.drain()
        except OSError:
            self._closed = True


async def relay(page: CallSocket, hello: Hello, channel: socket.socket) -> Refusal | None:
    """Pass messages on between a page and the worker that has its call.

    Args:
        page: The page's socket.
        hello: What the page has shown.
        channel: This end of the socket pair.

    Returns:
        The reason with which to close the page's socket; None is an ordinary end.
    """
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=4 * 1024 * 1024)

    def write(line: JsonObject) -> None:
        if not writer.is_closing():
            writer.write(json.dumps(line).encode() + b"\n")

    def deliver(message: Mapping[str, Json]) -> None:
        if writer.transport.get_write_buffer_size() > _MAX_UNREAD:
            raise RefusedError(TOO_FAST)
        write({"message": dict(message)})

    async def read_page() -> Refusal | None:
        code, refusal = _POLICY, None
        try:
            code = await page.read(deliver)
        except RefusedError as error:
            refusal = error.refusal
        # This process may end, which is no reason for a call of another one to end.
        write({"end": _LOST if code == RESTARTING.close_code else code})
        return refusal

    async def read_worker() -> Refusal | None:
        try:
            while line := await reader.readline():
                match json.loads(line):
                    case {"text": str(text)}:
                        await page.send(text)
                    case {"close": [str(code), int(close_code), str(message)]}:
                        if close_code == RESTARTING.close_code:
                            return RESTARTING
                        return Refusal(code, close_code, message)
                    case {"close": None}:
                        return None
                    case _:
                        pass
        except (OSError, ValueError):
            pass
        # The other worker has died: the page tries again, and learns that the call is gone.
        return Refusal("lost", 1011, "The call was lost.")

    try:
        write({"hello": {"ticket": hello.ticket, "received": hello.received}})
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(read_page()), tasks.create_task(read_worker())]
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in both:
                task.cancel()
        return next(iter(done)).result()
    finally:
        writer.close()
