"""Tools with every `Realtime`: each call has exactly one result, and one reply follows them."""

import asyncio

from conformance_targets import CANCELS_CALLS, REPLIES_UNASKED, conformance, conversation

from duologue.events import ErrorEvent, ToolEndEvent, ToolStartEvent
from duologue.items import ToolCallItem, ToolResultItem
from duologue.testing import Reply, ToolUse
from fake_edge import events_of


def register(agent):
    agent.ran = []

    @agent.tool
    async def weather(city: str) -> str:
        """The weather."""
        agent.ran.append(city)
        return f"sunny in {city}"

    @agent.tool(timeout=0.5)
    async def slow() -> str:
        """Takes too long."""
        await asyncio.sleep(5)
        return "never"

    @agent.tool
    async def book() -> str:
        """Takes its time."""
        await asyncio.sleep(5)
        return "booked"

    @agent.tool
    async def broken() -> str:
        """Fails."""
        raise ValueError("no such thing")

    @agent.tool
    async def huge() -> str:
        """Says too much."""
        return "x" * 1_000_000

    @agent.tool(cancel_on_interrupt=True)
    async def search() -> str:
        """Can be cancelled."""
        await asyncio.sleep(5)
        return "found"


@conformance
async def test_one_call(target):
    replies = [Reply(tools=[ToolUse("weather", {"city": "Paris"})]), "Sunny."]
    async with conversation(target, replies, agent={"prepare": register}) as (agent, _person, _far):
        speech = await agent.simple_response("How is it in Paris?")
        assert speech.heard_text == "Sunny."
        assert agent.ran == ["Paris"]
        (start,), (end,) = events_of(agent, ToolStartEvent), events_of(agent, ToolEndEvent)
        assert start.call_id == end.call_id
        assert (end.status, end.output) == ("done", "sunny in Paris")
        assert not events_of(agent, ErrorEvent)


@conformance
async def test_many_calls_in_one_reply_and_one_reply_to_them(target):
    cities = ["Paris", "Rome", "Oslo"]
    replies = [Reply(tools=[ToolUse("weather", {"city": c}) for c in cities]), "All fine.", "No."]
    async with conversation(target, replies, agent={"prepare": register}) as (agent, _person, _far):
        speech = await agent.simple_response("Everywhere?")
        assert speech.heard_text == "All fine."
        assert sorted(agent.ran) == sorted(cities)
        await asyncio.sleep(2)
        assert not agent.llm.pending
        calls = [i.call_id for i in agent.conversation if isinstance(i, ToolCallItem)]
        results = [i.call_id for i in agent.conversation if isinstance(i, ToolResultItem)]
        assert len(set(calls)) == 3
        assert sorted(results) == sorted(calls)
        assert len(events_of(agent, ToolEndEvent)) == 3


@conformance
async def test_failing_calls_are_answered_too(target):
    wrong = [ToolUse("slow"), ToolUse("broken"), ToolUse("huge"), ToolUse("nothing")]
    replies = [Reply(tools=wrong), "I could not."]
    async with conversation(target, replies, agent={"prepare": register}) as (agent, _person, _far):
        speech = await agent.simple_response("Try.")
        assert speech.heard_text == "I could not."
        ends = {e.name: (e.status, e.output) for e in events_of(agent, ToolEndEvent)}
        assert ends["slow"][0] == "timeout"
        assert ends["broken"] == ("failed", "The tool failed: ValueError: no such thing")
        assert "too long" in ends["huge"][1]
        assert "no tool named 'nothing'" in ends["nothing"][1]


@conformance
async def test_tool_that_ends_with_an_interruption(target):
    unheard = ["Here it is."] if target in REPLIES_UNASKED else []
    replies = [Reply(tools=[ToolUse("search")]), *unheard, "Never mind."]
    async with conversation(target, replies, agent={"prepare": register}) as (agent, person, _far):
        agent.simple_response("Search.")
        await asyncio.sleep(1)
        agent.interrupt()
        await asyncio.sleep(1)
        (end,) = events_of(agent, ToolEndEvent)
        assert end.status == "cancelled"
        assert not person.at
        assert (await agent.simple_response("And now?")).heard_text == "Never mind."


@conformance
async def test_text_before_a_tool_call_is_heard(target):
    replies = [Reply("Let me look.", tools=[ToolUse("weather", {"city": "Rome"})]), "It is warm."]
    async with conversation(target, replies, agent={"prepare": register}) as (agent, _person, _far):
        agent.simple_response("Rome?")
        await asyncio.sleep(4)
        said = [i.text for i in agent.conversation if type(i).__name__ == "AgentItem"]
        assert said == ["Let me look.", "It is warm."]


@conformance
async def test_speech_during_a_tool_call_is_answered_and_the_result_follows(target):
    replies = [Reply(tools=[ToolUse("book")]), "I am still at it.", "It is booked."]
    words = ["Are you still there?"] * 2
    options = {"agent": {"prepare": register}}
    async with conversation(target, replies, words, **options) as (agent, person, _far):
        agent.simple_response("Book it.")
        await asyncio.sleep(1)
        await person.speak(1.0)
        await asyncio.sleep(12)
        said = [i.text for i in agent.conversation if type(i).__name__ == "AgentItem"]
        (end,) = events_of(agent, ToolEndEvent)
        assert not events_of(agent, ErrorEvent)
        if target in CANCELS_CALLS:
            assert (end.status, said) == ("cancelled", ["I am still at it."])
        else:
            assert (end.status, end.output) == ("done", "booked")
            assert said == ["I am still at it.", "It is booked."]
