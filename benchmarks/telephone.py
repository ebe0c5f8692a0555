"""Calls by media streams: ``python -m benchmarks.telephone``.

The server is the one of `duologue.hosting.create_app`, in a process and on a core of its own, with
the webhook and the socket of Twilio, and an agent for each call whose scripted model echoes loud
audio. The callers are bytes on sockets, in another process: they sign, send 20 ms of mu-law each
20 ms, and return marks when what came before would have been played.

- *latency*: of one call, from the carrier's write to the model, and from the model to the carrier's
  read; both processes read the same clock.
- *calls*: the most of which nine in ten round trips take at most a tick and the edge's buffer.
- *heard*: 200 interruptions with each carrier, in virtual time, against what was really played.
- *memory*: of one call of many, beyond that of the first ten.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import os
import socket
import subprocess
import sys
import time
from bisect import bisect
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import numpy as np
from starlette.applications import Starlette

from benchmarks.clients import talker
from benchmarks.figures import Figure, give, median, percentile, rss_mb
from duologue import _g711
from duologue._running import EventLoop, run_in_loop
from duologue.agent.agent import Agent
from duologue.clock import LoopClock
from duologue.edges import telephone
from duologue.events import InterruptionEvent
from duologue.hosting import create_app
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import Command, SendAudio
from duologue.realtime.outputs import Output, ReplyAudio
from duologue.server import ServerConfig, serve_app
from duologue.simulators.telephone._signing import sign_twilio
from duologue.simulators.telephone.caller import LineFaults, PhoneCaller
from duologue.testing import (
    PlivoCaller,
    ScriptedRealtime,
    TelnyxCaller,
    TelnyxKey,
    TwilioCaller,
    VonageCaller,
    run_virtual,
)
from duologue.testing.scripted import SCRIPTED_CAPABILITIES
from duologue.ticker import ticker_for

TOKEN = "0123456789abcdef0123456789abcdef"  # noqa: S105 - of a simulated carrier
FRAME = 160
LIMIT_MS = 40.0
"""A tick of the output clock, and the 20 ms that the edge buffers ahead."""
STEP = 10
MIN_RATE = 49.0
HEARD = 300
"""Peak of what is echoed."""
LOUD = 3000
"""Peak of a click."""


class _Log:
    """When frames passed two places of one session."""

    def __init__(self) -> None:
        self.reached: list[float] = []
        self.left: list[float] = []


class _Loud:
    """A connection that echoes loud audio only, so that every pause catches up."""

    def __init__(self, connection: Connection, log: _Log | None) -> None:
        self._connection = connection
        self._log = log

    async def run(self, receive: Callable[[Output], None]) -> None:
        log = self._log
        if log is None:
            await self._connection.run(receive)
            return

        def record(output: Output) -> None:
            if isinstance(output, ReplyAudio):
                log.left.append(time.perf_counter())
            receive(output)

        await self._connection.run(record)

    def transmit(self, command: Command) -> None:
        if isinstance(command, SendAudio):
            if command.frame.samples.max() < HEARD:
                return
            if self._log is not None:
                self._log.reached.append(time.perf_counter())
        self._connection.transmit(command)


class _Model(ScriptedRealtime):
    """Takes the line's own rate, as a model of G.711 does."""

    log: _Log | None = None

    def __init__(self) -> None:

        super().__init__(
            echo=True,
            capabilities=replace(SCRIPTED_CAPABILITIES, input_rate=8000, output_rate=8000),
        )

    def open(self, setup: SessionSetup) -> Connection:
        return _Loud(super().open(setup), self.log)


class _Lateness:
    """Counts the 20 ms ticks that came over 20 ms late."""

    def __init__(self) -> None:
        self.ticks = self.late = 0

    def tick(self, when: float) -> None:
        self.ticks += 1
        self.late += asyncio.get_running_loop().time() - when > 0.02


