"""The framework alone: a scripted model that echoes, wav edges, 24 kHz both ways."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable

import numpy as np

from benchmarks.figures import Figure, give, median, open_files, percentile, rss_mb
from duologue.agent.agent import Agent
from duologue.audio import AudioFrame
from duologue.edges import wav
from duologue.edges.protocol import AgentInput
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.commands import Command, SendAudio
from duologue.realtime.outputs import Output, ReplyAudio
from duologue.testing import Reply, ScriptedRealtime

RATE = 24000


def numbered(seconds: float, rate: int = RATE) -> AudioFrame:
    """Audio in which all samples of a 20 ms frame equal its number."""
    frames = np.arange(1, int(seconds * 50) + 1, dtype=np.int16)
    return AudioFrame(np.repeat(frames, rate // 50), rate)


class Marks:
    """When each numbered frame passed a place."""

    def __init__(self) -> None:
        self.at: dict[int, float] = {}

    def pass_by(self, frame: AudioFrame) -> None:
        if len(frame) and frame.samples[0]:
            self.at.setdefault(int(frame.samples[0]), time.perf_counter())


class MarkedEdge(wav.Edge):
    """A wav edge that records when audio leaves and reaches it."""

    def __init__(self, source: AudioFrame) -> None:
        super().__init__(source, rate=RATE, settle_s=0.1, wait_s=0.1)
        self.left = Marks()
        self.arrived = Marks()

    async def run(self, person: AgentInput, ready: Callable[[], None]) -> None:
        left = self.left
        hear = person.push_audio

        def audio(frame: AudioFrame) -> None:
            left.pass_by(frame)
            hear(frame)

        person.push_audio = audio  # type: ignore[method-assign]
        await super().run(person, ready)

    def play(self, frame: AudioFrame | None) -> None:
        if frame is not None:
            self.arrived.pass_by(frame)
        super().play(frame)


class _LoggedConnection:
    """A connection that records when audio reaches and leaves the model."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.arrived = Marks()
        self.left = Marks()

    async def run(self, receive: Callable[[Output], None]) -> None:
        def record(output: Output) -> None:
            if isinstance(output, ReplyAudio):
                self.left.pass_by(output.frame)
            receive(output)

        await self._connection.run(record)

    def transmit(self, command: Command) -> None:
        if isinstance(command, SendAudio):
            self.arrived.pass_by(command.frame)
        self._connection.transmit(command)


class _Model(ScriptedRealtime):
    logged: _LoggedConnection

    def open(self, setup: SessionSetup) -> Connection:
        self.logged = _LoggedConnection(super().open(setup))
        return self.logged


async def latency() -> list[Figure]:
    """Measure the latency that is added each way, with one session."""
    edge, model = MarkedEdge(numbered(20.0)), _Model(echo=True)
    async with Agent(edge=edge, llm=model).join() as agent:
        await agent.finish()
    up = [(model.logged.arrived.at[n] - at) * 1000 for n, at in edge.left.at.items()]
    down = [(edge.arrived.at[n] - at) * 1000 for n, at in model.logged.left.at.items()]
    figures = []
    for name, values in (("to the model", up), ("to the person", down)):
        middle, worst = median(values), percentile(values, 99)
        figures.append(
            Figure(
                f"framework alone: added latency {name}, median / p99",
                "<= 0.3 / 2 ms",
                f"{middle:.3f} / {worst:.3f} ms",
                middle <= 0.3 and worst <= 2,
                f"{len(values)} frames of 20 ms",
            )
        )
    return figures


async def talk(audio: AudioFrame) -> None:
    """Run one session that speaks for the length of the audio, and close it."""
    edge = wav.Edge(audio, rate=RATE, settle_s=0.1, wait_s=0.1)
    async with Agent(edge=edge, llm=ScriptedRealtime(echo=True)).join() as agent:
        await agent.finish()


async def running(sessions: int, audio: AudioFrame) -> list[asyncio.Task[None]]:
    """Start sessions, spread over 20 ms, and wait until a second after the last began."""
    tasks = []
    for _ in range(sessions):
        tasks.append(asyncio.create_task(talk(audio)))
        await asyncio.sleep(0.02 / sessions)
    await asyncio.sleep(1)
    return tasks


async def processor(sessions: int, seconds: float) -> list[Figure]:
    """Measure the CPU of many sessions in one process."""
    tasks = await running(sessions, numbered(seconds + 2))
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall) / sessions * 100
    await asyncio.gather(*tasks)
    return [
        Figure(
            f"framework alone: CPU of one session of {sessions}",
            "<= 0.7 % of a core",
            f"{share:.2f} %",
            share <= 0.7,
            "the wav edge's own 50 timers a second included",
        )
    ]


async def memory(sessions: int) -> list[Figure]:
    """Measure the memory of live sessions, beyond that of the first ten."""
    audio = numbered(4.0)
    await asyncio.gather(*await running(10, audio))
    gc.collect()
    before = rss_mb()
    tasks = await running(sessions, audio)
    each = (rss_mb() - before) / sessions
    await asyncio.gather(*tasks)
    return [
        Figure(
            f"framework alone: memory of one session of {sessions}",
            "<= 0.3 MB",
            f"{each:.3f} MB",
            each <= 0.3,
        )
    ]


async def leaks(sessions: int) -> list[Figure]:
    """Open, use and close sessions, and measure what is left of them."""
    audio = numbered(0.5)

    async def batch() -> None:
        await asyncio.gather(*(talk(audio) for _ in range(50)))

    def state() -> tuple[int, int, int, float]:
        gc.collect()
        return len(asyncio.all_tasks()), threading.active_count(), open_files(), rss_mb()

    await batch()
    before = state()
    for _ in range(sessions // 50):
        await batch()
    after = state()
    grown = after[3] - before[3]
    return [
        Figure(
            f"{sessions} sessions opened, talked, closed: tasks, threads, sockets; memory",
            "equal; < 5 MB",
            f"{before[:3]} before, {after[:3]} after; {grown:+.2f} MB",
            before[:3] == after[:3] and grown < 5,
        )
    ]


async def closing(rounds: int) -> list[Figure]:
    """Call close() at random moments of a conversation with replies in flight."""
    dice = random.Random(1)  # noqa: S311
    took = []
    for _ in range(rounds):
        model = ScriptedRealtime([Reply("word " * 50, after_s=0.05, pace=3)] * 3)
        edge = wav.Edge(numbered(3.0), rate=RATE)
        async with Agent(edge=edge, llm=model).join() as agent:
            agent.say("Hello and welcome.")
            agent.simple_response("Hello?", interrupt=False)
            await asyncio.sleep(dice.random())
            began = time.perf_counter()
            await agent.close()
        took.append(time.perf_counter() - began)
    return [
        Figure(
            "close() in any state, worst",
            "<= 1 s",
            f"{max(took) * 1000:.0f} ms",
            max(took) <= 1,
            f"{rounds} random moments; closed and left",
        )
    ]


async def main() -> None:
    figures = await latency()
    figures += await memory(100)
    figures += await processor(10, 15)
    figures += await leaks(200)
    figures += await closing(30)
    give(figures)


if __name__ == "__main__":
    asyncio.run(main())
