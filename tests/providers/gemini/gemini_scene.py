"""An agent that talks with the simulated Gemini Live, and a person with an open microphone."""

import asyncio
import functools
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from duologue.testing import SCRIPTED_CAPABILITIES

pytest.importorskip("websockets", reason="the gemini extra is not installed")
pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

from duologue.audio import AudioFrame
from duologue.providers.gemini import Realtime, ServerVAD
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import GeminiSimulator, Reply, ScriptedRealtime, run_virtual
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, join_agent

POLICY = ReconnectPolicy(base_s=0.1, cap_s=1.0)
QUICK = ServerVAD(silence_duration_ms=300)


class Backend(ScriptedRealtime):
    """The backend of all connections of a simulator; it follows one script."""

    def __init__(self, replies, transcripts):
        super().__init__(
            manual=True,
            capabilities=replace(
                SCRIPTED_CAPABILITIES, manual_turns=True, user_transcripts="final"
            ),
        )
        self.replies = replies
        self.transcripts = transcripts


class Person(FakeEdge):
    """A person with an open microphone at 16 kHz: silent, or speaking while the test says so."""

    level = 0

    def __init__(self):
        super().__init__()
        self.sent = 0
        self.speech = np.zeros(0, np.int16)
        self.camera = None
        self.at = []

    async def run(self, agent, ready):
        self.person = agent
        ready()
        at = np.arange(320)
        loop = asyncio.get_running_loop()
        while not self.hung_up.is_set():
            await asyncio.sleep(0.02)
            samples = (self.level * np.sin(at * 0.15)).astype(np.int16)
            if len(self.speech):
                piece, self.speech = self.speech[:320], self.speech[320:]
                samples[: len(piece)] = piece
            agent.push_audio(AudioFrame(samples, 16000))
            self.sent += 320
            if self.camera is not None:
                agent.push_video(lambda: self.camera(loop.time()))

    def play(self, frame):
        super().play(frame)
        if frame is not None and int(np.abs(frame.samples.astype(int)).max()) > 300:
            self.at.append(asyncio.get_running_loop().time())

    async def speak(self, seconds):
        self.level = 8000
        await asyncio.sleep(seconds)
        self.level = 0

    @property
    def gaps(self):
        """Stretches without audio between the first and the last that was played."""
        return [b - a for a, b in zip(self.at, self.at[1:], strict=False) if b - a > 0.021]


def realtime(server, model="gemini-3.8-live", **options):
    options.setdefault("api_key", server.key)
    options.setdefault("turn_detection", QUICK)
    options.setdefault("reconnect", POLICY)
    options.setdefault("vad", EnergyVAD())
    return Realtime(model, base_url=server.url, **options)


@asynccontextmanager
async def conversation(replies=(), transcripts=(), *, simulator=None, agent=None, **options):
    """Yield the agent, the person and the simulator."""
    script = deque(r if isinstance(r, Reply) else Reply(r) for r in replies)
    text = deque(transcripts)
    backend = (simulator or {}).pop("backend", None) or (lambda: Backend(script, text))
    person = Person()
    async with GeminiSimulator(backend, **(simulator or {})) as server:
        model = realtime(server, **options)
        async with join_agent(model, person, **(agent or {})) as joined:
            yield joined, person, server
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left


def virtual(function):
    """Run a test in virtual time; both ends of every socket are on its loop."""

    @functools.wraps(function)
    def run(**parameters):
        run_virtual(function(**parameters), grace=0.0)

    return run


def now():
    return asyncio.get_running_loop().time()


async def until(condition, seconds=30.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def texts(session):
    """Return the conversation that the server has, as (role, text)."""
    return [
        (content["role"], text)
        for content in session.conversation
        if (text := "".join(part.get("text", "") for part in content["parts"]).strip())
    ]


def sent(server, kind):
    """Return the client's messages of this kind, on all connections."""
    return [
        message[kind] if kind in message else message["realtimeInput"][kind]
        for session in server.sessions
        for message in session.messages_in
        if kind in message or kind in message.get("realtimeInput", {})
    ]