async def serve(port: int, calls: int) -> None:
    """Serve calls until the input ends; answer each line of it with the counters."""
    url = f"http://127.0.0.1:{port}"
    log, lateness, models = _Log(), _Lateness(), 0

    def make_agent(edge: telephone.MediaStream) -> Agent:
        nonlocal models
        models += 1
        model = _Model()
        if models == 1:
            model.log = log
        return talker(edge, model)

    config = ServerConfig(port=port, public_url=url, max_sessions=calls, max_tick_delay_ms=None)
    carrier = telephone.Twilio(url, auth_token=TOKEN)
    app = create_app(make_agent, config, telephone=[carrier])
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(serve_app(app, config))
        ticks = ticker_for(LoopClock()).subscribe(lateness.tick)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while await reader.readline():
            if models == 0:
                gc.collect()
            found = {
                "cpu": time.process_time(),
                "t": time.perf_counter(),
                "ticks": lateness.ticks + ticker_for(LoopClock()).skipped,
                "late": lateness.late + ticker_for(LoopClock()).skipped,
                "rss": rss_mb(),
                "reached": log.reached,
                "left": log.left,
            }
            sys.stdout.write("STATS " + json.dumps(found) + "\n")
            sys.stdout.flush()
            log.reached, log.left = [], []
        ticks.cancel()
        serving.cancel()


class Line(asyncio.Protocol):
    """One call as the carrier's end of a socket sees it."""

    def __init__(self, number: int, loud: bool, clicks: bool) -> None:
        self.number = number
        self.frames = 0
        self.heard = 0
        self.trips: list[float] = []
        self.sent: list[float] = []
        self.read: list[float] = []
        self.open = asyncio.Event()
        self._clicks = clicks
        self._sent_at = 0.0
        self._data = b""
        self._upgraded = False
        self._until = 0.0
        self._loud = loud
        noise = np.random.default_rng(number).normal(size=8000 * 2) * (60 if clicks else 1500)
        data = _g711.encode(noise.astype(np.int16), "mulaw")
        self._sound = [_base64(data[at : at + FRAME]) for at in range(0, len(data), FRAME)]
        self._click = _base64(
            _g711.encode((12000 * np.sin(np.arange(FRAME) * 0.9)).astype(np.int16), "mulaw")
        )

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open.set()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        data = self._data + data
        at = 0
        if not self._upgraded:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._data = data
                return
            assert b" 101 " in data[:20], data[:200]
            self._upgraded = True
            self.open.set()
            at = end + 4
        while len(data) - at >= 4:
            length, head = data[at + 1], 2
            if length == 126:
                length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            end = at + head + length
            if end > len(data):
                break
            if data[at] == 0x81:
                self._message(data[at + head : end], now)
            elif data[at] == 0x89:
                self._frame(b"\x8a", data[at + head : end])
            at = end
        self._data = data[at:]

    def _message(self, text: bytes, now: float) -> None:
        if text.startswith(b'{"event":"media"'):
            self.heard += 1
            self._until = max(self._until, now) + 0.02
            self.read.append(now)
            if self._clicks:
                start = text.index(b'"payload":"') + 11
                samples = _g711.decode(base64.b64decode(text[start : start + 216]), "mulaw")
                if self._sent_at and samples.max() > LOUD:
                    self.trips.append((now - self._sent_at) * 1000)
                    self._sent_at = 0.0
        elif b'"mark"' in text:
            name = json.loads(text)["mark"]["name"]
            mark = json.dumps({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}})
            asyncio.get_running_loop().call_later(max(0.0, self._until - now), self.send, mark)

    def send(self, text: str) -> None:
        self._frame(b"\x81", text.encode())

    def _frame(self, kind: bytes, data: bytes) -> None:
        size = len(data)
        length = bytes([size | 0x80]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        # A mask of zeros is a mask: the server takes it off as any other.
        self.transport.write(kind + length + b"\0\0\0\0" + data)

    def tick(self) -> None:
        self.frames += 1
        payload = self._sound[self.frames % len(self._sound)]
        if self._clicks and self.frames % 25 == 0:
            payload = self._click
            self._sent_at = time.perf_counter()
        elif self._loud:
            payload = self._click
        self.send(
            f'{{"event":"media","sequenceNumber":"{self.frames + 1}","media":{{"track":"inbound",'
            f'"chunk":"{self.frames}","timestamp":"{(self.frames - 1) * 20}",'
            f'"payload":"{payload}"}},"streamSid":"MZ1"}}'
        )
        self.sent.append(time.perf_counter())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def call(port: int, line: Line) -> None:
    """Announce a call by the webhook, and open its stream."""
    url = f"http://127.0.0.1:{port}/telephone/twilio"
    form = {"CallSid": f"CA{line.number}", "From": "+1", "To": "+2", "CallStatus": "ringing"}
    body = urlencode(form)
    head = "".join(f"{k}: {v}\r\n" for k, v in sign_twilio(TOKEN, url, form).items())
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST /telephone/twilio HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n"
        f"content-type: application/x-www-form-urlencoded\r\n{head}"
        f"content-length: {len(body)}\r\n\r\n{body}".encode()
    )
    answer = (await reader.read()).decode()
    writer.close()
    token = answer.split('<Parameter name="duologue" value="')[1].split('"')[0]
    stream = url.replace("http", "ws") + "/media"
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: line, "127.0.0.1", port)
    head = "".join(f"{k}: {v}\r\n" for k, v in sign_twilio(TOKEN, stream, {}).items())
    transport.write(
        f"GET /telephone/twilio/media HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nupgrade: websocket\r\n"
        f"connection: upgrade\r\nsec-websocket-version: 13\r\n{head}"
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    await line.open.wait()
    start = {
        "streamSid": "MZ1",
        "callSid": f"CA{line.number}",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"duologue": token},
    }
    line.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
    line.send(json.dumps({"event": "start", "streamSid": "MZ1", "start": start}))


