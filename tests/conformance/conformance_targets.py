"""Every Realtime of the house, each with a far side that follows the same script.

A new provider joins by one line in `SUBJECTS`.
"""

import asyncio
import functools
import json
import re
from collections import deque
from contextlib import asynccontextmanager
from html import unescape

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, SessionError
from duologue.pipeline.interfaces import TextDelta, ToolRequest
from duologue.realtime.capabilities import Capabilities
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import Reply, ScriptedRealtime, run_virtual
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, FakeTTS, join_agent

RATE = 16000
FIRST_HZ = 400
STEP_HZ = 100
POLICY = ReconnectPolicy(base_s=0.1, cap_s=1.0, max_attempts=20)


class Line(FakeEdge):
    """A person who is there all the time: silent, or speaking while the test says so."""

    def __init__(self):
        super().__init__()
        self.voice = False
        self.sent = 0
        self.at = []
        self.camera = None
        self.turn = -1
        self.spoken_ms = {}

    async def run(self, person, ready):
        self.person = person
        ready()
        loop = asyncio.get_running_loop()
        index = 0
        while not self.hung_up.is_set():
            await asyncio.sleep(0.02)
            at = np.arange(index * 320, (index + 1) * 320)
            hz = FIRST_HZ + STEP_HZ * self.turn
            tone = (9000 * np.sin(2 * np.pi * hz / RATE * at)).astype(np.int16)
            person.push_audio(AudioFrame(tone if self.voice else np.zeros(320, np.int16), RATE))
            self.sent += 320
            if self.voice:
                self.spoken_ms[self.turn] = self.spoken_ms.get(self.turn, 0) + 20
            if self.camera is not None and index % 2 == 0:
                person.push_video(lambda: self.camera(loop.time()))
            index += 1

    def play(self, frame):
        super().play(frame)
        if frame is not None and int(np.abs(frame.samples.astype(int)).max()) > 300:
            self.at.append(asyncio.get_running_loop().time())

    async def speak(self, seconds):
        """Speak; each turn has a pitch of its own, by which far sides know what was said."""
        self.turn += 1
        self.voice = True
        await asyncio.sleep(seconds)
        self.voice = False


class Far:
    """The far side of a model: what it has got, and what can be done to it."""

    breaks = False
    """Its connection can be lost."""
    outcome = "replayed"
    """How a session goes on after that."""
    failure = "overloaded"
    """What is told of a reply that failed for that reason."""

    def __init__(self, realtime):
        self.realtime = realtime

    async def lose(self):
        """Break the connection without a word."""
        raise NotImplementedError

    async def known(self):
        """What the model knows, as `history`, once it has been told what was cut."""
        if self.realtime.capabilities.truncation == "as_text":
            await asyncio.sleep(20)  # Its own turn, which it takes to be heard, is over then.
        return self.history()

    def history(self):
        """What the model knows, as (role, words); None where that can't be seen."""
        return

    def heard_s(self):
        """Seconds of sound that the model was given; None where that can't be seen."""
        return

    def tools(self):
        """Names of the tools that it knows now."""
        raise NotImplementedError

    def instructions(self):
        raise NotImplementedError

    def pictures(self):
        """How many pictures it was shown."""
        raise NotImplementedError


class _Scripted(ScriptedRealtime):
    def __init__(self, *args, **options):
        super().__init__(*args, reconnect=POLICY, **options)
        self.setup_now = None

    def open(self, setup):
        self.setup_now = setup
        return super().open(setup)


class _ScriptedFar(Far):
    breaks = True

    async def lose(self):
        async def break_off():
            raise SessionError("the line broke", kind=ErrorKind.RECYCLE)

        link = self.realtime._session.connections.current
        if link is not None:
            link.connection._tasks.create_task(break_off())
        await asyncio.sleep(0)

    def heard_s(self):
        return self.realtime.received_samples / self.realtime.capabilities.input_rate

    def _updates(self, name):
        found = getattr(self.realtime.setup_now, name)
        for command in self.realtime.commands:
            if type(command).__name__ == "UpdateSession" and getattr(command, name) is not None:
                found = getattr(command, name)
        return found

    def tools(self):
        return [tool.name for tool in self._updates("tools")]

    def instructions(self):
        return self._updates("instructions")

    def pictures(self):
        return sum(type(c).__name__ == "SendVideo" for c in self.realtime.commands)


