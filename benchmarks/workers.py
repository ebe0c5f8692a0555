"""Whether two workers carry twice the calls of one: ``python -m benchmarks.workers``.

A real server with workers echoes WebRTC calls through agents; the callers are one process of their
own. A machine of two cores has none left for callers while both are busy with two workers. So each
worker gets 40 % of the first core, by the quota of a control group (1 ms of every 2.5), and the
callers have the other core. That needs root and the control groups of Linux, version 1 or 2.
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
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import websockets

from benchmarks.clients import talker
from benchmarks.figures import Figure, give, percentile
from benchmarks.rolling_restart import Page
from benchmarks.rtc_echo import RATE, SIZE, Load, _Model, _Spread
from benchmarks.sessions import MIN_RATE, OTHER_MS, TICK_MS
from duologue._running import run_in_loop
from duologue.agent.agent import Agent
from duologue.edges.webrtc import CallEdge
from duologue.hosting import serve
from duologue.server import ServerConfig, worker_number
from duologue.testing.caller import Caller

STEP = 2
SECONDS = 10.0
CORE_PERCENT = 40
"""Of a core for each worker: a fifth of it is left for the supervisor and the system."""
PERIOD_US = 2500
GROUP = "duologue-benchmark"


def control_groups() -> Path | None:
    """Return the folder of the control groups that limit CPU; None if there is none to write."""
    for folder in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")):
        if (folder / "cgroup.procs").exists() and os.access(folder, os.W_OK):
            return folder
    return None


@contextmanager
def quota(workers: int) -> Generator[None]:
    """Make a control group for each worker during the block."""
    root = control_groups()
    if root is None:
        sys.exit("this benchmark needs root and the control groups of Linux")
    groups = [root / f"{GROUP}-{number}" for number in range(1, workers + 1)]
    share = PERIOD_US * CORE_PERCENT // 100
    try:
        for group in groups:
            group.mkdir(exist_ok=True)
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(share))
            else:
                (group / "cpu.max").write_text(f"{share} {PERIOD_US}")
        yield
    finally:
        for group in groups:
            with suppress(OSError):
                group.rmdir()


async def run_server(workers: int) -> None:
    """Serve calls that echo; a worker puts itself into its control group."""
    number, root = 1 if workers == 1 else worker_number(), control_groups()
    if number is not None and root is not None:
        (root / f"{GROUP}-{number}" / "cgroup.procs").write_text(str(os.getpid()))

    def make_agent(edge: CallEdge) -> Agent:
        return talker(edge, _Model(echo=True))

    config = ServerConfig(port=0, workers=workers, max_sessions=1000, max_tick_delay_ms=None)
    await serve(make_agent, config, ready=lambda address: print(address, flush=True))


def health(address: str) -> dict[str, object]:
    with urlopen(address + "health", timeout=5) as answer:  # noqa: S310 - our own server
        found: dict[str, object] = json.load(answer)
    return found


def worker_pids(address: str, server: int) -> list[int]:
    """Return the processes that take calls; without workers it is the server itself."""
    workers = health(address).get("workers", [{"pid": server}])
    assert isinstance(workers, list)
    return [int(worker["pid"]) for worker in workers]


def own_mb(pids: list[int]) -> float:
    """Return the memory that only these processes have, in MB."""
    return sum(psutil.Process(pid).memory_full_info().uss for pid in pids) / 1e6


def cpu_seconds(pids: list[int]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


async def drive(address: str, pids: list[int], calls: int, seconds: float) -> dict[str, float]:
    """Call, wait 3 s, measure for ``seconds``."""
    empty_mb = own_mb(pids)
    async with AsyncExitStack() as stack:
        loads = []
        for number in range(calls):
            url = address.replace("http", "ws") + "call"
            socket = await stack.enter_async_context(websockets.connect(url, compression=None))
            await socket.send('{"type": "hello"}')
            load = Load(number % 5 == 0, number)
            load.caller = await stack.enter_async_context(
                Caller(Page(socket), on_audio=load.hear, rate=RATE, timeout=30)
            )
            loads.append(load)
        ticking = [
            _Spread(number * 0.02 / calls).subscribe(load.tick) for number, load in enumerate(loads)
        ]
        await asyncio.sleep(3)
        begin, before = time.perf_counter(), [load.heard for load in loads]
        cpu, own = cpu_seconds(pids), time.process_time()
        await asyncio.sleep(seconds)
        took = time.perf_counter() - begin
        cpu, own = cpu_seconds(pids) - cpu, time.process_time() - own
        rates = [(load.heard - b) / SIZE / took for load, b in zip(loads, before, strict=True)]
        for one in ticking:
            one.cancel()
        trips = [ms for load in loads for when, ms in load.trips if when >= begin]
        return {
            "calls": calls,
            "p50_ms": statistics.median(trips),
            "p90_ms": percentile(trips, 90),
            "frames_per_s": min(rates),
            "worker_cpu_percent": cpu / took / len(pids) * 100,
            "caller_cpu_percent": own / took * 100,
            "mb_per_call": (own_mb(pids) - empty_mb) / calls,
        }


def measure(workers: int, calls: int, seconds: float) -> dict[str, float]:
    """Make one run, with the server on the first core and the callers on the others."""
    cores = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "benchmarks.workers", "--serve", str(workers)]
    with quota(workers):
        os.sched_setaffinity(0, cores[:1])  # which the server inherits
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            os.sched_setaffinity(0, cores[1:] or cores)
            assert server.stdout is not None
            try:
                address = server.stdout.readline().strip()
                while len(pids := worker_pids(address, server.pid)) < workers:
                    time.sleep(0.1)
                found = asyncio.run(drive(address, pids, calls, seconds))
            finally:
                server.terminate()
                server.terminate()
                server.wait(20)
                os.sched_setaffinity(0, cores)
    sys.stderr.write(f"{workers} workers: {json.dumps(found)}\n")
    return found


def carried(workers: int, begin: int, seconds: float) -> tuple[int, list[dict[str, float]]]:
    """Find the most calls in time, in steps of two for each worker; return also each run."""
    runs: list[dict[str, float]] = []

    def is_in_time(calls: int) -> bool:
        runs.append(measure(workers, calls, seconds))
        last = runs[-1]
        return last["p90_ms"] <= TICK_MS + OTHER_MS and last["frames_per_s"] >= MIN_RATE

    step, calls = STEP * workers, begin
    if is_in_time(calls):
        while is_in_time(calls + step):
            calls += step
        return calls, runs
    while calls > step:
        calls -= step
        if is_in_time(calls):
            return calls, runs
    return 0, runs


def shown(run: dict[str, float]) -> str:
    return (
        f"{run['calls']:.0f}: p90 {run['p90_ms']:.1f} ms, {run['worker_cpu_percent']:.0f} % of a "
        f"core a worker, callers {run['caller_cpu_percent']:.0f} %, "
        f"{run['mb_per_call']:.1f} MB a call"
    )


def cpu_of_a_call(workers: int, runs: list[dict[str, float]]) -> float:
    """Return percents of a core, the median of the runs."""
    return statistics.median(run["worker_cpu_percent"] * workers / run["calls"] for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--begin", type=int, default=10, help="calls of the first run, a worker")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--calls", type=int, help="make one run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        run_in_loop(run_server(options.serve), "asyncio")
        return
    if options.calls:
        print(measure(options.workers, options.calls, options.seconds))
        return
    one, first = carried(1, options.begin, options.seconds)
    two, second = carried(2, max(2 * one, 2 * STEP), options.seconds)
    ratio = two / one if one else 0.0
    one_cpu, two_cpu = cpu_of_a_call(1, first), cpu_of_a_call(2, second)
    give(
        [
            Figure(
                "calls that two workers carry (WebRTC echo, p90 of the round trip inside one tick "
                f"and {OTHER_MS:g} ms)",
                ">= 1.8 x one",
                f"{ratio:.2f} x one",
                ratio >= 1.8,
                f"{two} and {one} calls; each worker has {CORE_PERCENT} % of a core, by the "
                "kernel's quota, because callers need the other of two cores; one worker, "
                + "; ".join(map(shown, sorted(first, key=lambda r: r["calls"])))
                + "; two, "
                + "; ".join(map(shown, sorted(second, key=lambda r: r["calls"]))),
            ),
            Figure(
                "CPU of a call with two workers",
                "<= 1.1 x that with one",
                f"{two_cpu / one_cpu:.2f} x",
                two_cpu <= 1.1 * one_cpu,
                f"{two_cpu:.2f} and {one_cpu:.2f} % of a core, medians of the runs above: nothing "
                "is shared that would make a call dearer",
            ),
        ]
    )


if __name__ == "__main__":
    main()
