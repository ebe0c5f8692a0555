"""The person speaks while a tool runs: the model still reports the result, once."""

import asyncio
from dataclasses import replace

import pytest

from duologue.events import ToolEndEvent
from duologue.items import ToolCallItem, UserItem
from duologue.pipeline.interfaces import TextDelta, ToolRequest
from duologue.realtime.commands import RequestReply, SendToolResult
from duologue.testing import SCRIPTED_CAPABILITIES, Reply, ScriptedRealtime, ToolUse, virtual_time
from fake_edge import FakeEdge, agent_items, events_of, join_agent

AUTOMATIC = replace(SCRIPTED_CAPABILITIES, user_transcripts="partial", tool_reply="automatic")


def add(agent):
    @agent.tool
    async def book() -> str:
        await asyncio.sleep(4.0)
        return "booked"

    @agent.tool(cancel_on_interrupt=True)
    async def search() -> str:
        await asyncio.sleep(4.0)
        return "found"


def script(*replies, tool="book", **options):
    calls = Reply("", 0.0, tools=[ToolUse(tool)])
    return ScriptedRealtime([calls, *replies], transcripts=["Are you still there?"] * 3, **options)


def agent_texts(agent):
    return [item.text for item in agent_items(agent)]


def requests(model):
    return [command for command in model.commands if isinstance(command, RequestReply)]


@virtual_time
async def test_result_is_reported_after_speech_in_between():
    edge, model = FakeEdge(), script("I am still at it.", "It is booked.")
    async with join_agent(model, edge, prepare=add) as agent:
        agent.simple_response("Book it.")
        await edge.be_silent(0.5)
        await edge.speak(0.8)
        await edge.be_silent(8)
        assert agent_texts(agent) == ["I am still at it.", "It is booked."]
        assert [event.status for event in events_of(agent, ToolEndEvent)] == ["done"]
        assert agent.edge.person.is_idle


@virtual_time
async def test_result_waits_until_the_person_has_spoken_and_comes_with_the_reply():
    edge, model = FakeEdge(), script("It is booked, by the way.", "This would be once too often.")
    async with join_agent(model, edge, prepare=add) as agent:
        agent.simple_response("Book it.")
        await edge.be_silent(3.0)
        before = len(requests(model))
        await edge.speak(3.0)  # The result arrives meanwhile.
        assert events_of(agent, ToolEndEvent)
        assert len(requests(model)) == before
        await edge.be_silent(6.0)
        assert agent_texts(agent) == ["It is booked, by the way."]


@virtual_time
async def test_result_waits_for_a_reply_that_started_without_it():
    edge = FakeEdge()
    model = script(Reply("A long answer without it.", seconds=4.0), "It is booked.")
    async with join_agent(model, edge, prepare=add) as agent:
        agent.simple_response("Book it.")
        await edge.be_silent(1.5)
        await edge.speak(0.8)
        await edge.be_silent(12)
        assert agent_texts(agent) == ["A long answer without it.", "It is booked."]


@virtual_time
async def test_result_does_not_wait_forever_for_noise_taken_for_speech():
    edge, model = FakeEdge(), script("It is booked.")
    async with join_agent(model, edge, prepare=add) as agent:
        agent.simple_response("Book it.")
        await edge.be_silent(3.5)
        await edge.speak(10.0)
        assert len(requests(model)) == 2


@virtual_time
async def test_written_text_in_between_does_not_lose_the_result():
    model = script("I am still at it.", "It is booked.")
    async with join_agent(model, prepare=add) as agent:
        agent.simple_response("Book it.")
        await asyncio.sleep(1.0)
        assert (await agent.simple_response("Are you there?")).heard_text == "I am still at it."
        await asyncio.sleep(6.0)
        assert agent_texts(agent) == ["I am still at it.", "It is booked."]


@virtual_time
async def test_interrupt_by_the_program_requests_no_reply_to_the_result():
    model = script("Nobody asked for this.")
    async with join_agent(model, prepare=add) as agent:
        agent.simple_response("Book it.")
        await asyncio.sleep(1.0)
        agent.interrupt()
        await asyncio.sleep(8.0)
        assert [event.status for event in events_of(agent, ToolEndEvent)] == ["done"]
        assert agent_texts(agent) == []


@virtual_time
async def test_tool_cancelled_by_speech_is_not_mentioned():
    edge, model = FakeEdge(), script("All right.", "Nobody asked for this.", tool="search")
    async with join_agent(model, edge, prepare=add) as agent:
        agent.simple_response("Look for it.")
        await edge.be_silent(1.0)
        await edge.speak(0.8)
        await edge.be_silent(8.0)
        assert [event.status for event in events_of(agent, ToolEndEvent)] == ["cancelled"]
        assert agent_texts(agent) == ["All right."]


@virtual_time
async def test_model_that_reports_results_by_itself_is_heard_after_speech_in_between():
    edge = FakeEdge()
    model = script("I am still at it.", "It is booked.", capabilities=AUTOMATIC)
    async with join_agent(model, edge, prepare=add) as agent:
        agent.simple_response("Book it.")
        await edge.be_silent(0.5)
        await edge.speak(0.8)
        await edge.be_silent(8.0)
        results = [c for c in model.commands if isinstance(c, SendToolResult)]
        assert [result.quiet for result in results] == [False]
        assert agent.llm.epoch == 1


class Chat:
    """A text model that records its requests."""

    model, tools_reliable = "fake", True

    def __init__(self, *replies):
        self.replies, self.requests = list(replies), []

    async def prepare(self, instructions, tools): ...

    async def generate(self, instructions, history, tools):
        self.requests.append(list(history))
        await asyncio.sleep(0.05)
        answer = self.replies.pop(0)
        yield TextDelta(answer) if isinstance(answer, str) else answer


@pytest.mark.parametrize("spoken", [True, False])
def test_pipeline_shows_the_running_tool_call_to_its_model(spoken):
    @virtual_time
    async def run():
        from duologue.vad.energy import EnergyVAD
        from fake_edge import FakeTTS

        class Ear:
            rate = 16000

            def stream(self):
                return self

            def push(self, frame): ...

            async def text(self):
                return "are you still there"

            async def close(self): ...

        edge = FakeEdge()
        llm = Chat(ToolRequest("c", "book", "{}"), "I am still at it.", "It is booked.")
        parts = {"stt": Ear(), "tts": FakeTTS(), "vad": EnergyVAD()}
        async with join_agent(llm, edge, prepare=add, **parts) as agent:
            agent.simple_response("Book it.")
            await edge.be_silent(1.0)
            if spoken:
                await edge.speak(0.8)
            else:
                agent.simple_response("are you still there")
            await edge.be_silent(10.0)
            assert agent_texts(agent) == ["I am still at it.", "It is booked."]
            during, after = llm.requests[1], llm.requests[2]
            assert [type(item) for item in during] == [UserItem, ToolCallItem, UserItem]
            assert [getattr(item, "output", None) for item in after][-1] == "booked"
            assert len(llm.requests) == 3

    run()