@asynccontextmanager
async def scripted(replies, transcripts, **options):
    profile = Capabilities("scripted", "script", user_transcripts="partial", video=True)
    model = _Scripted(replies, transcripts=transcripts, capabilities=profile, **options)
    yield model, _ScriptedFar(model)


class _LocalFar(Far):
    @property
    def _connection(self):
        return self.realtime._session.connections.current.connection

    def history(self):
        out = []
        for item in self._connection._history.values():
            kind = type(item).__name__
            if kind in ("UserItem", "AgentItem") and item.text:
                out.append(("user" if kind == "UserItem" else "agent", item.text.strip()))
        return out

    def tools(self):
        return [tool.name for tool in self._connection._tools]

    def instructions(self):
        return self._connection._instructions

    def pictures(self):
        return 0


class _LocalLLM:
    model = "fake"
    tools_reliable = True

    def __init__(self, replies):
        self.replies = deque(replies)

    async def prepare(self, instructions, tools):
        pass

    async def generate(self, instructions, history, tools):
        reply = self.replies.popleft() if self.replies else Reply("")
        await asyncio.sleep(reply.after_s)
        if reply.fails is not None:
            raise SessionError(reply.fails, kind=ErrorKind.RETRY)
        if reply.text:
            yield TextDelta(reply.text)
        for index, use in enumerate(reply.tools):
            yield ToolRequest(f"call_{len(history)}_{index}", use.name, json.dumps(use.arguments))


class _LocalTTS:
    rate = 24000

    async def synthesize(self, text):
        at = np.arange(round(len(text) / 15 * 24000))
        tone = (8000 * np.sin(2 * np.pi * 440 / 24000 * at)).astype(np.int16)
        for begin in range(0, len(tone), 2400):
            await asyncio.sleep(0.001)
            yield AudioFrame(tone[begin : begin + 2400], 24000)


class _LocalSTT:
    rate = RATE

    def __init__(self, transcripts):
        self.transcripts = deque(transcripts)

    def stream(self):
        return _LocalStream(self.transcripts.popleft() if self.transcripts else "...")


class _LocalStream:
    def __init__(self, words):
        self.words = words

    def push(self, frame):
        pass

    async def text(self):
        await asyncio.sleep(0.01)
        return self.words

    async def close(self):
        pass


class _Over:
    """A turn is over as soon as anybody asks."""

    rate = RATE

    async def end_of_turn(self, audio, text):
        return 1.0


@asynccontextmanager
async def local(replies, transcripts, **options):
    from duologue.providers.local import Realtime
    from duologue.vad.endpointing import Endpointing

    model = Realtime(
        "tiny",
        llm=_LocalLLM([r if isinstance(r, Reply) else Reply(r) for r in replies]),
        stt=_LocalSTT(transcripts),
        tts=_LocalTTS(),
        vad=EnergyVAD(),
        turn_detection=_Over(),
        endpointing=Endpointing(speculate_s=0.3, vote_s=0.4),
        **options,
    )
    yield model, _LocalFar(model)


def turn_of(samples, rate):
    """Which of the person's turns this sound is, by its pitch."""
    spectrum = np.abs(np.fft.rfft(samples.astype(float)))
    hz = float(np.argmax(spectrum)) * rate / max(1, len(samples))
    return max(0, round((hz - FIRST_HZ) / STEP_HZ))


class Brain(ScriptedRealtime):
    """The model inside a simulator: knows a turn by its pitch, wherever it hears it."""

    def __init__(self, replies, transcripts):
        profile = Capabilities("scripted", "script", manual_turns=True, video=True)
        super().__init__(manual=True, capabilities=profile)
        self.replies = replies
        self.words = transcripts
        self.turns = []

    def open(self, setup):
        return _Hearing(self, super().open(setup))


class _Hearing:
    def __init__(self, brain, connection):
        self.brain = brain
        self.run = connection.run
        self._transmit = connection.transmit
        self.sound = []

    def transmit(self, command):
        match type(command).__name__:
            case "SendAudio":
                self.sound.append(command.frame.samples)
            case "EndTurn":
                turn = turn_of(np.concatenate(self.sound), self.brain.capabilities.input_rate)
                self.brain.turns.append(turn)
                self.brain.transcripts.clear()
                if turn < len(self.brain.words):
                    self.brain.transcripts.append(self.brain.words[turn])
                self.sound.clear()
        self._transmit(command)