def keep_time(line: Line, offset: float) -> Callable[[], None]:
    """Let a line send each 20 ms from now on; return what stops it."""
    loop = asyncio.get_running_loop()
    when = loop.time() + 0.05 + offset
    timer: asyncio.TimerHandle

    def run() -> None:
        nonlocal when, timer
        line.tick()
        when += 0.02
        timer = loop.call_at(when, run)

    timer = loop.call_at(when, run)
    return lambda: timer.cancel()


class Server:
    """The server's process."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self.port = port

    def stats(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("STATS "):
                return dict(json.loads(line[6:]))
        raise SystemExit("the server has ended")


@contextmanager
def served(calls: int, loop: EventLoop) -> Iterator[Server]:
    """Run the server on the first core, and this process on the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    command = [sys.executable, "-m", "benchmarks.telephone", "--serve", str(port)]
    command += ["--calls", str(calls), "--loop", loop]
    if len(cores) > 1:
        command += ["--core", str(cores[0])]
        os.sched_setaffinity(0, cores[1:])
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            for _ in range(200):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.05)
            yield Server(process, port)
        finally:
            process.terminate()
            if cores:
                os.sched_setaffinity(0, cores)


async def drive(server: Server, calls: int, seconds: float, *, loud: bool) -> dict[str, Any]:
    """Make calls, wait 3 s, and measure for ``seconds``."""
    async with AsyncExitStack() as stack:
        lines = []
        for number in range(calls):
            line = Line(number, loud, clicks=not loud and number % 5 == 0)
            await call(server.port, line)
            stack.callback(line.transport.close)
            stack.callback(keep_time(line, number * 0.02 / calls))
            lines.append(line)
        await asyncio.sleep(3)
        first = await asyncio.to_thread(server.stats)
        before = [(line.heard, len(line.trips)) for line in lines]
        sent, read = len(lines[0].sent), len(lines[0].read)
        await asyncio.sleep(seconds)
        last = await asyncio.to_thread(server.stats)
        took = last["t"] - first["t"]
        trips = [t for line, b in zip(lines, before, strict=True) for t in line.trips[b[1] :]]
        rates = [
            (line.heard - b[0]) / took
            for line, b in zip(lines, before, strict=True)
            if not line._clicks
        ]
        return {
            "calls": calls,
            "p50_ms": round(percentile(trips, 50), 1) if trips else 0.0,
            "p90_ms": round(percentile(trips, 90), 1) if trips else 0.0,
            "rate": round(min(rates), 1) if rates else 0.0,
            "cpu": round((last["cpu"] - first["cpu"]) / took / calls * 100, 3),
            "late": round(
                (last["late"] - first["late"]) / (last["ticks"] - first["ticks"]) * 100, 2
            ),
            "rss": last["rss"],
            "up": _next(lines[0].sent[sent:], last["reached"]),
            "down": _next(last["left"], lines[0].read[read:]),
        }


