"""Every `Realtime` of the library, each with a far side that follows the same script.

A new provider joins with one line in `TARGETS`.
"""

import asyncio
import functools
import json
import re
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import replace
from html import unescape
from unittest.mock import patch

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, SessionError
from duologue.pipeline.interfaces import TextDelta, ToolRequest
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import SCRIPTED_CAPABILITIES, Reply, ScriptedRealtime, run_virtual
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, FakeTTS, join_agent

RATE = 16000
FIRST_HZ = 400
STEP_HZ = 100
POLICY = ReconnectPolicy(base_s=0.1, cap_s=1.0, max_attempts=20)


class FakePerson(FakeEdge):
    """A person who is always there: silent, or speaking while the test says so."""

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
        """Speak; each turn has its own pitch, by which the far sides recognise it."""
        self.turn += 1
        self.voice = True
        await asyncio.sleep(seconds)
        self.voice = False


class FarSide:
    """The far side of a model: what it has received, and what can be done to it."""

    can_lose_connection = False
    """Whether its connection can be lost."""
    outcome = "replayed"
    """How a session continues after that."""
    failure: str | None = "overloaded"
    """The error reported for a reply that failed for that reason."""

    def __init__(self, realtime):
        self.realtime = realtime

    async def drop_connection(self):
        """Break the connection without a message."""
        raise NotImplementedError

    async def known_history(self):
        """Return what the model knows, as `history` does, once it was told what was truncated."""
        if self.realtime.capabilities.truncation == "as_text":
            await asyncio.sleep(20)  # The reply that it believes was heard is over by then.
        return self.history()

    def history(self):
        """Return what the model knows as (role, text) pairs, or None if that can't be seen."""
        return

    def received_s(self):
        """Return the seconds of audio that the model received, or None if that can't be seen."""
        return

    def tools(self):
        """Return the names of the tools that it knows now."""
        raise NotImplementedError

    def instructions(self):
        raise NotImplementedError

    def images(self):
        """Return how many images it was sent."""
        raise NotImplementedError


class _Scripted(ScriptedRealtime):
    def __init__(self, *args, **options):
        super().__init__(*args, reconnect=POLICY, **options)
        self.setup_now = None

    def open(self, setup):
        self.setup_now = setup
        return super().open(setup)


class _ScriptedFar(FarSide):
    can_lose_connection = True

    async def drop_connection(self):
        async def fail():
            raise SessionError("the line broke", kind=ErrorKind.RECYCLE)

        link = self.realtime._session.connections.current
        if link is not None:
            link.connection._tasks.create_task(fail())
        await asyncio.sleep(0)

    def received_s(self):
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

    def images(self):
        return sum(type(c).__name__ == "SendVideo" for c in self.realtime.commands)


@asynccontextmanager
async def scripted(replies, transcripts, **options):
    profile = replace(SCRIPTED_CAPABILITIES, user_transcripts="partial", video=True)
    model = _Scripted(replies, transcripts=transcripts, capabilities=profile, **options)
    yield model, _ScriptedFar(model)


class _LocalFar(FarSide):
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

    def images(self):
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


class _AlwaysOver:
    """Votes that every turn is over."""

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
        turn_detection=_AlwaysOver(),
        endpointing=Endpointing(speculate_s=0.3, vote_s=0.4),
        **options,
    )
    yield model, _LocalFar(model)


def turn_number(samples, rate):
    """Return which of the person's turns this audio is, by its pitch."""
    spectrum = np.abs(np.fft.rfft(samples.astype(float)))
    hz = float(np.argmax(spectrum)) * rate / max(1, len(samples))
    return max(0, round((hz - FIRST_HZ) / STEP_HZ))


class Backend(ScriptedRealtime):
    """The backend of a simulator, which recognises a turn by its pitch wherever it gets it."""

    def __init__(self, replies, transcripts):
        profile = replace(
            SCRIPTED_CAPABILITIES, manual_turns=True, video=True, user_transcripts="final"
        )
        super().__init__(manual=True, capabilities=profile)
        self.replies = replies
        self.words = transcripts
        self.turns = []

    def open(self, setup):
        return _TurnRecogniser(self, super().open(setup))


