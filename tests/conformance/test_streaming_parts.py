"""What every vendor's streaming voice and recogniser must do in a pipeline, in virtual time."""

import asyncio
import random
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import pytest

from duologue.events import ErrorEvent
from duologue.items import AgentItem, UserItem
from duologue.pipeline.interfaces import TextDelta
from duologue.providers import cartesia, deepgram, elevenlabs, openai
from duologue.simulators._speech.recognition import RecognizerSession
from duologue.simulators._speech.voices import ToneVoice
from duologue.simulators.cartesia.server import CartesiaSimulator
from duologue.simulators.deepgram.server import DeepgramSimulator
from duologue.simulators.elevenlabs.server import ElevenLabsSimulator
from duologue.simulators.openai.server import OpenAISimulator
from duologue.testing import run_virtual
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, agent_items, events_of, join_agent

REPLY = "One two three, four five. Six seven eight nine ten! Eleven twelve thirteen."
CUTS = 200
KILLS = 100


class Talker:
    """A language model that always says the same."""

    model = "talker"
    tools_reliable = True

    def __init__(self, text=REPLY):
        self.text = text
        self.requests = 0

    async def prepare(self, instructions, tools): ...

    async def generate(self, instructions, history, tools):
        self.requests += 1
        for word in self.text.split(" "):
            yield TextDelta(f"{word} ")
            await asyncio.sleep(0.005)


@dataclass
class Vendor:
    simulator: Any
    stt: Any
    tts: Any
    timing: str = "words"
    pause_s: float = 0.05
    """Seconds between two replies, for a service that speaks only so many a minute."""
    recogniser: Any = None
    """Simulator of the recogniser, if it is of another vendor."""

    @asynccontextmanager
    async def conversation(self, edge, llm=None, transcripts=()):
        async with AsyncExitStack() as stack:
            voice = await stack.enter_async_context(self.simulator(transcripts=transcripts))
            recogniser = voice
            if self.recogniser is not None:
                recogniser = await stack.enter_async_context(
                    self.recogniser(replies=[], transcripts=transcripts)
                )
            stt = self.stt(base_url=recogniser.url, api_key=recogniser.key)
            tts = self.tts(base_url=voice.url, api_key=voice.key)
            join = join_agent(llm or Talker(), edge, stt=stt, tts=tts, vad=EnergyVAD())
            yield await stack.enter_async_context(join), Services(voice, recogniser)


class Services:
    """The simulators of a conversation; the same one twice for a vendor of both."""

    def __init__(self, voice, recogniser):
        self.voice, self.recogniser = voice, recogniser

    @property
    def recognisers(self):
        return [one for one in self.recogniser.sessions if isinstance(one, RecognizerSession)]

    @property
    def voices(self):
        return [one for one in self.voice.sessions if not isinstance(one, RecognizerSession)]

    async def kill(self, part):
        """Cut the newest connection of a part."""
        service, sessions = {
            "recogniser": (self.recogniser, self.recognisers),
            "voice": (self.voice, self.voices),
        }[part]
        if sessions:
            await service.kill(service.sessions.index(sessions[-1]))


def virtual_time(test):
    """Run a test in virtual time, without waiting for sockets: both ends are on its loop."""

    @wraps(test)
    def run(**fixtures):
        run_virtual(test(**fixtures), grace=0.0)

    return run


VENDORS = {
    "cartesia": Vendor(CartesiaSimulator, cartesia.STT, partial(cartesia.TTS, "v")),
    "elevenlabs": Vendor(ElevenLabsSimulator, elevenlabs.STT, partial(elevenlabs.TTS, "v")),
    "deepgram": Vendor(DeepgramSimulator, deepgram.STT, deepgram.TTS, timing="none"),
    "deepgram slowly": Vendor(
        partial(DeepgramSimulator, flux_speed=1.2), deepgram.STT, deepgram.TTS, timing="told"
    ),
    "deepgram before": Vendor(
        DeepgramSimulator,
        partial(deepgram.STT, "nova-3"),
        partial(deepgram.TTS, "aura-2-thalia-en"),
        timing="clauses",
        pause_s=2.0,
    ),
    "cartesia by hand": Vendor(
        CartesiaSimulator, partial(cartesia.STT, language="de"), partial(cartesia.TTS, "v")
    ),
    "openai": Vendor(
        CartesiaSimulator,
        openai.STT,
        partial(cartesia.TTS, "v"),
        recogniser=OpenAISimulator,
    ),
}
vendors = pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)