def _next(begun: list[float], ended: list[float]) -> list[float]:
    """Return how long after each moment the next of the others is: frames are 20 ms apart."""
    found = ((at, bisect(ended, at)) for at in begun)
    return [ended[index] - at for at, index in found if index < len(ended)]


def run(calls: int, seconds: float, loop: EventLoop, *, loud: bool = False) -> dict[str, Any]:
    """Make one run with a server of its own."""
    with served(calls + 1, loop) as server:
        return asyncio.run(drive(server, calls, seconds, loud=loud))


def latency() -> list[Figure]:
    """Measure what one call's audio takes each way."""
    found = run(1, 20, "asyncio", loud=True)
    figures = []
    for name, values in (
        ("audio in to the model", found["up"]),
        ("model to socket", found["down"]),
    ):
        middle, worst = median(values) * 1000, percentile(values, 99) * 1000
        figures.append(
            Figure(
                f"media stream: {name}, added, median / p99",
                "<= 0.5 / 3 ms",
                f"{middle:.2f} / {worst:.2f} ms",
                middle <= 0.5 and worst <= 3,
                f"{len(values)} frames of one call of Twilio; between the two processes, so two "
                "ways through the kernel are in it",
            )
        )
    return figures


def capacity(begin: int, seconds: float, loop: EventLoop) -> list[Figure]:
    """Find the most calls that one core carries in time."""
    runs: list[dict[str, Any]] = []

    def in_time(calls: int) -> bool:
        found = run(calls, seconds, loop)
        found = {name: value for name, value in found.items() if name not in {"up", "down"}}
        sys.stderr.write(f"{found}\n")
        runs.append(found)
        return bool(found["p90_ms"] <= LIMIT_MS and found["rate"] >= MIN_RATE)

    calls = begin
    if in_time(calls):
        while in_time(calls + STEP):
            calls += STEP
    else:
        while calls > STEP:
            calls -= STEP
            if in_time(calls):
                break
    shown = "; ".join(
        f"{r['calls']}: p90 {r['p90_ms']:.1f} ms, {r['late']:.1f} % of ticks over 20 ms late, "
        f"{r['cpu']:.2f} % CPU each"
        for r in sorted(runs, key=lambda r: int(r["calls"]))
    )
    name = "" if loop == "asyncio" else f", {loop}"
    return [
        Figure(
            "media stream: calls a core, G.711, echo through an agent, with p90 of the round trip "
            f"inside a tick and the buffer (40 ms){name}",
            ">= 80",
            str(calls),
            calls >= 80,
            f"in steps of {STEP}, both sides speak all the time; {shown}",
        )
    ]


def memory(calls: int) -> list[Figure]:
    """Measure the memory of one call, beyond that of the first ten."""

    async def measure(server: Server) -> float:
        async with AsyncExitStack() as stack:

            async def more(first: int, last: int) -> float:
                for number in range(first, last):
                    line = Line(number, False, False)
                    await call(server.port, line)
                    stack.callback(line.transport.close)
                    stack.callback(keep_time(line, number * 0.02 / calls))
                await asyncio.sleep(8)
                return float((await asyncio.to_thread(server.stats))["rss"])

            few = await more(0, 10)
            return (await more(10, calls) - few) / (calls - 10)

    with served(calls + 1, "asyncio") as server:
        each = asyncio.run(measure(server))
    return [
        Figure(
            f"media stream: memory of one call of {calls}",
            "<= 0.5 MB",
            f"{each:.3f} MB",
            each <= 0.5,
            "resident memory of the server, beyond that of ten calls; both sides speak",
        )
    ]


