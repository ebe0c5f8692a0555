"""The browser edge: echo through Agent and ScriptedRealtime, native callers, two processes.

``python -m benchmarks.rtc_echo`` measures its figures; with ``--sessions`` it makes one run with
that many, with ``--bare`` without an agent, with ``--loss 0.02`` over a bad network. The server has
the first core to itself, if the system allows that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import cast

import numpy as np

from benchmarks.clients import realtime, talker
from benchmarks.figures import Figure, give, percentile
from duologue._running import EventLoop, run_in_loop
from duologue.audio import AudioFrame
from duologue.clock import LoopClock
from duologue.edges.webrtc import CallEdge
from duologue.json_types import Json
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import Command, SendAudio
from duologue.testing import ScriptedRealtime
from duologue.testing.caller import Caller
from duologue.testing.network import BadNetwork
from duologue.ticker import ticker_for
from duologue.video import VideoFrame

RATE = 24000
SIZE = RATE // 50
LATE_S = 0.02
"""Seconds after which a late tick is audible: the next frame is due then."""


class SocketSignalling:
    """Signalling as lines of JSON over TCP on loopback."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> Mapping[str, Json] | None:
        line = await self._reader.readline()
        return cast("Mapping[str, Json]", json.loads(line)) if line else None

    async def send(self, message: Mapping[str, Json]) -> None:
        with suppress(ConnectionError):
            self._writer.write(json.dumps(message).encode() + b"\n")
            await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


class Echo:
    """Plays the newest received frame at the next tick, as an agent that never waits would."""

    is_idle = True
    wants_video = False

    def __init__(self, edge: CallEdge) -> None:
        self.edge = edge
        self._newest: AudioFrame | None = None

    def push_audio(self, frame: AudioFrame) -> None:
        self._newest = frame

    def push_video(self, frame: Callable[[], VideoFrame]) -> None:
        pass

    def push_text(self, text: str) -> None:
        pass

    def report_played(self, samples: int) -> None:
        pass

    def connection_lost(self) -> None:
        pass

    def connection_restored(self) -> None:
        pass

    async def wait_until_listening(self) -> None:
        pass

    def tick(self, _: float) -> None:
        frame, self._newest = self._newest, None
        self.edge.play(frame if frame is not None and len(frame) == SIZE else None)


