"""Calls through Ray Serve beside calls to the same app without it: what its proxies add.

``python -m benchmarks.ray_serve`` measures the figures, each setting in processes of its own. Ray
runs as a cluster of two nodes on this machine; the app is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psutil
import websockets

from benchmarks.figures import Figure, give
from duologue import Agent, run
from duologue.edges.webrtc import CallEdge
from duologue.hosting import serve
from duologue.json_types import Json
from duologue.server import ServerConfig
from duologue.testing import ScriptedRealtime
from duologue.testing.caller import Caller

CALLS = 15
"""Calls of a run, one after the other."""

TRIPS = 40
"""Messages, and STUN requests, that are timed in a call."""

SETTINGS = ("plain", "proxy", "haproxy")

_CONFIG: dict[str, Any] = {"max_tick_delay_ms": None, "messages_per_s": 10_000.0}


def make_agent(edge: CallEdge) -> Agent:
    """Return an agent that answers each text with the id of its process."""
    return Agent(edge=edge, llm=ScriptedRealtime([f"PROCESS {os.getpid()}"] * 1000))


class Page:
    """The signalling of a page."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self._connection = connection
        self.event_came = asyncio.Event()

    async def receive(self) -> Mapping[str, Json] | None:
        try:
            message = cast("dict[str, Json]", json.loads(await self._connection.recv()))
        except websockets.ConnectionClosed:
            return None
        if message["type"] == "event":
            self.event_came.set()
        return message

    async def send(self, message: Mapping[str, Json]) -> None:
        with suppress(websockets.ConnectionClosed):
            await self._connection.send(json.dumps(message))


@asynccontextmanager
async def call(port: int) -> AsyncIterator[tuple[Page, Caller]]:
    async with websockets.connect(f"ws://127.0.0.1:{port}/call", compression=None) as connection:
        await connection.send('{"type": "hello"}')
        page = Page(connection)
        async with Caller(page, on_audio=lambda frame: None) as caller:
            yield page, caller


async def drive(port: int) -> dict[str, float | bool]:
    """Call some times; return medians in ms, and whether media went to the process of the agent."""
    placing, signalling, media = [], [], []
    direct = True
    for number in range(CALLS + 1):
        started = time.perf_counter()
        async with call(port) as (page, caller):
            placed = time.perf_counter() - started
            texts, packets = [], []
            for _ in range(TRIPS):
                page.event_came.clear()
                started = time.perf_counter()
                await caller.send_text("?")
                await page.event_came.wait()
                texts.append(time.perf_counter() - started)
                await asyncio.sleep(0.01)  # for the other events of the reply
                packets.append(await _packet_trip(caller))
            direct &= await _process(caller) == _owner(caller)
        if number:  # the first one loads what is loaded at first use
            placing.append(placed)
            signalling.append(statistics.median(texts))
            media.append(statistics.median(packets))
    medians = [round(statistics.median(each) * 1000, 2) for each in (placing, signalling, media)]
    return {**dict(zip(("placing", "signalling", "media"), medians, strict=True)), "direct": direct}


def _ice(caller: Caller) -> Any:
    connection: Any = caller.peer._connection
    return connection.getTransceivers()[0].receiver.transport.transport._connection


async def _packet_trip(caller: Caller) -> float:
    """Return how long a packet takes on the way of the audio, there and back: STUN."""
    ice = _ice(caller)
    pair = ice._nominated[1]
    request = ice.build_request(pair, nominate=False)
    key = ice.remote_password.encode()
    started = time.perf_counter()
    await pair.protocol.request(request, pair.remote_addr, integrity_key=key)
    return time.perf_counter() - started


async def _process(caller: Caller) -> int:
    """Return the process that the agent says it is in, in the last of its replies."""
    async with asyncio.timeout(5):
        while True:
            texts = " ".join(str(event.get("text")) for event in caller.events)
            if (found := re.search(r"PROCESS (\d+)", texts)) is not None:
                return int(found[1])
            await asyncio.sleep(0.02)


def _owner(caller: Caller) -> int:
    """Return the process that has the port to which the audio goes."""
    port = _ice(caller)._nominated[1].remote_addr[1]
    ports = psutil.net_connections("udp")
    return next((each.pid or 0 for each in ports if each.laddr and each.laddr.port == port), -1)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def run_plain() -> dict[str, float | bool]:
    """Drive a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ray_serve", "--serve"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        return await drive(int(line.split(b":")[-1].rstrip(b"/\n")))
    finally:
        process.terminate()
        await process.wait()


def run_ray() -> dict[str, float | bool]:
    """Drive a cluster."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray as cluster_of_ray
    from ray import serve as ray_serve
    from ray.cluster_utils import Cluster

    from duologue.ray import Scaling, application

    node = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        cluster_of_ray.init(cluster.address, log_to_driver=False)
        port = _free_port()
        ray_serve.start(http_options={"host": "127.0.0.1", "port": port, "location": "HeadOnly"})
        ray_serve.run(
            application(
                "benchmarks.ray_serve:make_agent",
                ServerConfig(**_CONFIG),
                scaling=Scaling(min_replicas=2, max_replicas=2),
            )
        )
        return asyncio.run(drive(port))
    finally:
        ray_serve.shutdown()
        cluster_of_ray.shutdown()
        cluster.shutdown()


def measure(setting: str) -> dict[str, float | bool]:
    """Measure one setting in a process of its own."""
    environment = {**os.environ, "RAY_SERVE_ENABLE_HA_PROXY": str(int(setting == "haproxy"))}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ray_serve", setting],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    found = next(line for line in done.stdout.splitlines() if line.startswith("MEASURED "))
    return cast("dict[str, float | bool]", json.loads(found.removeprefix("MEASURED ")))


def figures() -> list[Figure]:
    """Measure what Ray adds."""
    plain, proxy, haproxy = (measure(setting) for setting in SETTINGS)
    note = f"medians of {CALLS} calls, one after the other; a cluster of two nodes on this machine"

    def beside(what: str) -> str:
        return f"{proxy[what]} ms, by HAProxy {haproxy[what]} ms; without Ray {plain[what]} ms"

    added = haproxy["signalling"] - plain["signalling"], proxy["signalling"] - plain["signalling"]
    media = proxy["media"] - plain["media"]
    direct = bool(proxy["direct"] and haproxy["direct"])
    return [
        Figure(
            "Ray Serve: time to place a call, from the WebSocket to connected media",
            "published",
            beside("placing"),
            True,
            note,
        ),
        Figure(
            "Ray Serve: added to signalling, from a text to the first event",
            "<= 10 ms",
            f"{added[1]:.1f} ms, by HAProxy {added[0]:.1f} ms",
            added[1] <= 10,
            f"both ways, so each message has half of it; {beside('signalling')}",
        ),
        Figure(
            "Ray Serve: added to media, round trip of a packet on the way of the audio",
            "0 ms",
            f"{media:.1f} ms",
            direct and media < 0.5,
            f"the port belongs to the process of the agent; {beside('media')}",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", nargs="?", choices=SETTINGS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        run(serve(make_agent, ServerConfig(port=0, **_CONFIG)))
    elif options.setting is None:
        give(figures())
    else:
        measured = asyncio.run(run_plain()) if options.setting == "plain" else run_ray()
        sys.stdout.write(f"MEASURED {json.dumps(measured)}\n")


if __name__ == "__main__":
    main()