def phone_of(name: str) -> tuple[telephone.Carrier, Callable[[Any], PhoneCaller]]:
    """Return an account at a carrier, and a caller over it to an app."""
    url, faults = "https://talk.example.org", LineFaults(delay_ms=35)
    key = TelnyxKey()
    match name:
        case "twilio":
            return telephone.Twilio(url, auth_token=TOKEN), lambda app: TwilioCaller(
                url, auth_token=TOKEN, app=app, faults=faults
            )
        case "plivo":
            return telephone.Plivo(url, auth_token=TOKEN), lambda app: PlivoCaller(
                url, auth_token=TOKEN, app=app, faults=faults
            )
        case "vonage":
            return telephone.Vonage(url, signature_secret=TOKEN), lambda app: VonageCaller(
                url, signature_secret=TOKEN, app=app, faults=faults
            )
        case _:
            carrier = telephone.Telnyx(url, api_key=TOKEN, public_key=key.public)
            return carrier, lambda app: TelnyxCaller(url, key=key, app=app, faults=faults)


async def interrupted(name: str, rounds: int) -> tuple[float, float, float]:
    """Interrupt one call's speeches; return the most that was claimed over and under the truth."""
    carrier, make_caller = phone_of(name)
    app, agents, claims = Starlette(), [], []

    def make_agent(edge: telephone.MediaStream) -> Agent:
        agents.append(Agent(edge=edge, llm=ScriptedRealtime()))
        agents[-1].events.tap(
            lambda event: (
                claims.append(event.played_ms) if isinstance(event, InterruptionEvent) else None
            )
        )
        return agents[-1]

    telephone.mount(app, make_agent, carrier, max_calls=2)
    caller = make_caller(app)
    if isinstance(caller, TelnyxCaller):
        # Its webhook is answered by REST, which goes to the caller directly.
        url, token = (
            carrier.stream_url,
            carrier.sign(telephone.PhoneCall(carrier="telnyx", id=caller.call_id)),
        )
        caller._token = token
        await caller.connect(url, {})
    else:
        await caller.answer_webhook()
    dice = np.random.default_rng(4)
    over, under = [], []
    while not agents or agents[0]._live is None or not agents[0].llm.connected:
        await asyncio.sleep(0.01)
    for _ in range(rounds):
        base = caller.played_samples
        agents[0].say("a" * 60)
        await asyncio.sleep(float(dice.uniform(0.15, 0.7)))
        truth = (caller.played_samples - base) * 1000 / caller.rate
        agents[0].interrupt()
        over.append(claims[-1] - truth)
        under.append(truth - claims[-1])
        await asyncio.sleep(0.12)
    await caller.hang_up()
    return max(0.0, *over), max(under), median(under)


def heard(rounds: int) -> list[Figure]:
    """Measure what is claimed to have been heard, with each carrier."""
    figures = []
    for name in ("twilio", "telnyx", "plivo", "vonage"):
        over, under, middle = run_virtual(interrupted(name, rounds))
        figures.append(
            Figure(
                f"media stream, {name}: heard audio over-claimed / under-claimed, confirmed, worst",
                "0 / <= 200 ms",
                f"{over:.0f} / {under:.0f} ms",
                over <= 0 and under <= 200,
                f"{rounds} interruptions at random moments, messages take 35 ms each way; "
                f"{middle:.0f} ms too few in the median; virtual time",
            )
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=("latency", "calls", "heard", "memory", "run"))
    parser.add_argument("--begin", type=int, default=80, help="calls of the first run")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=int, default=100, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        if options.core is not None:
            os.sched_setaffinity(0, {options.core})
        run_in_loop(serve(options.serve, options.calls), options.loop)
        return
    match options.what:
        case "run":
            found = run(options.calls, options.seconds, options.loop)
            print({name: value for name, value in found.items() if name not in {"up", "down"}})
        case "latency":
            give(latency())
        case "heard":
            give(heard(200))
        case "memory":
            give(memory(60))
        case _:
            give(capacity(options.begin, options.seconds, options.loop))


if __name__ == "__main__":
    main()
