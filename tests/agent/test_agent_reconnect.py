import asyncio

import pytest

from duologue.errors import ErrorKind, ReplyRefusedError, SessionError
from duologue.events import (
    ErrorEvent,
    InterruptionEvent,
    RealtimeReconnectedEvent,
    RealtimeReconnectingEvent,
    UserTurnEndedEvent,
)
from duologue.items import ToolCallItem, ToolResultItem, UserItem
from duologue.realtime._session.resume import CONTINUE_PROMPT
from duologue.realtime.commands import AddItem, RequestReply, Say, Truncate
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import Reply, ScriptedRealtime, ToolUse, virtual_time
from fake_edge import FakeEdge, agent_items, event_names, events_of, join_agent


class Model(ScriptedRealtime):
    """Loses its connection when the test says so, and records what each connection started with."""

    def __init__(self, *args, **options):
        super().__init__(*args, reconnect=ReconnectPolicy(base_s=0.2), **options)
        self.setups = []

    def open(self, setup):
        self.setups.append(setup)
        return super().open(setup)

    def lose(self):
        task = self._session.connections.current.task

        async def break_off():
            raise SessionError("the line broke", kind=ErrorKind.RECYCLE)

        # A task of the connection's own TaskGroup ends it.
        self._session.connections.current.connection._tasks.create_task(break_off())
        return task


@virtual_time
async def test_broken_off_speech_continues_as_the_same_speech():
    model = Model([Reply("one two three", 1.5, pace=1.0), Reply("four five six", 1.5, pace=1.0)])
    async with join_agent(model) as agent:
        speech = agent.simple_response("count")
        await asyncio.sleep(0.9)
        model.lose()
        await asyncio.sleep(0.3)
        assert model.setups[1].history[-1].text == "one two"
        assert model.commands[-1].instructions == CONTINUE_PROMPT
        await speech
        assert speech.state == "heard"
        assert speech.played_ms == pytest.approx(2300, abs=150)
        (item,) = agent_items(agent)
        assert item.text.endswith("four five six")
        assert [e.outcome for e in events_of(agent, RealtimeReconnectedEvent)] == ["replayed"]
        assert not events_of(agent, ErrorEvent)
        assert agent.llm.connected


@virtual_time
async def test_speech_without_audio_is_generated_again():
    model = Model([Reply("lost", after_s=0.5), Reply("found", after_s=0.1)])
    async with join_agent(model) as agent:
        speech = agent.simple_response("say it")
        await asyncio.sleep(0.3)
        model.lose()
        await speech
        assert speech.heard_text == "found"
        requests = [c for c in model.commands if isinstance(c, RequestReply)]
        assert requests[0].request_id == requests[1].request_id


@virtual_time
async def test_say_continues_where_it_stopped():
    model = Model()
    model._start_pace = 1.0
    async with join_agent(model) as agent:
        speech = agent.say("one two three four five six seven")
        await asyncio.sleep(0.05)
        model.lose()
        await speech
        assert speech.heard_text == "one two three four five six seven"
        assert len([c for c in model.commands if isinstance(c, Say)]) == 2


@virtual_time
async def test_person_is_transcribed_once_across_an_outage():
    model = Model([Reply("yes")], transcripts=["hello there"])
    edge = FakeEdge()
    async with join_agent(model, edge) as agent:
        await edge.speak(0.5)
        model.lose()
        await edge.speak(0.6)
        await edge.be_silent(1.0)
        await asyncio.sleep(1)
        users = [i.text for i in agent.conversation if isinstance(i, UserItem)]
        assert users == ["hello there"]
        assert [e.text for e in events_of(agent, UserTurnEndedEvent)] == ["hello there"]
        assert [i.text for i in agent_items(agent)] == ["yes"]
        assert model.lost_audio == 0
        assert event_names(agent).count("UserTurnStartedEvent") == 1


@virtual_time
async def test_interruption_after_an_outage_truncates_what_the_new_connection_got():
    model = Model([Reply("one two three", 1.5, pace=1.0), Reply("four five six", 1.5, pace=1.0)])
    async with join_agent(model) as agent:
        speech = agent.simple_response("count")
        await asyncio.sleep(0.9)
        model.lose()
        await asyncio.sleep(1.0)
        agent.interrupt()
        assert speech.interrupted
        (event,) = events_of(agent, InterruptionEvent)
        assert 700 <= event.played_ms <= 1700
        cuts = [c for c in model.commands if isinstance(c, Truncate)]
        assert len(cuts) == 1
        (item,) = agent_items(agent)
        assert item.text == event.heard_text


@virtual_time
async def test_tool_keeps_running_during_an_outage_and_its_reply_follows():
    model = Model([Reply(tools=[ToolUse("slow")]), Reply("done")])

    def register(agent):
        @agent.tool
        async def slow() -> str:
            """Take a second."""
            await asyncio.sleep(1)
            return "result"

    async with join_agent(model, prepare=register) as agent:
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
async def test_text_and_requests_during_an_outage_are_not_lost():
    model = Model([Reply("answer")])
    async with join_agent(model) as agent:
        model.lose()
        await asyncio.sleep(0.01)
        assert not agent.llm.connected
        speech = agent.simple_response("a question")
        await speech
        assert speech.heard_text == "answer"
        known = [i.text for i in model.setups[1].history]
        added = [c.item.text for c in model.commands if isinstance(c, AddItem)]
        assert known + added == ["a question"]
        assert events_of(agent, RealtimeReconnectingEvent)[0].attempt == 1


@virtual_time
async def test_refused_continuation_fails_the_speech_and_frees_the_playout():
    model = Model(
        [
            Reply("one two three", 1.5, pace=1.0),
            Reply(refused="no"),
            Reply("after"),
        ]
    )
    async with join_agent(model) as agent:
        speech = agent.simple_response("count")
        await asyncio.sleep(0.9)
        model.lose()
        with pytest.raises(ReplyRefusedError):
            await speech
        assert speech.played_ms > 500
        after = agent.simple_response("and now?")
        await after
        assert after.heard_text == "after"
