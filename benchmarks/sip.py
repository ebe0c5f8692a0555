"""Calls over SIP: echo through Agent and ScriptedRealtime, two processes on loopback.

``python -m benchmarks.sip`` measures its figures; ``--calls N`` makes one run with that many, and
``--storm`` lets SIPp call. Otherwise the callers are the SIP stack without an agent, in this
process; the server has a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import baresip
import numpy as np

from benchmarks.clients import talker
from benchmarks.figures import Figure, give, median, percentile
from benchmarks.rtc_echo import _Model
from duologue.edges import telephone
from duologue.edges._agent_calls import limiter_of
from duologue.hosting import create_app
from duologue.server import ServerConfig

RATE = 8000
CALLS = 40
STORM_CALLS = 150
SCENARIO = Path(__file__).parents[1] / "tests/data/sip/caller.xml"
RUN_S = 15.0
LOUD = 3000


def memory_mb() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def serve() -> None:
    """Take calls; answer each line on stdin with the CPU time and the memory of this process."""
    sip = telephone.SIP("sip:bot@127.0.0.1", listen="127.0.0.1:0")
    config = ServerConfig(max_sessions=250, max_tick_delay_ms=None)
    limiter = limiter_of(create_app(lambda edge: talker(edge, _Model()), config), None)
    async with sip.running(lambda edge: talker(edge, _Model(echo=True)), limiter):
        print(sip.listening, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            now = {"cpu": time.process_time(), "t": time.perf_counter(), "mb": memory_mb()}
            print(json.dumps(now), flush=True)


class Server:
    """The process with the agents."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sip", "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.address = self.stdout.readline().strip()

    def measure(self) -> dict[str, float]:
        """Return CPU seconds, the time, and MB."""
        self.stdin.write("\n")
        self.stdin.flush()
        figures: dict[str, float] = json.loads(self.stdout.readline())
        return figures

    def close(self) -> None:
        self.stdin.close()
        self.process.wait(10)


class Caller:
    """A call that sends quiet noise, and perhaps clicks whose echo it times."""

    def __init__(self, call: baresip.Call, clicks: bool, seed: int) -> None:
        self.call = call
        self.clicks = clicks
        noise = np.random.default_rng(seed).normal(size=RATE) * (200 if clicks else 6000) / 3
        self.noise = noise.astype(np.int16)
        self.frames = 0
        self.trips: list[float] = []
        self._sent_at = 0.0

    def tick(self) -> None:
        """Send 20 ms, and hear what has come."""
        try:
            data = self.call.audio.read(16000)
        except baresip.BaresipError:
            return
        heard = np.frombuffer(data, np.int16).astype(int)
        if self._sent_at and len(heard) and np.abs(heard).max() > LOUD:
            self.trips.append(1000 * (time.perf_counter() - self._sent_at))
            self._sent_at = 0.0

    def send(self) -> None:
        """Send the next 20 ms."""
        begin = self.frames * 160 % (RATE - 160)
        samples = self.noise[begin : begin + 160]
        if self.clicks and self.frames % 25 == 0:
            samples = np.tile(np.repeat([20000, -20000], 8), 10).astype(np.int16)
            self._sent_at = time.perf_counter()
        self.frames += 1
        try:
            self.call.audio.write(samples.tobytes())
        except baresip.BaresipError:
            return


