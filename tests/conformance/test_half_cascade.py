"""A model that hears, spoken by every vendor's voice: cuts, lost connections, and what is known."""

import asyncio
import random
from collections import deque
from contextlib import asynccontextmanager

import pytest
from conformance_targets import POLICY, Backend, FakePerson, _OpenAIFar
from test_streaming_parts import REPLY, VENDORS, virtual_time, words_of

from duologue.events import ErrorEvent, RealtimeReconnectedEvent
from duologue.providers.openai import Realtime, ServerVAD
from duologue.testing import OpenAISimulator, Reply
from duologue.vad.energy import EnergyVAD
from fake_edge import agent_items, events_of, join_agent

KEEPING = {name: one for name, one in VENDORS.items() if one.simulator is not OpenAISimulator}
"""Vendors whose voices keep a connection."""
vendors = pytest.mark.parametrize("vendor", KEEPING.values(), ids=KEEPING)
CUTS = 40
KILLS = 25


@asynccontextmanager
async def conversation(vendor, person=None, script=None, transcripts=()):
    """Yield (agent, the model's service, the voice's service)."""
    script = deque([Reply(REPLY)] * 100) if script is None else script
    async with (
        OpenAISimulator(lambda: Backend(script, transcripts)) as hears,
        vendor.simulator() as speaks,
    ):
        model = Realtime(
            output="text",
            transport="websocket",
            base_url=hears.url,
            api_key=hears.key,
            turn_detection=ServerVAD(silence_duration_ms=300),
            vad=EnergyVAD(),
            reconnect=POLICY,
        )
        tts = vendor.tts(base_url=speaks.url, api_key=speaks.key)
        async with join_agent(model, person or FakePerson(), tts=tts) as agent:
            yield agent, hears, speaks


def agent_texts(agent, service):
    """Return what the model knows of the agent."""
    return [text for role, text in _OpenAIFar(agent.llm, service).history() if role == "agent"]


@vendors
@virtual_time
async def test_twenty_turns_need_one_connection_of_the_voice(vendor):
    person = FakePerson()
    transcripts = [f"question {number}" for number in range(20)]
    script = deque([Reply("Yes, of course.")] * 20)
    async with conversation(vendor, person, script, transcripts) as (agent, hears, speaks):
        for _ in transcripts:
            await person.speak(0.6)
            await asyncio.sleep(3.5)
        assert [item.text for item in agent_items(agent)] == ["Yes, of course."] * 20
        assert agent_texts(agent, hears) == ["Yes, of course."] * 20
        assert len(speaks.sessions) == len(hears.sessions) == 1
        assert not events_of(agent, ErrorEvent)
    assert all(not session.open_contexts for session in speaks.sessions)


@vendors
@virtual_time
async def test_after_a_cut_the_model_knows_the_words_that_were_heard(vendor):
    rng = random.Random(7)  # noqa: S311 - the moments of cuts
    words = await words_of(REPLY)
    async with conversation(vendor) as (agent, hears, speaks):
        for index in range(CUTS):
            if index % 4 == 3:
                agent.say(REPLY)
            else:
                agent.simple_response("go on")
            await asyncio.sleep(0.05 + rng.random() * 5.5)
            agent.interrupt()
            await asyncio.sleep(max(vendor.pause_s, 0.6))
        cuts = [item for item in agent_items(agent) if item.state == "cut"]
        assert len(cuts) > CUTS / 2
        for item in cuts:
            assert REPLY.startswith(item.text)
            begun = sum(start < item.played_ms / 1000 for _, start, _ in words)
            if vendor.timing == "words":
                assert begun - 1 <= len(item.text.split()) <= begun
        known = [item.text for item in agent_items(agent) if item.text]
        assert agent_texts(agent, hears) == known
        await asyncio.sleep(3)
        assert all(not session.open_contexts for session in speaks.sessions)
        assert not events_of(agent, ErrorEvent)


@vendors
@virtual_time
async def test_lost_connections_of_the_voice_lose_no_words(vendor):
    rng = random.Random(11)  # noqa: S311 - the moments of kills
    async with conversation(vendor) as (agent, _hears, speaks):
        for _ in range(KILLS):
            speech = agent.simple_response("go on")
            await asyncio.sleep(0.1 + rng.random() * 4)
            await speaks.kill(-1)
            await speech
            assert speech.heard_text == REPLY
            await asyncio.sleep(vendor.pause_s)
        assert [item.text for item in agent_items(agent)] == [REPLY] * KILLS
        assert not events_of(agent, ErrorEvent)


@vendors
@virtual_time
async def test_reply_whose_connection_is_lost_continues_behind_what_was_spoken(vendor):
    rng = random.Random(13)  # noqa: S311 - the moments of kills
    script = deque()
    async with conversation(vendor, script=script) as (agent, hears, _speaks):
        for index in range(KILLS):
            script.extend((Reply(REPLY), Reply("And so on.")))
            speech = agent.simple_response("go on")
            await asyncio.sleep(0.02 + rng.random() * 0.3)
            await hears.kill()
            await speech
            begun = speech.heard_text.removesuffix("And so on.").rstrip()
            assert REPLY.startswith(begun)
            assert speech.heard_text != begun or begun in (REPLY, "And so on.")
            assert len(agent_items(agent)) == index + 1
            await asyncio.sleep(max(1.0, vendor.pause_s))
            script.clear()
        assert len(events_of(agent, RealtimeReconnectedEvent)) == KILLS
        assert not events_of(agent, ErrorEvent)
