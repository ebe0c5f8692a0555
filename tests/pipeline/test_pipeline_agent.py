"""The classic pipeline behind an agent: the model knows exactly what was heard."""

import asyncio

import hypothesis.strategies as st
import numpy as np
import pytest
from fake_components import LLM, STT, TTS, Turn
from hypothesis import given, settings

from duologue.errors import SessionClosedError, SessionError
from duologue.events import (
    AgentTurnEndedEvent,
    ErrorEvent,
    InterruptionEvent,
    RealtimeDisconnectedEvent,
    ToolEndEvent,
    ToolStartEvent,
)
from duologue.items import AgentItem, ToolCallItem, ToolResultItem, UserItem
from duologue.pipeline.interfaces import ToolRequest
from duologue.testing import virtual_time
from duologue.vad.energy import EnergyVAD
from fake_edge import FakeEdge, events_of, join_agent


def texts(history):
    return [item.text for item in history if isinstance(item, UserItem | AgentItem)]


def pipeline_agent(llm, phone, **options):
    parts = {"stt": STT(), "tts": TTS(), "turn_detection": Turn(), "vad": EnergyVAD()}
    return join_agent(llm, phone, **{**parts, **options})


@virtual_time
async def test_interrupted_reply_is_known_as_far_as_it_was_heard():
    phone = FakeEdge()
    llm = LLM("One two three. Four five six. Seven eight nine. Ten eleven twelve.", "Sure.")
    async with pipeline_agent(llm, phone) as agent:
        await phone.speak(0.5)
        await phone.be_silent(2.0)
        assert len(phone.played_audio)
        await phone.speak(0.6)
        await phone.be_silent(3.0)
        (cut,) = events_of(agent, InterruptionEvent)
        assert 500 < cut.played_ms < 2200
        heard = cut.heard_text
        assert "One" in heard
        assert "twelve" not in heard
        assert texts(llm.requests[-1][1])[1] == heard
        said = [i for i in agent.conversation if isinstance(i, AgentItem)]
        assert [(i.text, i.state) for i in said] == [(heard, "cut"), ("Sure.", "heard")]
        assert agent.llm.epoch == 1


@virtual_time
async def test_reply_that_was_not_heard_at_all_is_unknown_to_the_model():
    phone = FakeEdge()
    llm = LLM("First thought.", "Second thought.")
    async with pipeline_agent(llm, phone, tts=TTS(delay_s=0.3)) as agent:
        agent.simple_response("Think.")
        await asyncio.sleep(0.2)
        agent.interrupt()
        assert (await agent.simple_response("Again.")).heard_text == "Second thought."
        assert texts(llm.requests[1][1]) == ["Think.", "Again."]
        assert texts(agent.conversation) == ["Think.", "Again.", "Second thought."]
        assert len(events_of(agent, AgentTurnEndedEvent)) == 1


@virtual_time
async def test_cough_during_a_reply_changes_nothing():
    phone = FakeEdge()
    llm = LLM("One two three. Four five six. Seven eight nine.")
    stt = STT(transcribe=lambda loud: "hello there" if loud > 0.3 and not stt.cough else "uh")
    stt.cough = False
    async with pipeline_agent(llm, phone, stt=stt) as agent:
        await phone.speak(0.5)
        await phone.be_silent(1.0)
        before = len(phone.played_audio)
        assert before
        stt.cough = True
        await phone.be_silent(1.5)
        await phone.speak(0.2)
        await phone.be_silent(4.0)
        assert agent.llm.epoch == 0
        letters = sum(map(len, agent.llm._components.tts.texts))
        assert np.count_nonzero(phone.played_audio) == letters * 1200
        assert len(llm.requests) == 1


@virtual_time
async def test_failing_model_is_reported_and_the_next_reply_comes():
    phone = FakeEdge()
    llm = LLM([SessionError("overloaded")], "Here I am.")
    async with pipeline_agent(llm, phone) as agent:
        with pytest.raises(SessionError, match="overloaded"):
            await agent.simple_response("Hello?")
        assert [e.message for e in events_of(agent, ErrorEvent)] == ["overloaded"]
        assert (await agent.simple_response("Hello?")).heard_text == "Here I am."