class _Loud:
    """A connection that does not forward silence.

    An echo of audio without a pause never catches up after a late packet, as a person and a model
    do in every pause: it would measure the worst moment so far, again and again.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.run = connection.run

    def transmit(self, command: Command) -> None:
        if not isinstance(command, SendAudio) or np.abs(command.frame.samples).max() > 300:
            self._connection.transmit(command)


class _Model(ScriptedRealtime):
    def open(self, setup: SessionSetup) -> Connection:
        return _Loud(super().open(setup))


async def answer_bare(signalling: SocketSignalling) -> None:
    """Answer a call with only an echo behind the edge."""
    edge = CallEdge(signalling, loopback=True, rate=RATE)
    echo = Echo(edge)
    subscriptions = []
    try:
        await edge.run(
            echo, lambda: subscriptions.append(ticker_for(LoopClock()).subscribe(echo.tick))
        )
    finally:
        for subscription in subscriptions:
            subscription.cancel()


class Lateness:
    """Counts the 20 ms ticks of all sessions, and those that came over 20 ms late.

    One probe is subscribed after each session's own place in a tick. Skipped ticks count as late.
    """

    def __init__(self) -> None:
        self.ticks = self.late = 0

    def tick(self, when: float) -> None:
        self.ticks += 1
        self.late += asyncio.get_running_loop().time() - when > LATE_S

    def counts(self) -> tuple[int, int]:
        ticker = ticker_for(LoopClock())
        lost = ticker.skipped * len(ticker) // 2  # half of its subscribers are probes
        return self.ticks + lost, self.late + lost


async def answer(
    signalling: SocketSignalling, provider: tuple[str, str] | None, lateness: Lateness
) -> None:
    """Answer a call with an agent whose model, or the given provider, echoes loud audio."""
    edge = CallEdge(signalling, loopback=True, rate=RATE)
    model = _Model(echo=True) if provider is None else realtime(*provider)
    async with talker(edge, model).join() as agent:
        probe = ticker_for(LoopClock()).subscribe(lateness.tick)
        try:
            await agent.finish()
        finally:
            probe.cancel()


async def serve(bare: bool, provider: tuple[str, str] | None) -> None:
    """Answer calls until the control connection ends; answer each line on it with the CPU time."""
    over = asyncio.Event()
    lateness = Lateness()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        signalling = SocketSignalling(reader, writer)
        if await reader.readexactly(1) == b"c":
            while await reader.readline():
                ticks, late = lateness.counts()
                now = {"cpu": time.process_time(), "t": time.perf_counter()}
                await signalling.send({**now, "ticks": ticks, "late": late})
            over.set()
            return
        try:
            await (answer_bare(signalling) if bare else answer(signalling, provider, lateness))
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await over.wait()
    server.close()


class Load:
    """A caller: speech-like noise all the time, and clicks that are timed on one of them."""

    def __init__(self, clicks: bool, seed: int) -> None:
        self.clicks = clicks
        self.frames = 0
        self.heard = 0
        self.trips: list[tuple[float, float]] = []
        self._sent_at = 0.0
        self._hot = False
        noise = np.random.default_rng(seed).normal(size=RATE * 2).cumsum()
        noise -= np.linspace(noise[0], noise[-1], len(noise))
        noise *= 200 if clicks else 6000 / np.abs(noise).max()
        self._sound = np.zeros(RATE * 2) if clicks else noise
        self._click = (12000 * np.sin(np.arange(SIZE) * 0.3)).astype(np.int16)
        self.caller: Caller | None = None

    def tick(self, _: float) -> None:
        assert self.caller is not None
        self.frames += 1
        if self.clicks and self.frames % 25 == 0:
            samples = self._click
            self._sent_at = time.perf_counter()
        else:
            at = self.frames % 100 * SIZE
            samples = self._sound[at : at + SIZE].astype(np.int16)
        self.caller.send(AudioFrame(samples, RATE))
        if self.frames % 10 == 0:
            self.caller.report_played()

    def hear(self, frame: AudioFrame) -> None:
        self.heard += len(frame)
        if not self.clicks:
            return
        loud = bool(np.abs(frame.samples).max() > 3000)
        if loud and not self._hot and self._sent_at:
            now = time.perf_counter()
            self.trips.append((now, (now - self._sent_at) * 1000))
        self._hot = loud


async def drive(port: int, sessions: int, seconds: float, loss: float) -> dict[str, object]:
    """Call, wait 3 s, measure for ``seconds``."""
    control = SocketSignalling(*await asyncio.open_connection("127.0.0.1", port))
    control._writer.write(b"c")

    async def used() -> dict[str, float]:
        await control.send({})
        answer = await control.receive()
        assert answer is not None
        return {name: float(cast("float", value)) for name, value in answer.items()}

    async with AsyncExitStack() as stack:
        loads = []
        connects = []
        networks = []
        for i in range(sessions):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"s")
            network = None
            if loss:
                network = await stack.enter_async_context(BadNetwork(loss=loss, seed=i))
                networks.append(network)
            load = Load(i % 5 == 0 or sessions <= 5, i)
            start = time.perf_counter()
            load.caller = await stack.enter_async_context(
                Caller(
                    SocketSignalling(reader, writer),
                    on_audio=load.hear,
                    rate=RATE,
                    reroute=network.reroute if network else None,
                )
            )
            connects.append((time.perf_counter() - start) * 1000)
            stack.callback(writer.close)
            loads.append(load)
            # Spread over the 20 ms, as real callers are.
            await asyncio.sleep(0.001)
        subscriptions = []
        clock = LoopClock()
        for i, load in enumerate(loads):
            ticker = ticker_for(clock) if sessions == 1 else _Spread(i * 0.02 / sessions)
            subscriptions.append(ticker.subscribe(load.tick))
        await asyncio.sleep(3)
        begin = time.perf_counter()
        before = [load.heard for load in loads]
        first = await used()
        await asyncio.sleep(seconds)
        last = await used()
        spent = {name: last[name] - first[name] for name in first}
        after = [load.heard for load in loads]
        for subscription in subscriptions:
            subscription.cancel()
        timed = sorted(trip for load in loads for trip in load.trips if trip[0] >= begin)
        trips = [ms for _, ms in timed]
        third = len(trips) // 3 or 1
        fps = [(b - a) / SIZE / spent["t"] for a, b in zip(before, after, strict=True)]
        return {
            "sessions": sessions,
            "loss": loss,
            "connect_ms": round(statistics.median(connects), 1),
            "round_trip_ms": [round(percentile(trips, q), 2) for q in (50, 90, 99)],
            "first_third_ms": round(statistics.median(trips[:third]), 2),
            "last_third_ms": round(statistics.median(trips[-third:]), 2),
            "frames_per_s": [round(min(fps), 2), round(max(fps), 2)],
            "cpu_per_session": round(spent["cpu"] / spent["t"] * 100 / sessions, 2),
            "late_percent": round(spent["late"] / max(spent["ticks"], 1) * 100, 3),
            "lost": sum(load.caller.peer.counters["lost"] for load in loads if load.caller),
        }


class _Spread:
    """A clock for one caller, shifted by ``offset`` s."""

    def __init__(self, offset: float) -> None:
        self._offset = offset
        self._timer: asyncio.TimerHandle | None = None

    def subscribe(self, callback: Callable[[float], None]) -> _Spread:
        loop = asyncio.get_running_loop()
        when = loop.time() + 0.05 + self._offset

        def run() -> None:
            nonlocal when
            callback(when)
            when += 0.02
            self._timer = loop.call_at(when, run)

        self._timer = loop.call_at(when, run)
        return self

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def run(
    sessions: int,
    seconds: float,
    loss: float = 0.0,
    bare: bool = False,
    provider: tuple[str, str] | None = None,
    loop: EventLoop = "asyncio",
) -> dict[str, object]:
    """Make one run, with the server in its own process, on core 0 if the system allows that.

    ``provider`` is name and address of an echo provider, ``loop`` the server's event loop.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    command = [sys.executable, "-m", "benchmarks.rtc_echo", "--serve", *(["--bare"] * bare)]
    command += ["--loop", loop]
    if provider:
        command += ["--provider", "=".join(provider)]
    if len(cores) > 1:
        command += ["--core", str(cores[0])]
        os.sched_setaffinity(0, cores[1:])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        try:
            return asyncio.run(drive(port, sessions, seconds, loss))
        finally:
            server.terminate()
            if cores:
                os.sched_setaffinity(0, cores)


