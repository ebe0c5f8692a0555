"""What the library adds to the path to a provider and back: time, CPU and memory.

``python -m benchmarks.transport openai|gemini|nova|qwen``.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec

from benchmarks import baseline_client
from benchmarks.clients import NAMES, realtime, talker, vad_note
from benchmarks.figures import Figure, give, median, percentile, rss_mb
from benchmarks.framework import RATE, MarkedEdge, numbered
from benchmarks.provider import Provider
from duologue.audio import AudioFrame
from duologue.edges.protocol import AgentInput
from duologue.quality import Quality
from duologue.realtime.realtime import Realtime

FLOORS = {"nova": "h2, orjson and hashlib"}
"""What baseline clients are made of, if not of websockets and orjson."""


def floor_of(provider: Provider) -> str:
    """Return what the baseline client is made of."""
    return FLOORS.get(provider.name, "websockets and orjson")


def sparse(seconds: float, rate: int) -> AudioFrame:
    """Return silence with 20 ms of loud audio every half second, like a conversation's pauses."""
    samples = numbered(seconds, rate).samples.copy().reshape(-1, rate // 50)
    samples[[i for i in range(len(samples)) if i % 25]] = 0
    samples[samples > 0] = 9000
    return AudioFrame(samples.reshape(-1), rate)


async def latency(provider: Provider) -> list[Figure]:
    """Measure the latency that is added each way, with one session."""
    edge, llm = MarkedEdge(numbered(20.0, provider.rate)), realtime(provider.name, provider.url)
    async with talker(edge, llm).join() as agent:
        await agent.finish()
    log = provider.report()
    up = [(log.arrived[n] - at) * 1000 for n, at in edge.left.at.items() if n in log.arrived]
    down = [(edge.arrived.at[n] - at) * 1000 for n, at in log.left.items() if n in edge.arrived.at]
    began = asyncio.get_running_loop().time() + 0.5
    client = provider.baseline_client(numbered(10.0, provider.rate).samples, began)
    await client.run(500)
    floor, log = client.pace, provider.report()
    floor_up = [(log.arrived[n] - at) * 1000 for n, at in floor.sent.items() if n in log.arrived]
    floor_down = [(floor.got[n] - at) * 1000 for n, at in log.left.items() if n in floor.got]
    figures = []
    for name, values, least in (("to", up, floor_up), ("from", down, floor_down)):
        middle, worst = median(values), percentile(values, 99)
        whole = len(values) >= 0.99 * len(edge.left.at) and len(least) >= 495
        figures.append(
            Figure(
                f"{NAMES[provider.name]}: added latency {name} the provider, median / p99",
                "<= 0.45 / 2 ms",
                f"{middle:.2f} / {worst:.2f} ms",
                middle <= 0.45 and worst <= 2 and whole,
                f"{len(values)} frames; the 20 ms output clock left out (an edge with a lead)"
                f"{vad_note(llm)}; a client of {floor_of(provider)} alone: "
                f"{median(least):.2f} / {percentile(least, 99):.2f} ms",
            )
        )
    return figures


class FedEdge:
    """An edge without cost: another task speaks for all of them, and audio is discarded."""

    output_rate = RATE
    quality: Quality = "estimated"
    lead_ms = 0
    latency_ms = 0.0

    def __init__(self) -> None:
        self.person: AgentInput | None = None
        self.hung_up = asyncio.Event()
        self.frames = 0

    async def run(self, person: AgentInput, ready: Callable[[], None]) -> None:
        self.person = person
        ready()
        await self.hung_up.wait()

    def play(self, frame: AudioFrame | None) -> None:
        self.frames += frame is not None

    def clear(self) -> None: ...


async def talk(edge: FedEdge, llm: Realtime) -> None:
    """Run one session until its edge hangs up."""
    async with talker(edge, llm).join() as agent:
        await agent.finish()


def feed(edge: FedEdge, audio: AudioFrame, began: float) -> None:
    """Send 20 ms of audio at a time until the edge hangs up, from ``began`` on the loop's clock."""
    frames = audio.samples.reshape(-1, audio.rate // 50)
    loop = asyncio.get_running_loop()

    def speak(index: int) -> None:
        if edge.hung_up.is_set():
            return
        if edge.person is not None:
            # A copy, because real audio is new each time and is kept for a while.
            edge.person.push_audio(AudioFrame(frames[index % len(frames)].copy(), audio.rate))
        loop.call_at(began + (index + 1) * 0.02, speak, index + 1)

    loop.call_at(began, speak, 0)


@asynccontextmanager
async def running(
    provider: Provider, sessions: int, audio: AudioFrame, apart: float = 0.0
) -> AsyncGenerator[list[FedEdge]]:
    """Run ``sessions`` sessions until 3 s after the last began; they begin ``apart`` s apart."""
    edges = [FedEdge() for _ in range(sessions)]
    async with asyncio.TaskGroup() as tasks:
        for edge in edges:
            tasks.create_task(talk(edge, realtime(provider.name, provider.url)))
            await asyncio.sleep(0.02)
        began = asyncio.get_running_loop().time() + 0.1
        for number, edge in enumerate(edges):
            feed(edge, audio, began + number * apart)
        await asyncio.sleep(3)
        yield edges
        for edge in edges:
            edge.hung_up.set()


async def processor(
    provider: Provider, sessions: int, seconds: float, *, apart: float, named: str
) -> Figure:
    """Measure the CPU of many sessions in one process, with audio both ways all the time."""
    audio = sparse(10.0, provider.rate)
    async with running(provider, sessions, audio, apart) as edges:
        cpu, wall, frames = time.process_time(), time.perf_counter(), sum(e.frames for e in edges)
        await asyncio.sleep(seconds)
        passed = time.perf_counter() - wall
        share = (time.process_time() - cpu) / passed / sessions * 100
        rate = (sum(e.frames for e in edges) - frames) / passed / sessions
    await asyncio.sleep(0.5)
    began = asyncio.get_running_loop().time() + 1
    clients = [provider.baseline_client(audio.samples, began + n * apart) for n in range(sessions)]
    floor = await baseline_client.processor(clients, seconds / 2)
    hz = f"{provider.rate // 1000} kHz to it and 24 back" if provider.rate != RATE else ""
    return Figure(
        f"{NAMES[provider.name]}: CPU of one session of {sessions}, {named}",
        "<= 0.6 % of a core",
        f"{share:.2f} %",
        share <= 0.6 and rate > 49.5,
        f"{hz or '24 kHz both ways'} all the time, {rate:.1f} frames/s arrive, no TLS"
        f"{vad_note(realtime(provider.name, provider.url))}; clients of "
        f"{floor_of(provider)} alone: {floor:.2f} %",
    )


async def memory(provider: Provider, sessions: int) -> list[Figure]:
    """Measure the memory of a session: that of many less that of ten, also with loud speakers."""
    each = []
    for audio in (sparse(10.0, provider.rate), numbered(10.0, provider.rate)):
        async with running(provider, 10, audio):
            await asyncio.sleep(9)
            gc.collect()
            before = rss_mb()
            async with running(provider, sessions - 10, audio):
                await asyncio.sleep(9)
                gc.collect()
                each.append((rss_mb() - before) / (sessions - 10))
        await asyncio.sleep(0.5)
    quiet, loud = each
    return [
        Figure(
            f"{NAMES[provider.name]}: memory of one session of {sessions}",
            "<= 0.1 MB",
            f"{quiet:.3f} MB",
            quiet <= 0.1,
            "silence with loud marks. The newest ten seconds are kept for a lost connection: who "
            f"speaks for ten without a pause takes {loud:.2f} MB, till their words are known",
        )
    ]


async def all_of_it(provider: Provider) -> list[Figure]:
    """Measure every figure of one process."""
    figures = await latency(provider)
    figures += await memory(provider, 100)
    figures.append(await processor(provider, 40, 10, apart=0.0, named="all by one clock"))
    figures.append(await processor(provider, 40, 10, apart=0.0005, named="each by its own clock"))
    return figures


def main() -> None:
    with Provider(sys.argv[1]) as provider:
        figures = asyncio.run(all_of_it(provider))
        if find_spec("uvloop") is not None:
            named = "each by its own clock, uvloop"
            faster = importlib.import_module("uvloop")
            figures.append(faster.run(processor(provider, 40, 10, apart=0.0005, named=named)))
    give(figures)


if __name__ == "__main__":
    main()
