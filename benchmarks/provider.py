"""A minimal provider in its own process, which sends all audio straight back.

``Provider`` starts it as ``python -m benchmarks.provider NAME [CA_FILE]``. It records when each
numbered frame came and left, and each numbered image, with the clock that all processes of the
machine share. With a name for the file of a certificate authority, it serves TLS by a certificate
of that.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import orjson
import pybase64
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from benchmarks.baseline_client import number_of
from benchmarks.bedrock import BareStream, StreamConnection
from benchmarks.camera import image_number
from benchmarks.echo_log import EchoLog
from benchmarks.turns import Turns
from benchmarks.wire_formats import DIALECTS, Dialect
from duologue.simulators._test_ca import TemporaryCA

NOVA = "nova"
"""The provider that does not use a WebSocket."""
LOUD = "/loud"
"""Sessions with this path are not sent silence."""
TURNS = "/turns"
"""Sessions with this path get turns, transcripts and replies instead of an echo."""
UNTOLD = "/untold"
"""The same without transcripts."""


class SocketConnection(asyncio.Protocol):
    """One session, whose endless reply echoes the input.

    A frame has arrived when its bytes have; the processing after that is not counted.
    """

    def __init__(self, log: EchoLog, dialect: Dialect) -> None:
        self._log = log
        self._dialect = dialect
        self._web = ServerProtocol(max_size=None)
        self._say = self._web.send_binary if dialect.binary else self._web.send_text
        self._only_loud = False
        self._turns: Turns | None = None

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
                    first = self._dialect.begin()
                    if event.path.startswith((TURNS, UNTOLD)):
                        self._turns = Turns(transcripts=event.path.startswith(TURNS))
                        first = first[:-1]  # an echo is one endless reply: none is begun here
                    for message in first:
                        self._say(message)
                case Frame(opcode=Opcode.TEXT) if self._web.state is OPEN:
                    self._take(bytes(event.data), at)
        self._flush()

    def eof_received(self) -> None:
        self._web.receive_eof()
        self._flush()

    def _take(self, message: bytes, at: float) -> None:
        dialect = self._dialect
        event = orjson.loads(message)
        audio = dialect.input_audio(event)
        if audio is None:
            for message in dialect.answer(event):
                self._say(message)
            image = dialect.image(event)
            if image is not None:
                number = image_number(pybase64.b64decode(image))
                self._log.images.append((number, at))
            return
        if self._turns is not None:
            for message in self._turns.hear(loud=not is_quiet(audio)):
                self._say(message)
            return
        if self._only_loud and is_quiet(audio):
            return
        answer = dialect.speak(dialect.echo(audio))
        number = number_of(pybase64.b64decode(audio[:4]))
        if number:
            self._log.arrived.setdefault(number, at)
            self._log.left.setdefault(number, time.perf_counter())
        self._say(answer)

    def _flush(self) -> None:
        for data in self._web.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._transport.close()


def is_quiet(audio: str) -> bool:
    """Silence, or the noise that a codec makes of it."""
    return int(np.abs(np.frombuffer(pybase64.b64decode(audio), "<i2")).max(initial=0)) <= 300


def connection_factory(name: str, log: EchoLog) -> Callable[[], asyncio.Protocol]:
    """Return what makes the sessions of that provider."""
    if name == NOVA:
        return lambda: StreamConnection(log)
    return lambda: SocketConnection(log, DIALECTS[name]())


async def main(name: str, ca_file: str = "") -> None:
    """Serve until standard input ends; answer each line on it with the log."""
    context = None
    if ca_file:
        authority = TemporaryCA()
        context = authority.server_context()
        Path(ca_file).write_bytes(authority.pem)
    gc.disable()  # a pause here would look like one of the client's
    log = EchoLog()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    server = await loop.create_server(connection_factory(name, log), "127.0.0.1", 0, ssl=context)
    async with server:
        port = next(iter(server.sockets)).getsockname()[1]
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        while await reader.readline():
            sys.stdout.write(log.to_json() + "\n")
            sys.stdout.flush()
            log.clear()


class Provider:
    """The provider's process, on the last core if the system allows that; a context manager.

    With ``pinned`` this process stays on the first core.
    """

    def __init__(self, name: str, *, pinned: bool = True, tls: bool = False) -> None:
        self.name = name
        self.tls = tls
        self._pinned = pinned

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory()
        self.ca_file = str(Path(self._folder.name) / "ca.pem") if self.tls else ""
        """What a client has to trust; nothing without TLS."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.provider", self.name, self.ca_file],
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
        self._folder.cleanup()

    @property
    def rate(self) -> int:
        """Sample rate of the client's audio in Hz."""
        return BareStream.rate if self.name == NOVA else DIALECTS[self.name].rate

    @property
    def url(self) -> str:
        """The address for a client."""
        return f"http{'s' * self.tls}://127.0.0.1:{self.port}"

    @property
    def loud_url(self) -> str:
        """The address for a client that is not sent silence."""
        return self.url + LOUD

    def report(self) -> EchoLog:
        """Return the log since the last report."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return EchoLog.read(self._process.stdout.readline())


def pin(process: int, *, last: bool) -> None:
    """Keep a process on the first or the last core, if the system allows that."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0) | set(range(os.cpu_count() or 1)))
        os.sched_setaffinity(process, {cores[-1 if last else 0]})


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
