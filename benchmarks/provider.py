"""A provider as thin as can be, in a process of its own: it sends all sound straight back.

``Provider`` starts it; ``python -m benchmarks.provider`` is it. It notes when each numbered frame
came and left by the clock that all processes of the machine share.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

import orjson
import pybase64
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

SESSION = {"type": "realtime", "id": "sess_1", "model": "bench", "audio": {"input": {}}}


class Noted:
    """When each numbered frame came, and when it left again."""

    def __init__(self) -> None:
        self.came: dict[int, float] = {}
        self.left: dict[int, float] = {}
        self.sessions = 0


async def hold(connection: ServerConnection, noted: Noted) -> None:
    """One session: an endless reply that is what was heard."""
    noted.sessions += 1
    events = [
        {"type": "session.created", "session": SESSION},
        {"type": "session.updated", "session": SESSION},
        {"type": "response.created", "response": {"id": "r", "status": "in_progress"}},
    ]
    for event in events:
        await connection.send(orjson.dumps(event).decode())
    head = b'{"type":"response.output_audio.delta","response_id":"r","item_id":"i",'
    head += b'"output_index":0,"content_index":0,"delta":"'
    try:
        while True:
            message = await connection.recv(decode=False)
            at = time.perf_counter()
            event = orjson.loads(message)
            if event["type"] != "input_audio_buffer.append":
                continue
            audio = event["audio"]
            number = int.from_bytes(pybase64.b64decode(audio[:4])[:2], "little", signed=True)
            if number:
                noted.came.setdefault(number, at)
                noted.left.setdefault(number, time.perf_counter())
            await connection.send(head + audio.encode() + b'"}', text=True)
    except ConnectionClosed:
        return


async def main() -> None:
    """Serve till standard input ends; answer each line on it with what was noted."""
    noted = Noted()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    server = await serve(
        lambda connection: hold(connection, noted), "127.0.0.1", 0, compression=None, max_size=None
    )
    async with server:
        port = next(iter(server.sockets)).getsockname()[1]
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        while await reader.readline():
            report = {
                "came": {str(n): at for n, at in noted.came.items()},
                "left": {str(n): at for n, at in noted.left.items()},
                "cpu": time.process_time(),
            }
            sys.stdout.write(orjson.dumps(report).decode() + "\n")
            sys.stdout.flush()
            noted.came.clear()
            noted.left.clear()


class Provider:
    """The provider's process, on the last core where that can be said; use as ``with``.

    With ``pinned`` this process stays on the first one.
    """

    def __init__(self, *, pinned: bool = True) -> None:
        self._pinned = pinned

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.provider"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        pin(self._process.pid, last=True)
        if self._pinned:
            pin(0, last=False)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    @property
    def url(self) -> str:
        """The ``base_url`` for a client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def report(self) -> tuple[dict[int, float], dict[int, float], float]:
        """When frames came and left since the last report, and the CPU seconds used so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told = orjson.loads(self._process.stdout.readline())
        came, left = ({int(n): at for n, at in told[key].items()} for key in ("came", "left"))
        return came, left, told["cpu"]


def pin(process: int, *, last: bool) -> None:
    """Keep a process on the first or the last core, where the system lets us."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0) | set(range(os.cpu_count() or 1)))
        os.sched_setaffinity(process, {cores[-1 if last else 0]})


if __name__ == "__main__":
    asyncio.run(main())
