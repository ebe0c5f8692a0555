"""A fake edge whose person is scripted by the test, and which records what it plays."""

import asyncio
import os
import re
from contextlib import asynccontextmanager
from uuid import uuid4

import numpy as np

from duologue import Agent
from duologue.audio import AudioFrame
from duologue.items import AgentItem

RATE = 16000


class FakeEdge:
    """An edge whose person does what the test says."""

    output_rate = 24000
    quality = "estimated"
    lead_ms = 0
    latency_ms = 0.0

    def __init__(self, *, fails_at=None, hangs_up_in=0.0, never_ready=False):
        self.person = None
        self.frames = []
        self.clears = 0
        self.hung_up = asyncio.Event()
        self.fails_at = fails_at
        self.hangs_up_in = hangs_up_in
        self.never_ready = never_ready

    async def run(self, person, ready):
        self.person = person
        if not self.never_ready:
            ready()
        try:
            if self.fails_at is not None:
                await asyncio.sleep(self.fails_at)
                raise OSError("the connection is broken")
            await self.hung_up.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(self.hangs_up_in)
            raise

    def play(self, frame):
        self.frames.append(None if frame is None else frame.samples)

    def clear(self):
        self.clears += 1

    @property
    def played_audio(self):
        """All audio that was played, without the silence in between."""
        frames = [frame for frame in self.frames if frame is not None]
        return np.concatenate(frames) if frames else np.zeros(0, np.int16)

    async def speak(self, seconds, level=8000):
        """Make a loud sound for ``seconds`` of real time, at the pitch of a voice."""
        period = np.repeat([level, -level], RATE // 400).astype(np.int16)
        for _ in range(round(seconds * 50)):
            await asyncio.sleep(0.02)
            self.person.push_audio(AudioFrame(np.tile(period, 4), RATE))

    async def be_silent(self, seconds):
        await self.speak(seconds, 0)


@asynccontextmanager
async def join_agent(llm, edge=None, prepare=None, **options):
    """Join an agent; its events are recorded in ``agent.recorded``.

    If RECORD_CALLS names a folder, the call is recorded there, with its wire journal: see
    benchmarks/replays.py.
    """
    folder = os.environ.get("RECORD_CALLS")
    if folder and "recorder" not in options:
        from duologue.observe import Recorder

        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition("::")[2].partition(" ")[0]
        name = f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', test)[:120]}-{uuid4().hex[:4]}"
        options["recorder"] = Recorder(folder, name=name, wire=True)
    agent = Agent(edge=edge or FakeEdge(), llm=llm, **options)
    agent.recorded = []
    agent.events.tap(agent.recorded.append)
    if prepare is not None:
        prepare(agent)
    async with agent.join():
        yield agent


def event_names(agent):
    return [type(event).__name__ for event in agent.recorded]


def events_of(agent, kind):
    return [event for event in agent.recorded if isinstance(event, kind)]


def tone(seconds, hz=440.0, rate=24000):
    """Return the audio of a scripted reply."""
    at = np.arange(round(seconds * rate))
    return (8000 * np.sin(2 * np.pi * hz / rate * at)).astype(np.int16)


class FakeTTS:
    rate = 24000

    def __init__(self, *, fails=None, hangs=False):
        self.fails = fails
        self.hangs = hangs
        self.closed = 0

    async def synthesize(self, text):
        try:
            for _ in range(len(text)):
                await asyncio.sleep(0.01)
                yield AudioFrame(np.full(2400, 500, np.int16), 24000)
            if self.hangs:
                await asyncio.Event().wait()
            if self.fails:
                raise self.fails
        finally:
            self.closed += 1


def agent_items(agent):
    return [item for item in agent.conversation if isinstance(item, AgentItem)]


def other_tasks():
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def pending_timers():
    """Return the library's callbacks that are still scheduled."""
    timers = [t for t in asyncio.get_running_loop()._scheduled if not t.cancelled()]
    return [t for t in timers if getattr(t._callback, "__module__", "").startswith("duologue")]