async def call_many(address: str, count: int, server: Server) -> tuple[list[float], float, float]:
    """Make ``count`` calls; return the round trips in ms, CPU per call, and MB per call."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runtime = baresip.Runtime()
    await runtime.start(
        baresip.Config(
            net_interface="127.0.0.1",
            max_concurrent_calls=None,
            native_log_level="error",
            extra_config_text=f"sip_listen 127.0.0.1:{port}\naudio_jitter_buffer_type off",
        )
    )
    account = baresip.Account(
        user="load", domain="127.0.0.1", password="", reg_interval=0, audio_codecs=("pcmu",)
    )
    agent = await baresip.UserAgent.create(runtime, account)
    before = server.measure()
    callers = []
    for number in range(count):
        call = await agent.dial(f"sip:bot@{address}")
        await call.wait_established(20)
        callers.append(Caller(call, number == 0, number))
    over = time.perf_counter() + RUN_S
    begin = None
    due = time.perf_counter()
    step = 0
    while (now := time.perf_counter()) < over:
        if begin is None and now > over - RUN_S + 3:
            callers[0].trips.clear()
            begin = server.measure()
        for caller in callers[: 1 if step % 4 else None]:
            caller.tick()
            if step % 4 == 0:
                caller.send()
        step += 1
        due += 0.005
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
    end = server.measure()
    assert begin is not None
    cpu = (end["cpu"] - begin["cpu"]) / (end["t"] - begin["t"]) / count
    for caller in callers:
        await caller.call.hangup()
    await runtime.close()
    return callers[0].trips, cpu, (end["mb"] - before["mb"]) / count


def run(count: int) -> tuple[list[float], float, float]:
    """Make one run with a server of its own."""
    server = Server()
    try:
        return asyncio.run(call_many(server.address, count, server))
    finally:
        server.close()


def storm() -> Figure:
    """Let SIPp call ten times a second, for five seconds each; return how many calls failed."""
    name = f"SIP: calls of SIPp that failed, {STORM_CALLS} at 10 a second, 50 at once"
    if shutil.which("sipp") is None:
        return Figure(name, "0", "not measured", False, "SIPp is not installed (sip-tester)")
    server = Server()
    command = ["sipp", "-sf", str(SCENARIO), server.address, "-s", "bot", "-i", "127.0.0.1"]
    rates = ["-r", "10", "-l", "60", "-m", str(STORM_CALLS), "-d", "5000"]
    try:
        done = subprocess.run(
            [*command, *rates, "-mi", "127.0.0.1", "-nostdin", "-timeout", "60", "-trace_stat"],
            cwd=(folder := tempfile.mkdtemp()),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TERM": "dumb"},
            check=False,
        )
    finally:
        server.close()
    [table] = Path(folder).glob("*.csv")
    names, *_, last = table.read_text().splitlines()
    row = dict(zip(names.split(";"), last.split(";"), strict=False))
    shutil.rmtree(folder)
    failed = int(row["FailedCall(C)"])
    good = done.returncode == 0 and int(row["SuccessfulCall(C)"]) == STORM_CALLS
    return Figure(name, "0", str(failed), good, "each five seconds long, without a word")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--calls", type=int)
    parser.add_argument("--storm", action="store_true")
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve())
        return
    if arguments.storm:
        give([storm()])
        return
    if arguments.calls is not None:
        trips, cpu, mb = run(arguments.calls)
        p90 = percentile(trips, 90)
        print(f"{len(trips)} trips, median {median(trips):.0f} ms, p90 {p90:.0f} ms")
        print(f"{100 * cpu:.2f} % of a core and {mb:.2f} MB a call")
        return
    alone, _, _ = run(1)
    trips, cpu, mb = run(CALLS)
    name = "SIP"
    give(
        [
            Figure(
                f"{name}: round trip through agent and echo, buffer from 40 ms, median",
                "<= 125 ms",
                f"{median(alone):.0f} ms",
                median(alone) <= 125,
                "one call, G.711, loopback, through the SIP stack of the caller as well",
            ),
            Figure(
                f"{name}: calls a core, G.711, echo through agent",
                ">= 40",
                f"{1 / cpu:.0f}",
                1 / cpu >= 40,
                f"by the CPU of the server with {CALLS} calls; round trip p90 "
                f"{percentile(trips, 90):.0f} ms",
            ),
            Figure(
                f"{name}: memory a call", "<= 1.5 MB", f"{mb:.2f} MB", mb <= 1.5, f"{CALLS} calls"
            ),
            storm(),
        ]
    )


if __name__ == "__main__":
    main()