def figures() -> list[Figure]:
    """Measure the three figures of the browser edge."""
    few, many, lossy = run(5, 15), run(25, 20), run(5, 60, 0.02)
    trip = max(cast("list[float]", r["round_trip_ms"])[0] for r in (few, many))
    cpu = cast("float", many["cpu_per_session"])
    begin, end = cast("float", lossy["first_third_ms"]), cast("float", lossy["last_third_ms"])
    rate = cast("list[float]", lossy["frames_per_s"])[0]
    return [
        Figure(
            "browser edge alone: round trip, median of 5 and of 25 sessions, the slower",
            "<= 25 ms",
            f"{trip:.1f} ms",
            trip <= 25,
            "through Agent and a scripted echo; up to 20 ms are the output clock's",
        ),
        Figure(
            "browser edge alone: CPU of one session of 25",
            "<= 2.5 % of a core",
            f"{cpu:.2f} %",
            cpu <= 2.5,
            "of it 0.7 % Opus",
        ),
        Figure(
            "the same with 2 % packets lost: round trip in the first and last 20 of 60 s, frames/s",
            "no growth, 50/s",
            f"{begin:.1f} and {end:.1f} ms, {rate:.1f}/s",
            end - begin < 10 and rate > 49.5,
            f"{lossy['lost']} packets lost on the way back, each filled",
        ),
    ]


def main() -> None:
    """Start the server in its own process and drive it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--loss", type=float, default=0.0)
    parser.add_argument("--bare", action="store_true", help="no agent behind the edge")
    parser.add_argument("--provider", help="NAME=URL of a provider that echoes")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    provider = None
    if options.provider:
        name, _, url = options.provider.partition("=")
        provider = name, url
    if options.serve:
        if options.core is not None:
            os.sched_setaffinity(0, {options.core})
        run_in_loop(serve(options.bare, provider), options.loop)
    elif options.sessions:
        measured = run(
            options.sessions, options.seconds, options.loss, options.bare, provider, options.loop
        )
        print(json.dumps(measured))
    else:
        give(figures())


if __name__ == "__main__":
    main()
