"""The person says something while a tool runs: its result is told all the same, once."""

import asyncio

import pytest

from duologue.events import ToolEndEvent
from duologue.items import ToolCallItem, UserItem
from duologue.pipeline.parts import TextDelta, ToolRequest
from duologue.realtime.commands import RequestReply, SendToolResult
from duologue.realtime.profile import Profile
from duologue.testing import Reply, ScriptedRealtime, ToolUse, virtual_time
from talk import Phone, agent_items, of, talking

AUTOMATIC = Profile("scripted", "script", user_transcripts="partial", tool_reply="automatic")


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


def said(agent):
    return [item.text for item in agent_items(agent)]


def requests(model):
    return [command for command in model.commands if isinstance(command, RequestReply)]


@virtual_time
async def test_the_result_is_told_after_words_that_came_in_between():
    phone, model = Phone(), script("I am still at it.", "It is booked.")
    async with talking(model, phone, prepare=add) as agent:
        agent.simple_response("Book it.")
        await phone.be_silent(0.5)
        await phone.speak(0.8)
        await phone.be_silent(8)
        assert said(agent) == ["I am still at it.", "It is booked."]
        assert [event.status for event in of(agent, ToolEndEvent)] == ["done"]
        assert agent.edge.person.settled


@virtual_time
async def test_it_waits_until_the_person_has_spoken_and_is_told_with_the_answer():
    phone, model = Phone(), script("It is booked, by the way.", "This would be once too often.")
    async with talking(model, phone, prepare=add) as agent:
        agent.simple_response("Book it.")
        await phone.be_silent(3.0)
        before = len(requests(model))
        await phone.speak(3.0)  # The result comes meanwhile.
        assert of(agent, ToolEndEvent)
        assert len(requests(model)) == before
        await phone.be_silent(6.0)
        assert said(agent) == ["It is booked, by the way."]


@virtual_time
async def test_it_waits_for_an_answer_that_was_begun_without_it():
    phone = Phone()
    model = script(Reply("A long answer without it.", seconds=4.0), "It is booked.")
    async with talking(model, phone, prepare=add) as agent:
        agent.simple_response("Book it.")
        await phone.be_silent(1.5)
        await phone.speak(0.8)
        await phone.be_silent(12)
        assert said(agent) == ["A long answer without it.", "It is booked."]


@virtual_time
async def test_it_does_not_wait_for_ever_for_noise_that_seems_to_be_speech():
    phone, model = Phone(), script("It is booked.")
    async with talking(model, phone, prepare=add) as agent:
        agent.simple_response("Book it.")
        await phone.be_silent(3.5)
        await phone.speak(10.0)
        assert len(requests(model)) == 2


@virtual_time
async def test_written_words_in_between_do_not_lose_the_result():
    model = script("I am still at it.", "It is booked.")
    async with talking(model, prepare=add) as agent:
        agent.simple_response("Book it.")
        await asyncio.sleep(1.0)
        assert (await agent.simple_response("Are you there?")).heard_text == "I am still at it."
        await asyncio.sleep(6.0)
        assert said(agent) == ["I am still at it.", "It is booked."]


@virtual_time
async def test_a_program_that_interrupts_wants_no_answer_of_the_tool():
    model = script("Nobody asked for this.")
    async with talking(model, prepare=add) as agent:
        agent.simple_response("Book it.")
        await asyncio.sleep(1.0)
        agent.interrupt()
        await asyncio.sleep(8.0)
        assert [event.status for event in of(agent, ToolEndEvent)] == ["done"]
        assert said(agent) == []


@virtual_time
async def test_a_tool_that_the_words_have_cancelled_is_not_spoken_of():
    phone, model = Phone(), script("All right.", "Nobody asked for this.", tool="search")
    async with talking(model, phone, prepare=add) as agent:
        agent.simple_response("Look for it.")
        await phone.be_silent(1.0)
        await phone.speak(0.8)
        await phone.be_silent(8.0)
        assert [event.status for event in of(agent, ToolEndEvent)] == ["cancelled"]
        assert said(agent) == ["All right."]


@virtual_time
async def test_a_model_that_speaks_of_results_by_itself_is_heard_after_words_in_between():
    phone = Phone()
    model = script("I am still at it.", "It is booked.", profile=AUTOMATIC)
    async with talking(model, phone, prepare=add) as agent:
        agent.simple_response("Book it.")
        await phone.be_silent(0.5)
        await phone.speak(0.8)
        await phone.be_silent(8.0)
        results = [c for c in model.commands if isinstance(c, SendToolResult)]
        assert [result.quiet for result in results] == [False]
        assert agent.llm.epoch == 1


class Chat:
    """A text model that keeps what it was asked."""

    model, tools_reliable = "fake", True

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def prepare(self, instructions, tools): ...

    async def generate(self, instructions, history, tools):
        self.asked.append(list(history))
        await asyncio.sleep(0.05)
        answer = self.answers.pop(0)
        yield TextDelta(answer) if isinstance(answer, str) else answer


@pytest.mark.parametrize("spoken", [True, False])
def test_a_pipeline_shows_the_call_under_way_to_its_model(spoken):
    @virtual_time
    async def run():
        from duologue.pipeline.energy_vad import EnergyVAD
        from talk import FakeTTS

        class Ear:
            rate = 16000

            def stream(self):
                return self

            def push(self, frame): ...

            async def text(self):
                return "are you still there"

            async def close(self): ...

        phone = Phone()
        llm = Chat(ToolRequest("c", "book", "{}"), "I am still at it.", "It is booked.")
        parts = {"stt": Ear(), "tts": FakeTTS(), "vad": EnergyVAD()}
        async with talking(llm, phone, prepare=add, **parts) as agent:
            agent.simple_response("Book it.")
            await phone.be_silent(1.0)
            if spoken:
                await phone.speak(0.8)
            else:
                agent.simple_response("are you still there")
            await phone.be_silent(10.0)
            assert said(agent) == ["I am still at it.", "It is booked."]
            during, after = llm.asked[1], llm.asked[2]
            assert [type(item) for item in during] == [UserItem, ToolCallItem, UserItem]
            assert [getattr(item, "output", None) for item in after][-1] == "booked"
            assert len(llm.asked) == 3

    run()
