"""Simulated voices, recognisers and a scripted language model in a process of their own.

``Services`` starts it as ``python -m benchmarks.speech_services [--log] VENDOR...``. With ``--log``
it records when each message came and left, by the clock that all processes of the machine share.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

import orjson
import pybase64
from aiohttp import web

from benchmarks.provider import pin
from duologue.json_types import JsonObject
from duologue.simulators._channel import EventChannel
from duologue.simulators._speech.service import SpeechSimulator
from duologue.simulators._speech.sessions import SpeechSession
from duologue.simulators.cartesia.server import CartesiaSimulator
from duologue.simulators.deepgram.server import DeepgramSimulator
from duologue.simulators.elevenlabs.server import ElevenLabsSimulator

SIMULATORS: Mapping[str, type[SpeechSimulator]] = {
    "cartesia": CartesiaSimulator,
    "deepgram": DeepgramSimulator,
    "elevenlabs": ElevenLabsSimulator,
}
TRANSCRIPT = "what time is it"
REPLY = "One two three, four five. Six seven eight."
TOKEN_S = 0.005
"""Seconds between two tokens of the language model."""

type Entry = tuple[float, str, str, int]
"""When a message passed, whether it is of ``stt`` or ``tts``, its kind, and its number if it is
audio of the person. Kinds begin with ``<`` if the service received it, with ``>`` if it sent it.
"""


class Log:
    """Records the messages of simulated services."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def attach(self, channel: EventChannel, session: SpeechSession) -> None:
        """Record the messages of a session from now on."""
        part = "stt" if hasattr(session, "samples") else "tts"
        add, now = self.entries.append, time.perf_counter
        receive, send, send_binary = session.receive, channel.send, channel.send_binary
        add((now(), part, "connection", 0))

        def log_receive(data: str | bytes) -> None:
            at = now()
            add((at, part, *_kind_of(session, data)))
            receive(data)

        def log_send(kind: str, text: str) -> None:
            add((now(), part, f">{kind}", 0))
            send(kind, text)

        def log_binary(kind: str, data: bytes) -> None:
            add((now(), part, f">{kind}", 0))
            send_binary(kind, data)

        session.receive = log_receive  # type: ignore[method-assign]
        channel.send = log_send  # type: ignore[method-assign]
        channel.send_binary = log_binary  # type: ignore[method-assign]


def _kind_of(session: SpeechSession, data: str | bytes) -> tuple[str, int]:
    """Return what a client's message is: ``<text`` with words, ``<audio`` with its first sample."""
    if isinstance(data, bytes):
        return "<audio", int.from_bytes(data[:2], "little", signed=True)
    event: JsonObject = orjson.loads(data)
    audio = event.get("audio_base_64")
    if isinstance(audio, str) and audio:
        return "<audio", int.from_bytes(pybase64.b64decode(audio)[:2], "little", signed=True)
    words = event.get("transcript") or event.get("text")
    has_words = isinstance(words, str) and bool(words.strip())
    return ("<text" if has_words else f"<{session.kind_of(event)}"), 0


def logged(kind: type[SpeechSimulator], log: Log) -> type[SpeechSimulator]:
    """Return a simulator that records its messages."""

    def attach(self: SpeechSimulator, channel: EventChannel, session: SpeechSession) -> None:
        kind.attach(self, channel, session)
        log.attach(channel, session)

    return type(kind.__name__, (kind,), {"attach": attach})


async def chat(request: web.Request) -> web.StreamResponse:
    """Stream the scripted reply as the Chat Completions API does."""
    await request.read()
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    with suppress(ConnectionError):  # The client may end in the middle.
        for word in REPLY.split(" "):
            chunk = {"choices": [{"index": 0, "delta": {"content": f"{word} "}}]}
            await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
            await asyncio.sleep(TOKEN_S)
        await response.write(b"data: [DONE]\n\n")
    return response


async def serve(vendors: list[str], *, with_log: bool) -> None:
    """Run until standard input ends; answer each line on it with the log."""
    log = Log()
    gc.disable()  # A pause here would look like one of the client's.
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with AsyncExitStack() as stack:
        addresses = {}
        for name in vendors:
            simulator = logged(SIMULATORS[name], log) if with_log else SIMULATORS[name]
            service = await stack.enter_async_context(simulator(transcripts=[TRANSCRIPT]))
            addresses[name] = [service.url, service.key]
        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        addresses["chat"] = [f"http://127.0.0.1:{runner.addresses[0][1]}/v1", "k"]
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        while await reader.readline():
            sys.stdout.write(json.dumps(log.entries) + "\n")
            sys.stdout.flush()


class Services:
    """The process, on the last core if the system allows that; a context manager.

    Attributes:
        addresses: Address and key of each vendor; ``chat`` is the language model.
    """

    def __init__(self, *vendors: str, log: bool = False) -> None:
        self._arguments = [*(["--log"] if log else []), *vendors]
        self.addresses: dict[str, list[str]] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speech_services", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        pin(self._process.pid, last=True)
        pin(0, last=False)
        assert self._process.stdout is not None
        self.addresses = json.loads(self._process.stdout.readline())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def report(self) -> list[Entry]:
        """Return the log."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [tuple(entry) for entry in json.loads(self._process.stdout.readline())]


if __name__ == "__main__":
    names = sys.argv[1:]
    asyncio.run(serve([name for name in names if name != "--log"], with_log="--log" in names))
