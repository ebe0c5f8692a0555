"""Speeches whose reply only called tools: they block nothing, and each of them ends."""

import asyncio

import pytest
from test_agent_unsignalled import Driven

from duologue.audio import AudioFrame
from duologue.realtime.commands import RequestReply, Say
from duologue.realtime.outputs import (
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ToolCall,
    ToolCallsCancelled,
)
from duologue.testing import Reply, ScriptedRealtime, ToolUse, virtual_time
from fake_edge import FakeEdge, join_agent, tone


def call_a_tool(model, name):
    """Make the model reply to the request with a tool call and nothing else."""
    model.emit(ReplyStarted("r", model.last(RequestReply).request_id))
    model.emit(ToolCall("r", "c", name, "{}"))
    model.emit(ReplyDone("r"))


def calls(name, **arguments):
    return Reply("", 0.0, tools=[ToolUse(name, arguments)])


@virtual_time
async def test_tool_may_say_something_and_wait_until_it_was_heard():
    model = ScriptedRealtime([calls("look"), Reply("It is ten.")])
    agents = []

    def add(agent):
        @agent.tool
        async def look() -> str:
            filler = await agents[0].say("One moment please.")
            assert filler.state == "heard"
            return "ten"

    async with join_agent(model, prepare=add) as agent:
        agents.append(agent)
        async with asyncio.timeout(5):
            assert (await agent.simple_response("what time")).heard_text == "It is ten."


@virtual_time
async def test_text_said_while_a_tool_runs_is_heard_meanwhile():
    loop = asyncio.get_running_loop()
    model = ScriptedRealtime([calls("look"), Reply("It is ten.")])

    def add(agent):
        @agent.tool
        async def look() -> str:
            await asyncio.sleep(8)
            return "ten"

    async with join_agent(model, prepare=add) as agent:
        answer = agent.simple_response("what time")
        await asyncio.sleep(1)
        await agent.say("One moment please.")
        assert loop.time() < 4
        assert not answer.done
        assert (await answer).heard_text == "It is ten."


@virtual_time
async def test_two_speeches_that_wait_for_tools_both_get_a_reply():
    model = ScriptedRealtime(
        [calls("look", n=1), calls("look", n=2), Reply("First."), Reply("Second.")]
    )
    edge = FakeEdge()

    def add(agent):
        @agent.tool
        async def look(n: int) -> str:
            await asyncio.sleep(3 + n)
            return "ten"

    async with join_agent(model, edge, prepare=add) as agent:
        one = agent.simple_response("one")
        await asyncio.sleep(0.5)
        two = agent.simple_response("two", interrupt=False)
        async with asyncio.timeout(20):
            assert (await one).heard_text == "First."
            assert (await two).heard_text == "Second."
        await asyncio.sleep(1)
        assert edge.person.is_idle


@virtual_time
@pytest.mark.parametrize("scheduling", [None, "silent"])
async def test_model_that_says_nothing_after_its_tools_ends_the_speech(scheduling):
    model, edge = Driven(say="instructed", async_tools=scheduling is not None), FakeEdge()

    def add(agent):
        @agent.tool(scheduling=scheduling)
        async def note() -> str:
            return "noted"

    async with join_agent(model, edge, prepare=add) as agent:
        speech = agent.simple_response("note this down")
        call_a_tool(model, "note")
        async with asyncio.timeout(10):
            await speech
        assert (speech.state, speech.played_ms) == ("heard", 0)
        assert edge.person.is_idle
        goodbye = agent.say("Goodbye.")
        await asyncio.sleep(0.1)
        model.emit(ReplyStarted("s", model.last(Say).request_id))
        model.emit(ReplyAudio("s", "is", AudioFrame(tone(1.0), 24000)))
        model.emit(ReplyDone("s"))
        async with asyncio.timeout(5):
            assert (await goodbye).played_ms == 1000


@virtual_time
@pytest.mark.parametrize("end", ["interrupt", "cancel", "close"])
async def test_waiting_speech_ends_when_no_reply_can_follow(end):
    model = Driven(say="instructed", async_tools=True)

    def add(agent):
        @agent.tool
        async def look() -> str:
            await asyncio.sleep(100)
            return "ten"

    async with join_agent(model, prepare=add) as agent:
        speech = agent.simple_response("look")
        call_a_tool(model, "look")
        await asyncio.sleep(1)
        assert not speech.done
        match end:
            case "interrupt":
                agent.interrupt()
            case "cancel":
                model.emit(ToolCallsCancelled(["c"]))
            case "close":
                await agent.close()
        await asyncio.sleep(0.1)
        assert speech.done
        # An interrupted tool keeps running, because its result is wanted.
        assert model.pending == (end == "interrupt")