@virtual_time
async def test_tool_call_of_a_pipeline():
    def add(agent):
        @agent.tool
        def colour(of: str) -> str:
            return f"{of} is blue"

    phone = FakeEdge()
    llm = LLM([ToolRequest("c", "colour", '{"of": "sky"}')], "It is blue.")
    async with pipeline_agent(llm, phone, prepare=add) as agent:
        await phone.speak(0.5)
        await phone.be_silent(2.0)
        assert [(e.status, e.output) for e in events_of(agent, ToolEndEvent)] == [
            ("done", "sky is blue")
        ]
        outputs = [getattr(item, "output", None) for item in llm.requests[1][1]]
        assert "sky is blue" in outputs
        assert texts(agent.conversation)[-1] == "It is blue."
        assert [spec.name for spec in llm.requests[0][2]] == ["colour"]


@virtual_time
async def test_say_through_a_pipeline_is_exact():
    llm = LLM()
    async with pipeline_agent(llm, FakeEdge()) as agent:
        assert (await agent.say("Wait. Just a moment!")).heard_text == "Wait. Just a moment!"
        assert not llm.requests
        await agent.simple_response("And?")
        assert texts(llm.requests[0][1]) == ["Wait. Just a moment!", "And?"]


steps = st.one_of(
    st.tuples(st.just("speak"), st.floats(0.02, 0.9)),
    st.tuples(st.just("silence"), st.floats(0.02, 1.5)),
    st.tuples(st.just("ask"), st.booleans()),
    st.tuples(st.just("say"), st.booleans()),
    st.tuples(st.just("interrupt"), st.just(0)),
    st.tuples(st.just("write"), st.just(0)),
)
answers = st.sampled_from(
    [
        "Yes.",
        "A long answer that goes on. And on it goes. And on.",
        [ToolRequest("c1", "wait", "{}")],
        ["Let me see.", ToolRequest("c2", "wait", "{}")],
        [SessionError("overloaded")],
        ["Half a", SessionError("cut off")],
    ]
)


@given(
    plan=st.lists(steps, max_size=8),
    script=st.lists(answers, max_size=6, unique_by=str),
    hears=st.sampled_from(["stop now", "uh"]),
    closes=st.booleans(),
    after=st.floats(0, 4),
)
@settings(deadline=None, max_examples=60)
@virtual_time
async def test_any_conversation_ends_cleanly(plan, script, hears, closes, after):
    def add(agent):
        @agent.tool
        async def wait() -> str:
            await asyncio.sleep(1.0)
            return "waited"

    loop = asyncio.get_running_loop()
    phone, llm = FakeEdge(hangs_up_in=0.3), LLM(*script)
    stt = STT(transcribe=lambda loud: hears if loud > 0.05 else "")
    speeches, agents, ended = [], [], None
    try:
        async with pipeline_agent(llm, phone, stt=stt, prepare=add) as agent:
            agents.append(agent)
            if closes:
                loop.call_later(after, lambda: asyncio.ensure_future(agent.close()))
            for step, value in plan:
                match step:
                    case "speak":
                        await phone.speak(value)
                    case "silence":
                        await phone.be_silent(value)
                    case "ask":
                        speeches.append(agent.simple_response("go", interrupt=value))
                    case "say":
                        speeches.append(agent.say("some words", interruptible=value))
                    case "interrupt":
                        agent.interrupt()
                    case "write":
                        phone.person.push_text("hi")
            if not closes:
                await phone.be_silent(1.5)
                for _ in range(400):
                    if phone.person.is_idle:
                        break
                    await phone.be_silent(0.1)
                assert phone.person.is_idle, "everything comes to rest"
                assert all(speech.done for speech in speeches)
            ended = loop.time()
    except SessionClosedError:
        ended = loop.time()
    (agent,) = agents
    assert loop.time() - ended <= 1.0
    assert len(events_of(agent, RealtimeDisconnectedEvent)) == 1
    assert len(events_of(agent, InterruptionEvent)) == agent.llm.epoch
    assert all(speech.done for speech in speeches)
    assert len(events_of(agent, ToolStartEvent)) == len(events_of(agent, ToolEndEvent))
    calls = [i.call_id for i in agent.conversation if isinstance(i, ToolCallItem)]
    results = [i.call_id for i in agent.conversation if isinstance(i, ToolResultItem)]
    assert sorted(calls) == sorted(results)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
    spoken = {i.speech_id: i for i in agent.conversation if isinstance(i, AgentItem)}
    assert all(item.state != "speaking" for item in spoken.values())
    for speech in speeches:
        if speech.id in spoken:
            assert spoken[speech.id].text == speech.heard_text
        else:
            assert not speech.heard_text