class _OpenAIFar(Far):
    breaks = True

    def __init__(self, realtime, simulator):
        super().__init__(realtime)
        self.simulator = simulator

    @property
    def session(self):
        return self.simulator.sessions[-1]

    async def lose(self):
        await self.simulator.kill()

    def history(self):
        out = []
        for item in self.session.conversation:
            words = " ".join(
                part.get("transcript") or part.get("text") or "" for part in item.get("content", [])
            ).strip()
            if item["type"] == "message" and words:
                out.append(("user" if item["role"] == "user" else "agent", words))
        return out

    def heard_s(self):
        return sum(session.audio_in_samples for session in self.simulator.sessions) / 24000

    def tools(self):
        return [tool["name"] for tool in self.session.session_object["tools"]]

    def instructions(self):
        return self.session.session_object["instructions"]

    def pictures(self):
        return sum(len(session.images) for session in self.simulator.sessions)


def openai(transport):
    @asynccontextmanager
    async def subject(replies, transcripts, *, simulator=None, **options):
        from duologue.providers.openai import Realtime, ServerVAD
        from duologue.testing import OpenAISimulator

        script = deque(r if isinstance(r, Reply) else Reply(r) for r in replies)
        words = tuple(transcripts)
        async with OpenAISimulator(lambda: Brain(script, words), **(simulator or {})) as server:
            options.setdefault("reconnect", POLICY)
            options.setdefault("api_key", server.key)
            options.setdefault("turn_detection", ServerVAD(silence_duration_ms=300))
            options.setdefault("vad", EnergyVAD())
            model = Realtime(
                transport=transport,
                base_url=server.url,
                **options,
            )
            yield model, _OpenAIFar(model, server)

    return subject


_CUT = re.compile(
    r"\[The person interrupted you\. Of your last (?:message|(\d+) messages) "
    r'(?:nothing was heard\.|only this was heard: "(.*)")\]'
)


class _GeminiFar(Far):
    breaks = True
    outcome = "restored"
    failure = "response rejected"

    def __init__(self, realtime, simulator):
        super().__init__(realtime)
        self.simulator = simulator

    @property
    def session(self):
        return self.simulator.sessions[-1]

    async def lose(self):
        await self.simulator.kill()

    def history(self):
        """As a model reads it that does what it is told in words."""
        out = []
        for content in self.session.conversation:
            words = "".join(part.get("text") or "" for part in content["parts"]).strip()
            cut = _CUT.fullmatch(words)
            if cut is not None:
                for _ in range(int(cut[1] or 1)):
                    assert out.pop()[0] == "agent"
                if cut[2]:
                    out.append(("agent", cut[2]))
            elif words and not words.startswith(("[Not said by the person", "Say exactly")):
                out.append(("user" if content["role"] == "user" else "agent", words))
        return out

    async def known(self):
        # Gemini 3.1 is told what was cut with the next text only.
        return None if "3.1" in self.realtime.capabilities.model else await super().known()

    def heard_s(self):
        return sum(session.audio_in_samples for session in self.simulator.sessions) / 16000

    def tools(self):
        return [tool["name"] for tool in self.session.tools]

    def instructions(self):
        return self.session.system_instruction

    def pictures(self):
        sessions = self.simulator.sessions
        turns = [t for s in sessions for content in s.conversation for t in content["parts"]]
        return sum(len(s.images) for s in sessions) + sum("inlineData" in part for part in turns)


def gemini(model):
    @asynccontextmanager
    async def subject(replies, transcripts, *, simulator=None, **options):
        from duologue.providers.gemini import AutomaticActivity, Realtime
        from duologue.testing import GeminiSimulator

        script = deque(r if isinstance(r, Reply) else Reply(r) for r in replies)
        words = tuple(transcripts)
        async with GeminiSimulator(lambda: Brain(script, words), **(simulator or {})) as server:
            options.setdefault("reconnect", POLICY)
            options.setdefault("api_key", server.key)
            options.setdefault("turn_detection", AutomaticActivity(silence_duration_ms=300))
            options.setdefault("vad", EnergyVAD())
            realtime = Realtime(model, base_url=server.url, **options)
            yield realtime, _GeminiFar(realtime, server)

    return subject


class _QwenFar(_OpenAIFar):
    """What it says of its history is what the model was told: nothing can be taken back there."""

    def history(self):
        out = []
        for role, words in super().history():
            told = re.fullmatch(r"<heard>[^:]*?(?:: (.*)|nothing\.)</heard>", words)
            if told is None:
                out.append((role, words))
                continue
            last = max(at for at, (role, _) in enumerate(out) if role == "agent")
            out[last : last + 1] = [("agent", unescape(told[1]))] if told[1] else []
        return out

    def heard_s(self):
        return sum(session.audio_in_samples for session in self.simulator.sessions) / 16000

    def tools(self):
        return [tool["function"]["name"] for tool in self.session.session_object["tools"]]


