"""Sessions of the library itself, behind an edge that costs nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from benchmarks.baseline_client import Pace, Samples
from benchmarks.clients import talker
from benchmarks.framework import RATE, numbered
from duologue.audio import AudioFrame
from duologue.edges.protocol import AgentInput
from duologue.quality import Quality
from duologue.realtime.realtime import Realtime


class FedEdge:
    """An edge without cost: another task speaks for all of them, and audio is discarded."""

    output_rate = RATE
    quality: Quality = "estimated"
    latency_ms = 0.0

    def __init__(self, lead_ms: int = 0) -> None:
        self.lead_ms = lead_ms
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


class PacedEdge(FedEdge):
    """An edge that records when each numbered frame reached it."""

    def __init__(self, pace: Pace, lead_ms: int) -> None:
        super().__init__(lead_ms)
        self._pace = pace

    def play(self, frame: AudioFrame | None) -> None:
        if frame is not None:
            pace = self._pace
            pace.frames += 1
            pace.got.setdefault(int(frame.samples[0]), time.perf_counter())


class AgentClient:
    """One session of the library: an agent between a provider and an edge."""

    def __init__(self, llm: Realtime, pace: Pace, lead_ms: int) -> None:
        self._llm = llm
        self._lead_ms = lead_ms
        self.pace = pace

    async def run(self, frames: int) -> None:
        edge = PacedEdge(self.pace, self._lead_ms)
        rate = self.pace.rate

        def speak(samples: Samples) -> None:
            if edge.person is not None and not edge.hung_up.is_set():
                edge.person.push_audio(AudioFrame(samples, rate))

        self.pace.call(frames, speak)
        async with talker(edge, self._llm).join() as agent:
            asyncio.get_running_loop().call_later(frames / 50 + 0.1, edge.hung_up.set)
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


def sparse(seconds: float, rate: int) -> AudioFrame:
    """Return silence with 20 ms of loud audio every half second, like a conversation's pauses."""
    samples = numbered(seconds, rate).samples.copy().reshape(-1, rate // 50)
    samples[[i for i in range(len(samples)) if i % 25]] = 0
    samples[samples > 0] = 9000
    return AudioFrame(samples.reshape(-1), rate)
