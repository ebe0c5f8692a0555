"""WebRTC to the provider: the time of each step of joining, and where CPU time is spent.

The simulator runs in its own process (``--serve``), on the other core if the system allows that.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np

from benchmarks.figures import Figure, give, median
from benchmarks.provider import pin
from benchmarks.transport import FedEdge, feed
from duologue.agent.agent import Agent
from duologue.audio import AudioFrame
from duologue.providers import openai
from duologue.providers._openai_protocol import webrtc
from duologue.rtc.config import PeerState
from duologue.simulators.openai.server import DEFAULT_KEY, OpenAISimulator
from duologue.testing import Reply

RATE = 24000
STEPS = ("offer", "POST", "ICE and DTLS", "data channel", "session")
PLACES = {
    "Opus": ("rtc/opus.py",),
    "sockets": ("_socket",),
    "SRTP": ("srtp", "ssl", "cryptography"),
    "aiortc and aioice": ("aiortc", "aioice", "pyee"),
    "this benchmark": ("benchmarks/",),
    "duologue": ("src/duologue", "numpy"),
    "asyncio": ("asyncio", "_contextvars", "selectors"),
}
"""How names of functions and files map to causes of CPU time."""


class Marked(webrtc.WebRTCWire):
    """A wire that records the time of each step of its opening."""

    at: list[float]

    async def open(self) -> None:
        Marked.at = [time.perf_counter()]
        await super().open()
        self.mark()

    async def _exchange_sdp(self, offer: str) -> str:
        self.mark()
        answer = await super()._exchange_sdp(offer)
        self.mark()
        return answer

    def _state_changed(self, state: PeerState, reason: str) -> None:
        if state == "connected":
            self.mark()
        super()._state_changed(state, reason)

    @staticmethod
    def mark() -> None:
        Marked.at.append(time.perf_counter())


class FirstAudioEdge(FedEdge):
    """An edge that records when the first audio arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.first = 0.0

    def play(self, frame: AudioFrame | None) -> None:
        super().play(frame)
        if frame is not None and not self.first:
            self.first = time.perf_counter()


def model(url: str) -> openai.Realtime:
    return openai.Realtime(base_url=url, api_key=DEFAULT_KEY, video="off")


async def join(url: str) -> tuple[list[float], float, float]:
    """Join and request a reply; return the steps, their sum, and request to first audio, in ms."""
    edge = FirstAudioEdge()
    agent = Agent(edge=edge, llm=model(url))
    began = time.perf_counter()
    async with agent.join():
        await agent.llm.ready()
        live = time.perf_counter()
        agent.simple_response("hello")
        while not edge.first:
            await asyncio.sleep(0.001)
        edge.hung_up.set()
    marks = [*Marked.at, live]
    steps = [(b - a) * 1000 for a, b in pairwise(marks)]
    return steps, (live - began) * 1000, (edge.first - live) * 1000


async def joins(url: str, rounds: int) -> list[Figure]:
    """Measure where time is spent between the wish to talk and the first audio."""
    webrtc.WebRTCWire = Marked  # type: ignore[misc]
    await join(url)
    each = [await join(url) for _ in range(rounds)]
    parts = ", ".join(
        f"{name} {median([steps[index] for steps, _, _ in each]):.0f}"
        for index, name in enumerate(STEPS)
    )
    live, sound = (median([one[index] for one in each]) for index in (1, 2))
    return [
        Figure(
            "WebRTC to the provider: join; then request to first sound",
            "published",
            f"{live:.0f} ms; {sound:.0f} ms",
            True,
            f"median of {rounds}; join, ms: {parts}; first sound: a simulated model that answers "
            "at once, Opus, its clock and ours of 20 ms each; loopback, so no way to anywhere",
        )
    ]


async def talk(url: str, edge: FedEdge) -> None:
    async with Agent(edge=edge, llm=model(url)).join() as agent:
        await agent.finish()


async def processor(url: str, sessions: int, seconds: float) -> list[Figure]:
    """Measure the CPU of sessions with an echo, and its parts with a profiler afterwards."""
    noise = np.random.default_rng(1).normal(size=RATE * 2).cumsum()
    noise -= np.linspace(noise[0], noise[-1], len(noise))
    sound = AudioFrame((noise * 6000 / np.abs(noise).max()).astype(np.int16), RATE)
    edges = [FedEdge() for _ in range(sessions)]
    async with asyncio.TaskGroup() as tasks:
        for edge in edges:
            tasks.create_task(talk(url, edge))
            while edge.person is None:
                await asyncio.sleep(0.01)
        began = asyncio.get_running_loop().time() + 0.5
        for number, edge in enumerate(edges):
            feed(edge, sound, began + number * 0.02 / sessions)
        await asyncio.sleep(3)
        cpu, wall, frames = time.process_time(), time.perf_counter(), sum(e.frames for e in edges)
        await asyncio.sleep(seconds)
        passed = time.perf_counter() - wall
        share = (time.process_time() - cpu) / passed / sessions * 100
        rate = (sum(e.frames for e in edges) - frames) / passed / sessions
        profile = cProfile.Profile()
        profile.enable()
        await asyncio.sleep(seconds)
        profile.disable()
        for edge in edges:
            edge.hung_up.set()
    return [
        Figure(
            f"WebRTC to the provider: CPU of one session of {sessions}",
            "published",
            f"{share:.2f} %",
            True,
            f"24 kHz both ways all the time, {rate:.1f} frames/s arrive; by cProfile, which makes "
            f"Python look dearer: {parts_of(profile)}",
        )
    ]


def parts_of(profile: cProfile.Profile) -> str:
    """Return the shares of a profile's own times, without waiting."""
    took = dict.fromkeys([*PLACES, "other"], 0.0)
    for (file, _, name), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if "poll" in name:
            continue
        where = f"{file} {name}".lower()
        took[
            next((k for k, words in PLACES.items() if any(w in where for w in words)), "other")
        ] += own
    whole = sum(took.values())
    ordered = sorted(took.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {own / whole * 100:.0f} %" for name, own in ordered)


async def serve() -> None:
    """Serve a simulator that replies at once, and one that echoes, until standard input ends."""
    replies = [Reply("Hello there.", after_s=0.0)] * 1000
    async with OpenAISimulator(replies=replies) as says, OpenAISimulator("loopback") as echoes:
        print(says.url, echoes.url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def main(says: str, echoes: str) -> None:
    figures = await joins(says, 15)
    figures += await processor(echoes, 1, 8)
    figures += await processor(echoes, 10, 8)
    give(figures)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        asyncio.run(serve())
    else:
        command = [sys.executable, "-m", "benchmarks.openai_setup", "--serve"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            pin(server.pid, last=True)
            pin(0, last=False)
            asyncio.run(main(*server.stdout.readline().split()))
            server.stdin.close()
