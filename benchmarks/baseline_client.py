"""A client of websockets, orjson and pybase64 only: what a session costs by hand."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.wire_formats import Dialect

type Samples = NDArray[np.int16]
type Send = Callable[[bytes], Coroutine[None, None, None]]

TICK_S = 0.02


class Pace:
    """Gives 20 ms of audio every 20 ms, starting at ``began`` on the loop's clock.

    All samples of a frame equal its number; the numbers repeat. It records when each frame was sent
    and came back, and how late its own timers were.
    """

    def __init__(self, numbers: Sequence[int], rate: int) -> None:
        self._numbers = numbers
        self.began = 0.0
        self.rate = rate
        self.sent: dict[int, float] = {}
        self.got: dict[int, float] = {}
        """When each numbered frame was sent and came back."""
        self.frames = 0
        """Frames that came back."""
        self.late: list[float] = []
        """Lateness in s of each 20 ms timer."""

    def due(self, index: int) -> float:
        """Return when frame ``index`` has to be sent, on the loop's clock."""
        return self.began + index * TICK_S

    def frame(self, index: int) -> Samples:
        """Return frame ``index``, which is sent now."""
        self.late.append(asyncio.get_running_loop().time() - self.due(index))
        number = self._numbers[index % len(self._numbers)]
        # New for each frame, because real audio is.
        samples = np.full(self.rate // 50, number, np.int16)
        self.sent[number] = time.perf_counter()
        return samples

    async def keep(self, frames: int, send: Send) -> None:
        """Send ``frames`` frames, then wait 0.1 s."""
        loop = asyncio.get_running_loop()
        for index in range(frames):
            await asyncio.sleep(max(0.0, self.due(index) - loop.time()))
            await send(self.frame(index).tobytes())
        await asyncio.sleep(0.1)

    def call(self, frames: int, send: Callable[[Samples], None]) -> None:
        """Call ``send`` with each of ``frames`` frames, from timers, without a task."""
        loop = asyncio.get_running_loop()

        def tick(index: int) -> None:
            send(self.frame(index))
            if index < frames:
                loop.call_at(self.due(index + 1), tick, index + 1)

        loop.call_at(self.began, tick, 0)

    def take(self, pcm: bytes) -> None:
        """Record that a frame came back."""
        self.frames += 1
        self.got.setdefault(number_of(pcm), time.perf_counter())


class Client(Protocol):
    """One session of any client."""

    pace: Pace

    async def run(self, frames: int) -> None:
        """Send ``frames`` frames, and receive them back."""


class BareClient:
    """A session over a WebSocket: a task that sends, and one that receives."""

    def __init__(
        self, dialect: Dialect, url: str, pace: Pace, trust: ssl.SSLContext | None = None
    ) -> None:
        self._dialect = dialect
        self._url = url
        self._trust = trust
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
            connect(self._url, compression=None, proxy=None, ssl=self._trust) as socket,
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


def number_of(pcm: bytes) -> int:
    """Return the number of a frame whose samples all equal it."""
    return int.from_bytes(pcm[:2], "little", signed=True)
