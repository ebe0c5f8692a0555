"""Speeches whose reply only called tools: they hold nobody up, and each of them ends."""

import asyncio

import pytest

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
from talk import Phone, talking, tone
from test_agent_unsignalled import Driven


def call_a_tool(model, name):
    """The model answers what was asked with a call, and with nothing else."""
    model.tell(ReplyStarted("r", model.last(RequestReply).request_id))
    model.tell(ToolCall("r", "c", name, "{}"))
    model.tell(ReplyDone("r"))


def calls(name, **arguments):
    return Reply("", 0.0, tools=[ToolUse(name, arguments)])


@virtual_time
async def test_a_tool_may_say_something_and_wait_till_it_was_heard():
    model = ScriptedRealtime([calls("look"), Reply("It is ten.")])
    agents = []

    def add(agent):
        @agent.tool
        async def look() -> str:
            filler = await agents[0].say("One moment please.")
            assert filler.state == "heard"
            return "ten"

    async with talking(model, prepare=add) as agent:
        agents.append(agent)
        async with asyncio.timeout(5):
            assert (await agent.simple_response("what time")).heard_text == "It is ten."


@virtual_time
async def test_what_is_said_while_a_tool_runs_is_heard_meanwhile():
    loop = asyncio.get_running_loop()
    model = ScriptedRealtime([calls("look"), Reply("It is ten.")])

    def add(agent):
        @agent.tool
        async def look() -> str:
            await asyncio.sleep(8)
            return "ten"

    async with talking(model, prepare=add) as agent:
        answer = agent.simple_response("what time")
        await asyncio.sleep(1)
        await agent.say("One moment please.")
        assert loop.time() < 4
        assert not answer.done
        assert (await answer).heard_text == "It is ten."


@virtual_time
async def test_two_that_wait_for_their_tools_are_both_answered():
    model = ScriptedRealtime(
        [calls("look", n=1), calls("look", n=2), Reply("First."), Reply("Second.")]
    )
    phone = Phone()

    def add(agent):
        @agent.tool
        async def look(n: int) -> str:
            await asyncio.sleep(3 + n)
            return "ten"

    async with talking(model, phone, prepare=add) as agent:
        one = agent.simple_response("one")
        await asyncio.sleep(0.5)
        two = agent.simple_response("two", interrupt=False)
        async with asyncio.timeout(20):
            assert (await one).heard_text == "First."
            assert (await two).heard_text == "Second."
        await asyncio.sleep(1)
        assert phone.person.settled


@virtual_time
@pytest.mark.parametrize("scheduling", [None, "silent"])
async def test_a_model_that_says_nothing_after_its_tools_ends_the_speech(scheduling):
    model, phone = Driven(say="instructed", async_tools=scheduling is not None), Phone()

    def add(agent):
        @agent.tool(scheduling=scheduling)
        async def note() -> str:
            return "noted"

    async with talking(model, phone, prepare=add) as agent:
        speech = agent.simple_response("note this down")
        call_a_tool(model, "note")
        async with asyncio.timeout(10):
            await speech
        assert (speech.state, speech.played_ms) == ("heard", 0)
        assert phone.person.settled
        goodbye = agent.say("Goodbye.")
        await asyncio.sleep(0.1)
        model.tell(ReplyStarted("s", model.last(Say).request_id))
        model.tell(ReplyAudio("s", "is", AudioFrame(tone(1.0), 24000)))
        model.tell(ReplyDone("s"))
        async with asyncio.timeout(5):
            assert (await goodbye).played_ms == 1000


@virtual_time
@pytest.mark.parametrize("end", ["interrupt", "cancel", "close"])
async def test_one_that_waits_is_over_when_nothing_can_follow(end):
    model = Driven(say="instructed", async_tools=True)

    def add(agent):
        @agent.tool
        async def look() -> str:
            await asyncio.sleep(100)
            return "ten"

    async with talking(model, prepare=add) as agent:
        speech = agent.simple_response("look")
        call_a_tool(model, "look")
        await asyncio.sleep(1)
        assert not speech.done
        match end:
            case "interrupt":
                agent.interrupt()
            case "cancel":
                model.tell(ToolCallsCancelled(["c"]))
            case "close":
                await agent.close()
        await asyncio.sleep(0.1)
        assert speech.done
        # An interrupted tool runs on, for its result.
        assert model.pending == (end == "interrupt")