async def words_of(text, rate=24000):
    """Return the words of a text with the seconds at which the simulated voice speaks them."""
    words, at = [], 0.0
    async for piece in ToneVoice(rate).speak(text):
        words += [(word, at + start, at + end) for word, start, end in piece.words]
        at += len(piece.samples) / rate
    return words


@vendors
@virtual_time
async def test_a_conversation_has_one_connection_for_each_part(vendor):
    edge, llm = FakeEdge(), Talker("Yes, of course.")
    transcripts = [f"this is sentence {number}" for number in range(20)]
    async with vendor.conversation(edge, llm, transcripts=transcripts) as (agent, services):
        for _ in transcripts:
            await edge.speak(0.8)
            await edge.be_silent(3.0)
        said = [item.text for item in agent.conversation if isinstance(item, UserItem)]
        assert said == transcripts
        assert [item.text for item in agent_items(agent)] == ["Yes, of course."] * 20
        assert len(services.voices) == len(services.recognisers) == 1
        assert not events_of(agent, ErrorEvent)
    assert all(not session.open_contexts for session in services.voices)


@vendors
@virtual_time
async def test_heard_text_after_a_cut_is_what_was_played(vendor):
    edge = FakeEdge()
    rng = random.Random(7)  # noqa: S311 - the moments of cuts
    words = await words_of(REPLY)
    async with vendor.conversation(edge) as (agent, services):
        for _ in range(CUTS):
            agent.simple_response("go on")
            await asyncio.sleep(0.1 + rng.random() * 5.5)
            agent.interrupt()
            await asyncio.sleep(vendor.pause_s)
        cuts = [item for item in agent_items(agent) if item.state == "cut"]
        assert len(cuts) > CUTS / 2
        for item in cuts:
            played = item.played_ms / 1000
            begun = sum(start < played for _, start, _ in words)
            heard = len(item.text.split())
            assert REPLY.startswith(item.text)
            if vendor.timing in ("words", "told"):
                assert heard <= begun, (item.text, played)
                assert begun - heard <= 1, (item.text, played)
        await asyncio.sleep(3)
        assert all(not session.open_contexts for session in services.voices)
        assert not events_of(agent, ErrorEvent)


@vendors
@virtual_time
async def test_lost_connections_lose_no_words(vendor):
    edge = FakeEdge()
    rng = random.Random(11)  # noqa: S311 - the moments of kills
    transcripts = [f"sentence number {number}" for number in range(KILLS)]
    async with vendor.conversation(edge, transcripts=transcripts) as (agent, services):
        for _ in range(KILLS):
            killer = asyncio.create_task(kill_soon(services, rng))
            await edge.speak(0.5 + rng.random())
            await edge.be_silent(8.0)
            await killer
        users = [item for item in agent.conversation if isinstance(item, UserItem)]
        replies = [item for item in agent.conversation if isinstance(item, AgentItem)]
        assert len(users) == KILLS
        assert [item.text for item in replies] == [REPLY] * KILLS
        assert {item.state for item in replies} == {"heard"}
        length = (await words_of(REPLY))[-1][2]
        assert min(item.played_ms for item in replies) >= length * 1000 - 100
        assert not events_of(agent, ErrorEvent)


async def kill_soon(services, rng):
    """Cut the connection of a part at a random moment of a turn and its reply."""
    await asyncio.sleep(rng.random() * 8.0)
    await services.kill(rng.choice(["voice", "recogniser"]))