@asynccontextmanager
async def qwen(replies, transcripts, *, simulator=None, **options):
    from duologue.providers.qwen import Realtime, ServerVAD
    from duologue.testing import QwenSimulator

    script = deque(r if isinstance(r, Reply) else Reply(r) for r in replies)
    words = tuple(transcripts)
    simulator = {"done_after_cancel": False, **(simulator or {})}
    async with QwenSimulator(lambda: Brain(script, words), **simulator) as server:
        options.setdefault("reconnect", POLICY)
        options.setdefault("api_key", server.key)
        options.setdefault("turn_detection", ServerVAD(silence_duration_ms=300))
        options.setdefault("vad", EnergyVAD())
        yield (model := Realtime(base_url=server.url, **options)), _QwenFar(model, server)


class _NovaFar(Far):
    breaks = True
    failure = None

    def __init__(self, realtime, simulator):
        super().__init__(realtime)
        self.simulator = simulator

    @property
    def session(self):
        return self.simulator.sessions[-1]

    async def lose(self):
        await self.simulator.kill()

    def history(self):
        """As a model reads it that does what it is told in words."""
        out = []
        for said in self.session.conversation:
            for line in said.text.split("\n") if said.role == "USER" else (said.text,):
                heard = re.fullmatch(
                    r"\[The person interrupted you, and has heard no more than: (.*)\]", line
                )
                if heard is not None:
                    assert out.pop()[0] == "agent"
                    if heard[1] != "nothing at all":
                        out.append(("agent", json.loads(heard[1])))
                elif line and not (line.startswith("[") and line.endswith("]")):
                    out.append(("user" if said.role == "USER" else "agent", line))
        return out

    async def known(self):
        # It is told what was cut with the next text only.
        return

    def heard_s(self):
        return sum(session.audio_in_samples for session in self.simulator.sessions) / 16000

    def tools(self):
        return self.session.tools

    def instructions(self):
        return self.session.system_prompt


@asynccontextmanager
async def nova(replies, transcripts, *, simulator=None, **options):
    from duologue.providers.aws import Credentials, Realtime
    from duologue.testing import NovaSimulator

    script = deque(r if isinstance(r, Reply) else Reply(r) for r in replies)
    words = tuple(transcripts)
    simulator = {"endpointing_ms": {"HIGH": 300}, **(simulator or {})}
    async with NovaSimulator(lambda: Brain(script, words), **simulator) as server:
        keys = server.credentials
        options.setdefault("reconnect", POLICY)
        options.setdefault("credentials", Credentials(keys.access_key, keys.secret_key))
        options.setdefault("vad", EnergyVAD())
        model = Realtime(endpoint_uri=server.url, **options)
        yield model, _NovaFar(model, server)


GOES_ON = frozenset({"gemini-3.8", "gemini-3.1", "nova"})
"""Models that speak by themselves once they have their results, also if that is not wanted."""


CANCELS = frozenset({"gemini-3.8", "gemini-3.1"})
"""Models whose service cancels the calls that run when the person speaks."""


SUBJECTS = {
    "scripted": scripted,
    "local": local,
    "openai-websocket": openai("websocket"),
    "openai-webrtc": openai("webrtc"),
    "gemini-3.8": gemini("gemini-3.8-live"),
    "gemini-3.1": gemini("gemini-3.1-flash-live-preview"),
    "qwen": qwen,
    "nova": nova,
}


@asynccontextmanager
async def conversation(subject, replies=(), transcripts=(), *, agent=None, **options):
    """An agent that talks with that Realtime: (agent, the person's line, the far side)."""
    line = Line()
    async with (
        SUBJECTS[subject](replies, transcripts, **options) as (model, far),
        join_agent(model, line, experimental_tools=True, **(agent or {})) as talker,
    ):
        yield talker, line, far
    left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    assert not left, left


def conformance(function):
    """Run a test once for every Realtime, each in virtual time."""

    @pytest.mark.parametrize("subject", SUBJECTS)
    @functools.wraps(function)
    def run(subject, **more):
        run_virtual(function(subject, **more), grace=0.0)

    return run


__all__ = ["POLICY", "SUBJECTS", "FakeTTS", "conformance", "conversation"]
