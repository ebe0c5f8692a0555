"""A provider as thin as can be, in a process of its own: it sends all sound straight back.

``Provider`` starts it; ``python -m benchmarks.provider`` is it. It notes when each numbered frame
came and left by the clock that all processes of the machine share. Its events are as long as the
service's, each with an id of its own: to know those costs a client time and memory.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from itertools import count
from types import TracebackType
from typing import Self

import numpy as np
import orjson
import pybase64
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

SESSION = {"type": "realtime", "id": "sess_1", "model": "bench", "audio": {"input": {}}}
REPLY = "resp_CLzqZ8dTLYkQyQLUeaIuW"
HEAD = (
    b'{"type":"response.output_audio.delta","event_id":"event_%021d","response_id":"'
    + REPLY.encode()
    + b'","item_id":"item_CLzqZ5X9IwIfXzsC0vBwm","output_index":0,"content_index":0,"delta":"'
)
LOUD = "/loud/v1"
"""Sessions behind this path are not sent back silence."""


class Noted:
    """When each numbered frame came, and when it left again."""

    def __init__(self) -> None:
        self.came: dict[int, float] = {}
        self.left: dict[int, float] = {}


class Line(asyncio.Protocol):
    """One session: an endless reply that is what was heard.

    A frame has come when its bytes are there: what this side then does with it is not counted.
    """

    def __init__(self, noted: Noted) -> None:
        self._noted = noted
        self._web = ServerProtocol(max_size=None)
        self._numbers = count()
        self._only_loud = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        at = time.perf_counter()
        self._web.receive_data(data)
        for event in self._web.events_received():
            match event:
                case Request():
                    self._only_loud = event.path.startswith(LOUD)
                    self._web.send_response(self._web.accept(event))
                    self._begin()
                case Frame(opcode=Opcode.TEXT):
                    self._take(bytes(event.data), at)
        self._flush()

    def eof_received(self) -> None:
        self._web.receive_eof()
        self._flush()

    def _begin(self) -> None:
        response = {"id": REPLY, "status": "in_progress"}
        for event in (
            {"type": "session.created", "session": SESSION},
            {"type": "session.updated", "session": SESSION},
            {"type": "response.created", "response": response},
        ):
            event["event_id"] = f"event_{next(self._numbers):021d}"
            self._web.send_text(orjson.dumps(event))

    def _take(self, message: bytes, at: float) -> None:
        event = orjson.loads(message)
        if event["type"] != "input_audio_buffer.append":
            return
        audio = event["audio"]
        if self._only_loud and is_quiet(audio):
            return
        answer = b"".join((HEAD % next(self._numbers), audio.encode(), b'"}'))
        number = int.from_bytes(pybase64.b64decode(audio[:4])[:2], "little", signed=True)
        if number:
            self._noted.came.setdefault(number, at)
            self._noted.left.setdefault(number, time.perf_counter())
        self._web.send_text(answer)

    def _flush(self) -> None:
        for data in self._web.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()


def is_quiet(audio: str) -> bool:
    """It is silence, or the noise that a codec made of it."""
    return int(np.abs(np.frombuffer(pybase64.b64decode(audio), "<i2")).max(initial=0)) <= 300


async def main() -> None:
    """Serve till standard input ends; answer each line on it with what was noted."""
    noted = Noted()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    server = await loop.create_server(lambda: Line(noted), "127.0.0.1", 0)
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

    @property
    def socket_url(self) -> str:
        """Where its WebSocket is."""
        return f"ws://127.0.0.1:{self.port}/v1/realtime"

    @property
    def loud_url(self) -> str:
        """The ``base_url`` for a client that is not to be sent silence back."""
        return f"http://127.0.0.1:{self.port}{LOUD}"

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
