"""A client of websockets and orjson alone: what no framework on them can be cheaper than."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import orjson
import pybase64
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.framework import FRAME
from duologue.audio import Samples


class BareClient:
    """Sends 20 ms of ``sound`` (24 kHz) every 20 ms from ``began`` on, by the loop's clock."""

    def __init__(self, url: str, sound: Samples, began: float) -> None:
        self._url = url
        self._frames = sound.reshape(-1, FRAME)
        self._began = began
        self.sent: dict[int, float] = {}
        self.got: dict[int, float] = {}
        """When each numbered frame left and came back."""

    async def run(self, frames: int) -> None:
        """Send so many frames, then be there for another 0.1 s."""
        loop = asyncio.get_running_loop()
        async with (
            connect(self._url, compression=None, proxy=None) as line,
            asyncio.TaskGroup() as tasks,
        ):
            hearing = tasks.create_task(self._hear(line))
            for index in range(frames):
                await asyncio.sleep(max(0.0, self._began + index * 0.02 - loop.time()))
                pcm = self._frames[index % len(self._frames)].tobytes()
                self.sent[_number(pcm)] = time.perf_counter()
                audio = pybase64.b64encode(pcm).decode()
                event = {"type": "input_audio_buffer.append", "audio": audio}
                await line.send(orjson.dumps(event), text=True)
            await asyncio.sleep(0.1)
            hearing.cancel()

    async def _hear(self, line: ClientConnection) -> None:
        while True:
            event = orjson.loads(await line.recv(decode=False))
            if event["type"] == "response.output_audio.delta":
                pcm = pybase64.b64decode(event["delta"])
                self.got.setdefault(_number(pcm), time.perf_counter())


async def processor(url: str, sound: Samples, sessions: int, seconds: float, apart: float) -> float:
    """CPU of one of so many, in % of a core; each begins ``apart`` s after the one before."""
    began = asyncio.get_running_loop().time() + 1
    tasks = [
        asyncio.create_task(BareClient(url, sound, began + n * apart).run(1_000_000))
        for n in range(sessions)
    ]
    await asyncio.sleep(2)
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall) / sessions * 100
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    return share


def _number(pcm: bytes) -> int:
    return int.from_bytes(pcm[:2], "little", signed=True)
