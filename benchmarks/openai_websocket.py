"""OpenAI Realtime over a WebSocket: what the library adds to the way to the provider and back."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import orjson
import pybase64
from websockets.asyncio.client import connect

from benchmarks.figures import Figure, give, median, percentile, rss_mb
from benchmarks.framework import FRAME, RATE, MarkedEdge, numbered
from benchmarks.provider import Provider
from duologue.agent import Agent
from duologue.audio import AudioFrame
from duologue.edges.edge import Person, Quality
from duologue.providers import openai


def model(provider: Provider) -> openai.Realtime:
    """A session with the thin provider."""
    return openai.Realtime(transport="websocket", base_url=provider.url, api_key="k", video="off")


def sparse(seconds: float) -> AudioFrame:
    """Silence with a loud 20 ms in every half second, as in a conversation's pauses."""
    sound = numbered(seconds)
    samples = sound.samples.copy().reshape(-1, FRAME)
    samples[[i for i in range(len(samples)) if i % 25]] = 0
    samples[samples > 0] = 9000
    return AudioFrame(samples.reshape(-1), RATE)


async def latency(provider: Provider) -> list[Figure]:
    """Added latency each way, of one session."""
    edge = MarkedEdge(numbered(20.0))
    async with Agent(edge=edge, llm=model(provider)).join() as agent:
        await agent.finish()
    came, left, _ = provider.report()
    up = [(came[n] - at) * 1000 for n, at in edge.left.at.items() if n in came]
    down = [(edge.came.at[n] - at) * 1000 for n, at in left.items() if n in edge.came.at]
    bare_up, bare_down = await bare(provider)
    figures = []
    for name, values, floor in (("to", up, bare_up), ("from", down, bare_down)):
        middle, worst = median(values), percentile(values, 99)
        figures.append(
            Figure(
                f"OpenAI, WebSocket: added latency {name} the provider, median / p99",
                "<= 0.45 / 2 ms",
                f"{middle:.2f} / {worst:.2f} ms",
                middle <= 0.45 and worst <= 2,
                f"{len(values)} frames; the 20 ms output clock left out (an edge with a lead); "
                f"a bare client here: {median(floor):.2f} / {percentile(floor, 99):.2f} ms",
            )
        )
    return figures


async def bare(provider: Provider) -> tuple[list[float], list[float]]:
    """The same way with nothing but websockets and orjson: the floor on this machine."""
    sound = numbered(10.0)
    sent: dict[int, float] = {}
    got: dict[int, float] = {}
    url = f"ws://127.0.0.1:{provider.port}/v1/realtime"
    async with connect(url, compression=None) as line:

        async def hear() -> None:
            async for message in line:
                event = orjson.loads(message)
                if event["type"] == "response.output_audio.delta":
                    pcm = pybase64.b64decode(event["delta"])
                    number = int.from_bytes(pcm[:2], "little", signed=True)
                    got.setdefault(number, time.perf_counter())

        async with asyncio.TaskGroup() as tasks:
            hearing = tasks.create_task(hear())
            began = time.perf_counter()
            for n in range(1, 501):
                await asyncio.sleep(max(0.0, began + n * 0.02 - time.perf_counter()))
                pcm = sound.samples[(n - 1) * FRAME : n * FRAME].tobytes()
                sent[n] = time.perf_counter()
                event = {"type": "input_audio_buffer.append", "audio": pybase64.b64encode(pcm)}
                await line.send(orjson.dumps({**event, "audio": event["audio"].decode()}).decode())
            await asyncio.sleep(0.1)
            hearing.cancel()
    came, left, _ = provider.report()
    return (
        [(came[n] - at) * 1000 for n, at in sent.items() if n in came],
        [(got[n] - at) * 1000 for n, at in left.items() if n in got],
    )


class FedEdge:
    """A line that costs nothing itself: somebody else speaks for all of them, and nobody hears."""

    output_rate = RATE
    quality: Quality = "estimated"
    lead_ms = 0
    latency_ms = 0.0

    def __init__(self) -> None:
        self.person: Person | None = None
        self.hung_up = asyncio.Event()
        self.frames = 0

    async def run(self, person: Person, ready: Callable[[], None]) -> None:
        self.person = person
        ready()
        await self.hung_up.wait()

    def play(self, frame: AudioFrame | None) -> None:
        self.frames += frame is not None

    def clear(self) -> None: ...


async def talk(provider: Provider, edge: FedEdge) -> None:
    """One session, till its line hangs up."""
    async with Agent(edge=edge, llm=model(provider)).join() as agent:
        await agent.finish()


async def feed(edges: list[FedEdge], sound: AudioFrame) -> None:
    """Speak for all lines, 20 ms at a time."""
    frames = [AudioFrame(f, RATE) for f in sound.samples.reshape(-1, FRAME)]
    loop = asyncio.get_running_loop()
    began = loop.time()
    for index in range(1_000_000):
        await asyncio.sleep(max(0.0, began + index * 0.02 - loop.time()))
        for edge in edges:
            if edge.person is not None:
                edge.person.audio(frames[index % len(frames)])


@asynccontextmanager
async def running(provider: Provider, sessions: int) -> AsyncGenerator[list[FedEdge]]:
    """So many sessions, some seconds after the last began."""
    edges = [FedEdge() for _ in range(sessions)]
    async with asyncio.TaskGroup() as tasks:
        for edge in edges:
            tasks.create_task(talk(provider, edge))
            await asyncio.sleep(0.02)
        feeding = tasks.create_task(feed(edges, sparse(10.0)))
        await asyncio.sleep(3)
        yield edges
        feeding.cancel()
        for edge in edges:
            edge.hung_up.set()


async def processor(provider: Provider, sessions: int, seconds: float) -> list[Figure]:
    """CPU of many sessions in one process, sound both ways all the time."""
    async with running(provider, sessions) as edges:
        cpu, wall, frames = time.process_time(), time.perf_counter(), sum(e.frames for e in edges)
        await asyncio.sleep(seconds)
        passed = time.perf_counter() - wall
        share = (time.process_time() - cpu) / passed / sessions * 100
        rate = (sum(e.frames for e in edges) - frames) / passed / sessions
    return [
        Figure(
            f"OpenAI, WebSocket: CPU of one session of {sessions}",
            "<= 0.6 % of a core",
            f"{share:.2f} %",
            share <= 0.6,
            f"24 kHz both ways all the time, {rate:.1f} frames/s arrive; one driver speaks for all",
        )
    ]


async def memory(provider: Provider, sessions: int) -> list[Figure]:
    """Memory that live sessions take, beyond what ten of them took before."""
    async with running(provider, 10):
        await asyncio.sleep(3)
    gc.collect()
    before = rss_mb()
    async with running(provider, sessions):
        await asyncio.sleep(9)
        each = (rss_mb() - before) / sessions
    return [
        Figure(
            f"OpenAI, WebSocket: memory of one session of {sessions}",
            "<= 0.1 MB",
            f"{each:.3f} MB",
            each <= 0.1,
            "silence with loud marks; someone who speaks without a pause for ten seconds: 0.48 "
            "MB more, kept for a lost connection",
        )
    ]


async def main() -> None:
    with Provider() as provider:
        figures = await latency(provider)
        figures += await memory(provider, 100)
        figures += await processor(provider, 40, 15)
    give(figures)


if __name__ == "__main__":
    asyncio.run(main())
