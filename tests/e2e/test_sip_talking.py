"""A whole call over SIP with the built-in engine."""

import asyncio
import json

import numpy as np
import pytest

from duologue import Agent
from duologue.audio import Resampler
from duologue.events import AgentTurnEndedEvent, InterruptionEvent, UserTranscriptEvent
from duologue.items import AgentItem
from duologue.observe import Recorder
from duologue.providers import local
from sip_desk import serving, until
from sip_peer import SipPeer

pytest.importorskip("baresip", reason="the extra sip is not installed")
pytestmark = pytest.mark.weights


async def spoken(text):
    """Return a text as int16 samples at 8 kHz."""
    from duologue.providers.local import engine

    tts = engine.load_tts()
    parts = [frame.samples async for frame in tts.synthesize(text)]
    resampler = Resampler(tts.rate, 8000)
    return np.concatenate((resampler.push(np.concatenate(parts)), resampler.flush()))


async def test_greeting_question_interruption_menu_and_transfer(weights, tmp_path):
    question = await spoken("Please tell me a long story about a dog and a cat.")
    interruption = await spoken("No, wait, tell me what is the capital of France.")
    menu = []

    async def conduct(agent):
        await agent.say("Welcome.")
        menu.append(await agent.digits(max=4, end="#", within=60))
        await agent.say("I connect you.")
        await agent.edge.transfer("+15559990000")

    def make_agent(edge):
        agent = Agent(
            edge=edge,
            llm=local.Realtime("tiny"),
            instructions="You are a helpful assistant. Answer in one short sentence.",
            recorder=Recorder(tmp_path, name="call"),
        )
        return desk.adopt(agent)

    async with serving(conduct=conduct) as desk, SipPeer() as peer:
        desk.sip._service._agents._make_agent = make_agent
        call = await peer.call(desk.address)
        await until(lambda: desk.of(AgentTurnEndedEvent), 20)
        call.packets.clear()
        call.say(question)
        await until(lambda: len(call.loud_times()) > 3, 30)
        call.say(interruption)
        await until(lambda: desk.of(InterruptionEvent), 10)
        await until(lambda: len(desk.of(AgentTurnEndedEvent)) >= 3, 30)
        await call.press("2#")
        assert await asyncio.wait_for(call.referred.get(), 15) == "sip:+15559990000@127.0.0.1"
        await call.notify(200)
        await until(lambda: desk.sip.counters["calls"] == 0)

    agent = desk.agents[0]
    assert menu == ["2"]
    assert any("capital of France" in event.text for event in desk.of(UserTranscriptEvent))
    spoke = [item for item in agent.conversation if isinstance(item, AgentItem)]
    assert [spoke[0].text, spoke[-1].text] == ["Welcome.", "I connect you."]
    [cut] = [item for item in spoke if item.state == "cut"]
    assert cut.text == desk.of(InterruptionEvent)[0].heard_text
    assert any("Paris" in item.text for item in spoke)
    recorded = json.loads((tmp_path / "call" / "call.json").read_text())
    texts = [item["text"] for item in recorded["history"] if item.get("text")]
    assert texts == [item.text for item in agent.conversation if getattr(item, "text", "")]
    assert (tmp_path / "call" / "audio.ogg").stat().st_size > 10_000