class _TurnRecogniser:
    def __init__(self, backend, connection):
        self.backend = backend
        self.run = connection.run
        self._transmit = connection.transmit
        self.audio = []

    def transmit(self, command):
        match type(command).__name__:
            case "SendAudio":
                self.audio.append(command.frame.samples)
            case "EndTurn":
                turn = turn_number(np.concatenate(self.audio), self.backend.capabilities.input_rate)
                self.backend.turns.append(turn)
                self.backend.transcripts.clear()
                if turn < len(self.backend.words):
                    self.backend.transcripts.append(self.backend.words[turn])
                self.audio.clear()
        self._transmit(command)


class _OpenAIFar(FarSide):
    can_lose_connection = True

    def __init__(self, realtime, simulator):
        super().__init__(realtime)
        self.simulator = simulator

    @property
    def session(self):
        return self.simulator.sessions[-1]

    async def drop_connection(self):
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

    def received_s(self):
        return sum(session.audio_in_samples for session in self.simulator.sessions) / 24000

    def tools(self):
        return [tool["name"] for tool in self.session.session_object["tools"]]

    def instructions(self):
        return self.session.session_object["instructions"]

    def images(self):
        return sum(len(session.images) for session in self.simulator.sessions)


def openai(transport):
    @asynccontextmanager
    async def target(replies, transcripts, *, simulator=None, **options):
        from duologue.providers.openai import Realtime, ServerVAD
        from duologue.testing import OpenAISimulator

        script = deque(r if isinstance(r, Reply) else Reply(r) for r in replies)
        words = tuple(transcripts)
        async with OpenAISimulator(lambda: Backend(script, words), **(simulator or {})) as server:
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

    return target


def _paced_voices():
    """Let the voices of simulated services speak as fast as the scripted replies do."""
    return patch.multiple(
        "duologue.simulators._speech.voices", CHAR_S=1 / 15, GAP_S=0.06, PAUSE_S=0.06
    )


def half_cascade(model_target):
    """Return the target of a model that hears, and whose text a streaming TTS speaks."""

    @asynccontextmanager
    async def target(replies, transcripts, **options):
        from duologue.pipeline.reply_voice import TTSVoice
        from duologue.providers import elevenlabs
        from duologue.simulators.elevenlabs.server import ElevenLabsSimulator

        async with (
            ElevenLabsSimulator() as service,
            model_target(replies, transcripts, output="text", **options) as (model, far),
        ):
            tts = elevenlabs.TTS("v", base_url=service.url, api_key=service.key)
            model.use_voice(TTSVoice(tts))
            with _paced_voices():
                yield model, far

    return target


@asynccontextmanager
async def streaming_parts(replies, transcripts, **options):
    """Yield a pipeline whose recogniser and voice keep connections to services."""
    from duologue.pipeline.pipeline import Pipeline
    from duologue.providers import cartesia, deepgram
    from duologue.simulators.cartesia.server import CartesiaSimulator
    from duologue.simulators.deepgram.server import DeepgramSimulator

    async with (
        CartesiaSimulator() as voices,
        DeepgramSimulator(transcripts=tuple(transcripts)) as recognisers,
    ):
        model = Pipeline(
            llm=_LocalLLM([r if isinstance(r, Reply) else Reply(r) for r in replies]),
            stt=deepgram.STT(base_url=recognisers.url, api_key=recognisers.key),
            tts=cartesia.TTS("v", base_url=voices.url, api_key=voices.key),
            vad=EnergyVAD(),
            **options,
        )
        with _paced_voices():
            yield model, _LocalFar(model)


_CUT = re.compile(
    r"\[The person interrupted you\. Of your last (?:message|(\d+) messages) "
    r'(?:nothing was heard\.|only this was heard: "(.*)")\]'
)


class _GeminiFar(FarSide):
    can_lose_connection = True
    outcome = "restored"
    failure = "response rejected"

    def __init__(self, realtime, simulator):
        super().__init__(realtime)
        self.simulator = simulator

    @property
    def session(self):
        return self.simulator.sessions[-1]

    async def drop_connection(self):
        await self.simulator.kill()

    def history(self):
        """Return the history as a model understands it that follows the notes it was sent."""
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

    async def known_history(self):
        # Gemini 3.1 is told what was truncated only with the next text.
        return None if "3.1" in self.realtime.capabilities.model else await super().known_history()

    def received_s(self):
        return sum(session.audio_in_samples for session in self.simulator.sessions) / 16000

    def tools(self):
        return [tool["name"] for tool in self.session.tools]

    def instructions(self):
        return self.session.system_instruction

    def images(self):
        sessions = self.simulator.sessions
        turns = [t for s in sessions for content in s.conversation for t in content["parts"]]
        return sum(len(s.images) for s in sessions) + sum("inlineData" in part for part in turns)


