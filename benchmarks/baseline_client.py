"""A client of websockets and orjson only: the lower bound for any framework that uses them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import orjson
import pybase64
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.wire_formats import Dialect
from duologue.audio import Samples

type Send = Callable[[bytes], Coroutine[None, None, None]]


class Pace:
    """Sends 20 ms of ``audio`` every 20 ms, starting at ``began`` on the loop's clock."""

    def __init__(self, audio: Samples, rate: int, began: float) -> None:
        self._frames = audio.reshape(-1, rate // 50)
        self._began = began
        self.sent: dict[int, float] = {}
        self.got: dict[int, float] = {}
        """When each numbered frame was sent and came back."""

    async def keep(self, frames: int, send: Send) -> None:
        """Send ``frames`` frames, then wait 0.1 s."""
        loop = asyncio.get_running_loop()
        for index in range(frames):
            await asyncio.sleep(max(0.0, self._began + index * 0.02 - loop.time()))
            pcm = self._frames[index % len(self._frames)].tobytes()
            self.sent[number_of(pcm)] = time.perf_counter()
            await send(pcm)
        await asyncio.sleep(0.1)

    def take(self, pcm: bytes) -> None:
        """Record that a frame came back."""
        self.got.setdefault(number_of(pcm), time.perf_counter())


class Client(Protocol):
    """One session of a baseline client."""

    pace: Pace

    async def run(self, frames: int) -> None:
        """Send ``frames`` frames, and receive them back."""


class BareClient:
    """A session over a WebSocket."""

    def __init__(self, dialect: Dialect, url: str, pace: Pace) -> None:
        self._dialect = dialect
        self._url = url
        self.pace = pace

    async def run(self, frames: int) -> None:
        dialect = self._dialect
        async with self._connect() as socket:

            async def send(pcm: bytes) -> None:
                await socket.send(dialect.hear(pybase64.b64encode(pcm).decode()), text=True)

            await self.pace.keep(frames, send)

    @asynccontextmanager
    async def _connect(self) -> AsyncGenerator[ClientConnection]:
        async with (
            connect(self._url, compression=None, proxy=None) as socket,
            asyncio.TaskGroup() as tasks,
        ):
            if self._dialect.first:
                await socket.send(self._dialect.first, text=True)
                await socket.recv()
            receiver = tasks.create_task(self._receive(socket))
            yield socket
            receiver.cancel()

    async def _receive(self, socket: ClientConnection) -> None:
        while True:
            audio = self._dialect.reply_audio(orjson.loads(await socket.recv(decode=False)))
            if audio is not None:
                self.pace.take(pybase64.b64decode(audio))


async def processor(clients: Sequence[Client], seconds: float) -> float:
    """Return the CPU of one session in % of a core, measured from 2 s after all have begun."""
    tasks = [asyncio.create_task(client.run(1_000_000)) for client in clients]
    await asyncio.sleep(2)
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall) / len(clients) * 100
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return share


def number_of(pcm: bytes) -> int:
    """Return the number of a frame whose samples all equal it."""
    return int.from_bytes(pcm[:2], "little", signed=True)
