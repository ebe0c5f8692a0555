"""Outages and races that loopback is too fast for, in virtual time: nothing is lost or claimed."""

import asyncio
from functools import partial

import pytest
from test_streaming_parts import REPLY, Talker, Vendor, virtual_time, words_of

from duologue.events import ErrorEvent
from duologue.items import AgentItem, UserItem
from duologue.pipeline.interfaces import TextDelta
from duologue.providers import cartesia, deepgram, elevenlabs, openai
from duologue.simulators.cartesia.server import CartesiaSimulator
from duologue.simulators.deepgram.server import DeepgramSimulator
from duologue.simulators.elevenlabs.server import ElevenLabsSimulator
from duologue.simulators.faults import Delay, Fault, Handshake
from duologue.simulators.openai.server import OpenAISimulator
from fake_edge import FakeEdge, agent_items, events_of

CARTESIA = Vendor(CartesiaSimulator, cartesia.STT, partial(cartesia.TTS, "v"))
LOCAL_TURNS = {
    "elevenlabs": Vendor(ElevenLabsSimulator, elevenlabs.STT, partial(elevenlabs.TTS, "v")),
    "nova": Vendor(DeepgramSimulator, partial(deepgram.STT, "nova-3"), deepgram.TTS),
    "openai": Vendor(
        CartesiaSimulator, openai.STT, partial(cartesia.TTS, "v"), recogniser=OpenAISimulator
    ),
}


class Pausing(Talker):
    """Pauses in the middle of its reply, as a model does that calls a tool."""

    def __init__(self, pause_s):
        super().__init__()
        self.pause_s = pause_s

    async def generate(self, instructions, history, tools):
        first, rest = REPLY.split("Six", 1)
        yield TextDelta(first)
        await asyncio.sleep(self.pause_s)
        yield TextDelta("Six" + rest)


@pytest.mark.parametrize("pause_s", [0.9, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3])
def test_text_that_crosses_the_end_of_its_context_is_spoken_all_the_same(pause_s):
    """Cartesia ends a context a second after its last audio; text may be on its way then."""

    @virtual_time
    async def run():
        edge = FakeEdge()
        async with CARTESIA.conversation(edge, Pausing(pause_s)) as (agent, services):
            services.voice.faults = [Fault(Delay(150.0), times=1000)]
            await agent.simple_response("go on")
            (item,) = agent_items(agent)
            assert item.text == REPLY
            length = (await words_of(REPLY))[-1][2]
            assert item.played_ms >= length * 1000 - 100
            assert not events_of(agent, ErrorEvent)
        assert all(not one.open_contexts for one in services.voices)

    run()


@virtual_time
async def test_a_voice_without_times_goes_on_behind_what_was_heard():
    """The service leaves out the times of some texts; a lost connection must not repeat them."""
    edge = FakeEdge()
    silent = Vendor(partial(CartesiaSimulator, timestamps=False), cartesia.STT, CARTESIA.tts)
    async with silent.conversation(edge) as (agent, services):
        services.voice.faults = [Fault(Delay(1.0), times=1000)]
        speech = agent.simple_response("go on")
        await asyncio.sleep(0.3)
        await services.kill("voice")
        await speech
        (item,) = agent_items(agent)
        assert item.text == REPLY
        length = (await words_of(REPLY))[-1][2]
        assert item.played_ms <= length * 1000 + 1000


@pytest.mark.parametrize("vendor", LOCAL_TURNS.values(), ids=LOCAL_TURNS)
@pytest.mark.parametrize("outage_s", [0.5, 1.5])
@pytest.mark.parametrize("at", [0.2, 0.9, 1.1, 1.3])
def test_a_turn_that_ends_in_an_outage_is_recognised_whole(vendor, outage_s, at):
    @virtual_time
    async def run():
        edge = FakeEdge()
        words = "what is the time in the city of Paris"
        async with vendor.conversation(edge, Talker("Noon."), [words]) as (agent, services):
            await edge.be_silent(0.5)

            async def cut():
                await asyncio.sleep(at)
                services.recogniser.faults = [Fault(Handshake(503), times=100)]
                await services.kill("recogniser")
                await asyncio.sleep(outage_s)
                services.recogniser.faults = []

            cutting = asyncio.create_task(cut())
            await edge.speak(1.0)
            await edge.be_silent(8.0)
            await cutting
            said = [item.text for item in agent.conversation if isinstance(item, UserItem)]
            assert said == [words]
            replies = [item.text for item in agent.conversation if isinstance(item, AgentItem)]
            assert replies == ["Noon."]
            assert not events_of(agent, ErrorEvent)

    run()