def gemini(model):
    @asynccontextmanager
    async def target(replies, transcripts, *, simulator=None, **options):
        from duologue.providers.gemini import Realtime, ServerVAD
        from duologue.testing import GeminiSimulator

        script = deque(r if isinstance(r, Reply) else Reply(r) for r in replies)
        words = tuple(transcripts)
        async with GeminiSimulator(lambda: Backend(script, words), **(simulator or {})) as server:
            options.setdefault("reconnect", POLICY)
            options.setdefault("api_key", server.key)
            options.setdefault("turn_detection", ServerVAD(silence_duration_ms=300))
            options.setdefault("vad", EnergyVAD())
            realtime = Realtime(model, base_url=server.url, **options)
            yield realtime, _GeminiFar(realtime, server)

    return target


class _QwenFar(_OpenAIFar):
    """Its history is what the model was sent, because nothing can be deleted there."""

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

    def received_s(self):
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
    async with QwenSimulator(lambda: Backend(script, words), **simulator) as server:
        options.setdefault("reconnect", POLICY)
        options.setdefault("api_key", server.key)
        options.setdefault("turn_detection", ServerVAD(silence_duration_ms=300))
        options.setdefault("vad", EnergyVAD())
        yield (model := Realtime(base_url=server.url, **options)), _QwenFar(model, server)


class _NovaFar(FarSide):
    can_lose_connection = True
    failure = None

    def __init__(self, realtime, simulator):
        super().__init__(realtime)
        self.simulator = simulator

    @property
    def session(self):
        return self.simulator.sessions[-1]

    async def drop_connection(self):
        await self.simulator.kill()

    def history(self):
        """Return the history as a model understands it that follows the notes it was sent."""
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

    async def known_history(self):
        # It is told what was truncated only with the next text.
        return

    def received_s(self):
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
    async with NovaSimulator(lambda: Backend(script, words), **simulator) as server:
        keys = server.credentials
        options.setdefault("reconnect", POLICY)
        options.setdefault("credentials", Credentials(keys.access_key, keys.secret_key))
        options.setdefault("vad", EnergyVAD())
        model = Realtime(base_url=server.url, **options)
        yield model, _NovaFar(model, server)


REPLIES_UNASKED = frozenset({"gemini-3.8", "gemini-3.1", "nova"})
"""Models that speak by themselves once they have their tool results, even if nobody wants it."""


CANCELS_CALLS = frozenset({"gemini-3.8", "gemini-3.1"})
"""Models whose service cancels running tool calls when the person speaks."""


WITHOUT_IMAGES = frozenset({"local", "streaming-parts", "nova"})
"""Models that take no images."""


SPEAKS_BY_ITSELF = frozenset({"openai-websocket", "openai-webrtc"})
"""Models of OpenAI that answer in audio."""


TARGETS = {
    "scripted": scripted,
    "local": local,
    "streaming-parts": streaming_parts,
    "openai-websocket": openai("websocket"),
    "openai-webrtc": openai("webrtc"),
    "openai-text": half_cascade(openai("websocket")),
    "gemini-3.8": gemini("gemini-3.8-live"),
    "gemini-3.1": gemini("gemini-3.1-flash-live-preview"),
    "qwen": qwen,
    "qwen-text": half_cascade(qwen),
    "nova": nova,
}


@asynccontextmanager
async def conversation(target, replies=(), transcripts=(), *, agent=None, **options):
    """Run an agent that talks with that `Realtime`; yield (agent, the person, the far side)."""
    person = FakePerson()
    async with (
        TARGETS[target](replies, transcripts, **options) as (model, far),
        join_agent(model, person, experimental_tools=True, **(agent or {})) as talker,
    ):
        yield talker, person, far
    left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    assert not left, left


def conformance(function):
    """Run a test once for every `Realtime`, each in virtual time."""

    @pytest.mark.parametrize("target", TARGETS)
    @functools.wraps(function)
    def run(target, **more):
        run_virtual(function(target, **more), grace=0.0)

    return run


__all__ = ["POLICY", "TARGETS", "FakeTTS", "conformance", "conversation"]
