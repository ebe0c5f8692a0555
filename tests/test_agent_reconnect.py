import asyncio

import pytest

from duologue.events import (
    ErrorEvent,
    InterruptionEvent,
    RealtimeReconnectedEvent,
    RealtimeReconnectingEvent,
    UserTurnEndedEvent,
)
from duologue.items import ToolCallItem, ToolResultItem, UserItem
from duologue.realtime.commands import AddItem, RequestReply, Say, Truncate
from duologue.realtime.errors import ErrorKind, ReplyRefusedError, SessionError
from duologue.realtime.going_on import GO_ON
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import Reply, ScriptedRealtime, ToolUse, virtual_time
from talk import Phone, agent_items, kinds, of, talking


class Model(ScriptedRealtime):
    """Loses its connection when the test says so, and remembers what each began with."""

    def __init__(self, *args, **options):
        super().__init__(*args, reconnect=ReconnectPolicy(base_s=0.2), **options)
        self.setups = []

    def open(self, setup):
        self.setups.append(setup)
        return super().open(setup)

    def lose(self):
        task = self._policy.life.link.task

        async def break_off():
            raise SessionError("the line broke", kind=ErrorKind.RECYCLE)

        # What runs in the connection's own TaskGroup ends it.
        self._policy.life.link.connection._tasks.create_task(break_off())
        return task


@virtual_time
async def test_a_speech_that_broke_off_goes_on_as_the_same_speech():
    model = Model([Reply("one two three", 1.5, pace=1.0), Reply("four five six", 1.5, pace=1.0)])
    async with talking(model) as agent:
        speech = agent.simple_response("count")
        await asyncio.sleep(0.9)
        model.lose()
        await asyncio.sleep(0.3)
        assert model.setups[1].history[-1].text == "one two"
        assert model.commands[-1].instructions == GO_ON
        await speech
        assert speech.state == "heard"
        assert speech.played_ms == pytest.approx(2300, abs=150)
        (item,) = agent_items(agent)
        assert item.text.endswith("four five six")
        assert [e.outcome for e in of(agent, RealtimeReconnectedEvent)] == ["replayed"]
        assert not of(agent, ErrorEvent)
        assert agent.llm.connected


@virtual_time
async def test_a_speech_of_which_nothing_had_come_is_made_anew():
    model = Model([Reply("lost", after_s=0.5), Reply("found", after_s=0.1)])
    async with talking(model) as agent:
        speech = agent.simple_response("say it")
        await asyncio.sleep(0.3)
        model.lose()
        await speech
        assert speech.heard_text == "found"
        asked = [c for c in model.commands if isinstance(c, RequestReply)]
        assert asked[0].request_id == asked[1].request_id


@virtual_time
async def test_scripted_text_goes_on_where_it_stopped():
    model = Model()
    model._start_pace = 1.0
    async with talking(model) as agent:
        speech = agent.say("one two three four five six seven")
        await asyncio.sleep(0.05)
        model.lose()
        await speech
        assert speech.heard_text == "one two three four five six seven"
        assert len([c for c in model.commands if isinstance(c, Say)]) == 2


@virtual_time
async def test_a_person_is_heard_once_over_a_gap():
    model = Model([Reply("yes")], transcripts=["hello there"])
    phone = Phone()
    async with talking(model, phone) as agent:
        await phone.speak(0.5)
        model.lose()
        await phone.speak(0.6)
        await phone.be_silent(1.0)
        await asyncio.sleep(1)
        users = [i.text for i in agent.conversation if isinstance(i, UserItem)]
        assert users == ["hello there"]
        assert [e.text for e in of(agent, UserTurnEndedEvent)] == ["hello there"]
        assert [i.text for i in agent_items(agent)] == ["yes"]
        assert model.lost_audio == 0
        assert kinds(agent).count("UserTurnStartedEvent") == 1


@virtual_time
async def test_an_interruption_after_the_loss_cuts_what_the_new_connection_was_told():
    model = Model([Reply("one two three", 1.5, pace=1.0), Reply("four five six", 1.5, pace=1.0)])
    async with talking(model) as agent:
        speech = agent.simple_response("count")
        await asyncio.sleep(0.9)
        model.lose()
        await asyncio.sleep(1.0)
        agent.interrupt()
        assert speech.interrupted
        (event,) = of(agent, InterruptionEvent)
        assert 700 <= event.played_ms <= 1700
        cuts = [c for c in model.commands if isinstance(c, Truncate)]
        assert len(cuts) == 1
        (item,) = agent_items(agent)
        assert item.text == event.heard_text


@virtual_time
async def test_a_tool_runs_on_over_a_gap_and_its_answer_follows():
    model = Model([Reply(tools=[ToolUse("slow")]), Reply("done")])

    def register(agent):
        @agent.tool
        async def slow() -> str:
            """Take a second."""
            await asyncio.sleep(1)
            return "result"

    async with talking(model, prepare=register) as agent:
        speech = agent.simple_response("do it")
        await asyncio.sleep(0.5)
        model.lose()
        await asyncio.sleep(0.3)
        assert isinstance(model.setups[1].history[-1], ToolCallItem)
        await speech
        assert speech.heard_text == "done"
        results = [i for i in agent.conversation if isinstance(i, ToolResultItem)]
        assert [r.output for r in results] == ["result"]


@virtual_time
async def test_what_is_written_and_asked_during_the_gap_is_not_lost():
    model = Model([Reply("answer")])
    async with talking(model) as agent:
        model.lose()
        await asyncio.sleep(0.01)
        assert not agent.llm.connected
        speech = agent.simple_response("a question")
        await speech
        assert speech.heard_text == "answer"
        known = [i.text for i in model.setups[1].history]
        told = [c.item.text for c in model.commands if isinstance(c, AddItem)]
        assert known + told == ["a question"]
        assert of(agent, RealtimeReconnectingEvent)[0].attempt == 1


@virtual_time
async def test_a_continuation_that_is_refused_fails_the_speech_and_frees_the_gate():
    model = Model(
        [
            Reply("one two three", 1.5, pace=1.0),
            Reply(refused="no"),
            Reply("after"),
        ]
    )
    async with talking(model) as agent:
        speech = agent.simple_response("count")
        await asyncio.sleep(0.9)
        model.lose()
        with pytest.raises(ReplyRefusedError):
            await speech
        assert speech.played_ms > 500
        after = agent.simple_response("and now?")
        await after
        assert after.heard_text == "after"
