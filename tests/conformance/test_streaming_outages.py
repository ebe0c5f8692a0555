"""Outages and races that loopback is too fast for, in virtual time: nothing is lost or claimed."""

import asyncio
import random
from functools import partial

import numpy as np
import pytest
from test_streaming_parts import REPLY, Talker, Vendor, virtual_time, words_of

from duologue.audio import AudioFrame
from duologue.events import ErrorEvent
from duologue.items import AgentItem, UserItem
from duologue.pipeline.interfaces import TextDelta
from duologue.providers import cartesia, deepgram, elevenlabs, openai
from duologue.simulators.cartesia.server import CartesiaSimulator
from duologue.simulators.deepgram.server import DeepgramSimulator
from duologue.simulators.elevenlabs.server import ElevenLabsSimulator
from duologue.simulators.faults import Delay, Fault, Handshake, Stall
from duologue.simulators.openai.server import OpenAISimulator
from fake_edge import FakeEdge, agent_items, events_of

CARTESIA = Vendor(CartesiaSimulator, cartesia.STT, partial(cartesia.TTS, "v"))
LOCAL_TURNS = {
    "elevenlabs": Vendor(ElevenLabsSimulator, elevenlabs.STT, partial(elevenlabs.TTS, "v")),
    "cartesia by hand": Vendor(
        CartesiaSimulator, partial(cartesia.STT, turns="local"), CARTESIA.tts
    ),
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


STALLING = {
    "cartesia": (CARTESIA, "chunk"),
    "elevenlabs": (
        Vendor(
            partial(ElevenLabsSimulator, other_spelling=True),
            elevenlabs.STT,
            partial(elevenlabs.TTS, "v"),
        ),
        "audio",
    ),
}


@pytest.mark.parametrize(("vendor", "event"), STALLING.values(), ids=STALLING)
def test_a_voice_that_falls_silent_in_the_middle_is_connected_again(vendor, event):
    """Over its limits a service may stop in a context, with neither an error nor an end."""

    @virtual_time
    async def run():
        async with vendor.conversation(FakeEdge()) as (agent, services):
            services.voice.faults = [Fault(Stall("writing", 600.0), on=event, nth=4)]
            await agent.simple_response("go on")
            (item,) = agent_items(agent)
            assert item.text == REPLY
            assert item.state == "heard"
            assert len(services.voices) == 2
            assert not events_of(agent, ErrorEvent)

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


class FrameReader:
    """A recogniser whose transcript says which frames it got: their numbers, in order."""

    async def text(self, turn, samples, rate, *, whole):
        frames = samples[: len(samples) // 320 * 320].reshape(-1, 320).max(axis=1, initial=0)
        return " ".join(str((peak - 4000) // 10) for peak in frames if peak >= 4000)


def reads_frames(simulator):
    return type(simulator.__name__, (simulator,), {"recognizer": lambda self: FrameReader()})


READERS = {
    "cartesia": Vendor(reads_frames(CartesiaSimulator), cartesia.STT, CARTESIA.tts),
    "cartesia by hand": Vendor(
        reads_frames(CartesiaSimulator), partial(cartesia.STT, turns="local"), CARTESIA.tts
    ),
    "flux": Vendor(reads_frames(DeepgramSimulator), deepgram.STT, deepgram.TTS),
    "nova": Vendor(reads_frames(DeepgramSimulator), partial(deepgram.STT, "nova-3"), deepgram.TTS),
    "elevenlabs": Vendor(
        reads_frames(ElevenLabsSimulator), elevenlabs.STT, partial(elevenlabs.TTS, "v")
    ),
}


@pytest.mark.parametrize("vendor", READERS.values(), ids=READERS)
@pytest.mark.parametrize("delay_ms", [0.0, 120.0])
def test_no_frame_of_the_person_is_lost_or_doubled_at_100_kills(vendor, delay_ms):
    @virtual_time
    async def run():
        edge, rng = FakeEdge(), random.Random(5)  # noqa: S311 - the moments of kills
        spoken, number = [], 0
        async with vendor.conversation(edge, Talker("Yes.")) as (agent, services):
            if delay_ms:
                services.recogniser.faults = [Fault(Delay(delay_ms), times=1000)]
            await edge.be_silent(1.0)
            for _ in range(100):
                asyncio.get_running_loop().call_later(
                    rng.random() * 2.5,
                    lambda: asyncio.ensure_future(services.kill("recogniser")),
                )
                count = rng.randrange(15, 60)
                spoken.append(list(range(number, number + count)))
                for one in spoken[-1]:
                    await asyncio.sleep(0.02)
                    level = 4000 + 10 * one
                    period = np.repeat([level, -level], 40).astype(np.int16)
                    edge.person.push_audio(AudioFrame(np.tile(period, 4), 16000))
                number = (number + count) % 2000
                await edge.be_silent(2.5)
            said = [item.text for item in agent.conversation if isinstance(item, UserItem)]
            assert [[*map(int, text.split())] for text in said] == spoken
            assert not events_of(agent, ErrorEvent)

    run()


@pytest.mark.parametrize(
    "text",
    [
        "你好，我们今天有十二个房间。您想要哪一个？",
        "こんにちは、今日は部屋が十二あります。どれですか？",
    ],
)
@pytest.mark.parametrize("vendor", [CARTESIA, LOCAL_TURNS["elevenlabs"]], ids=["cartesia", "11"])
def test_scripts_without_spaces_are_heard_by_character(vendor, text):
    @virtual_time
    async def run():
        edge, rng = FakeEdge(), random.Random(3)  # noqa: S311 - the moments of cuts
        words = await words_of(text)
        async with vendor.conversation(edge, Talker(text)) as (agent, _):
            for _ in range(40):
                agent.simple_response("go on")
                await asyncio.sleep(0.1 + rng.random() * words[-1][2])
                agent.interrupt()
                await asyncio.sleep(0.1)
            cuts = [item for item in agent_items(agent) if item.state == "cut"]
        assert len(cuts) > 30
        for item in cuts:
            begun = [word for word, start, _ in words if start < item.played_ms / 1000]
            assert "".join(begun).startswith(item.text)
            assert item.text.startswith("".join(begun[:-1]))

    run()
