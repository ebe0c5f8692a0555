import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from duologue import Agent
from duologue.audio import AudioFrame
from duologue.errors import ConfigError, SessionClosedError, SessionError
from duologue.events import (
    AgentTurnEndedEvent,
    ErrorEvent,
    InterruptionEvent,
    RealtimeDisconnectedEvent,
    ToolEndEvent,
    UserTurnEndedEvent,
)
from duologue.items import AgentItem
from duologue.realtime.commands import DeleteItem, Truncate
from duologue.realtime.outputs import (
    GoAway,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    SpeechStarted,
    UserTranscript,
    UserTurnEnded,
)
from duologue.testing import At, Reply, ScriptedRealtime, ToolUse, virtual_time
from fake_edge import FakeEdge, FakeTTS, events_of, join_agent, other_tasks, pending_timers


@virtual_time
async def test_person_leaves():
    edge = FakeEdge()
    async with join_agent(ScriptedRealtime(), edge) as agent:
        asyncio.get_running_loop().call_later(3.0, edge.hung_up.set)
        await agent.finish()
        with pytest.raises(SessionClosedError):
            agent.say("hello?")
    assert events_of(agent, RealtimeDisconnectedEvent) == [
        RealtimeDisconnectedEvent("closed", clean=True)
    ]


@virtual_time
async def test_edge_fails():
    edge = FakeEdge(fails_at=1.0)
    with pytest.raises(OSError, match="broken"):
        async with join_agent(ScriptedRealtime(), edge) as agent:
            await agent.finish()
    assert len(events_of(agent, RealtimeDisconnectedEvent)) == 1
    assert not other_tasks()


@virtual_time
async def test_model_fails_during_the_conversation():
    model = ScriptedRealtime(
        [Reply("x" * 30, pace=1.0)], at=[At(1.0, SessionError("server error", code="500"))]
    )
    async with join_agent(model) as agent:
        speech = agent.simple_response("talk")
        with pytest.raises(SessionError, match="server error"):
            await agent.finish()
        assert events_of(agent, RealtimeDisconnectedEvent) == [
            RealtimeDisconnectedEvent("server error", clean=False)
        ]
        with pytest.raises(SessionClosedError):
            await asyncio.wait_for(asyncio.shield(_wait(speech)), 5)
        assert speech.played_ms > 0
    assert len(events_of(agent, RealtimeDisconnectedEvent)) == 1
    assert not other_tasks()


async def _wait(speech):
    return await speech


@virtual_time
async def test_model_fails_while_a_tool_runs():
    model = ScriptedRealtime(
        [Reply("", 0.0, tools=[ToolUse("slow")])], at=[At(1.0, SessionError("gone"))]
    )

    def add(agent):
        @agent.tool
        async def slow() -> str:
            await asyncio.sleep(9)
            return "x"

    async with join_agent(model, prepare=add) as agent:
        with pytest.raises(SessionClosedError, match="gone"):
            await agent.simple_response("go")
        assert not agent.edge.person.is_idle
        with pytest.raises(SessionError, match="gone"):
            await agent.finish()
    assert [e.status for e in events_of(agent, ToolEndEvent)] == ["cancelled"]
    assert not other_tasks()


@virtual_time
async def test_closing_cuts_requested_speeches():
    model = ScriptedRealtime([Reply("late", after_s=5.0)])
    edge = FakeEdge()
    async with join_agent(model, edge) as agent:
        first = agent.simple_response("one")
        second = agent.simple_response("two", interrupt=False)
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(agent.close())
        await asyncio.sleep(0)
        edge.person.push_text("too late")
        await closing
        assert first.interrupted
        assert second.interrupted
    assert not events_of(agent, ErrorEvent)
    assert [i.text for i in agent.conversation] == ["one", "two"]


@virtual_time
async def test_late_transcript_takes_its_place_in_the_history():
    model = ScriptedRealtime(
        at=[
            At(0.1, SpeechStarted("u")),
            At(0.5, UserTurnEnded("u")),
            At(0.6, ReplyStarted("r")),
            At(0.6, ReplyText("r", "i", "Yes.")),
            At(0.6, ReplyAudio("r", "i", AudioFrame.silence(0.5, 24000))),
            At(0.6, ReplyDone("r")),
            At(0.8, UserTranscript("u", "are you there", final=True)),
            At(0.9, ReplyText("unknown", "i", "text of no reply")),
            At(0.9, GoAway(60.0)),
        ]
    )
    async with join_agent(model) as agent:
        await asyncio.sleep(0.55)
        assert [i.text for i in agent.conversation] == [None]
        await asyncio.sleep(2)
        assert [i.text for i in agent.conversation] == ["are you there", "Yes."]
        assert events_of(agent, UserTurnEndedEvent) == [UserTurnEndedEvent("person", None)]


@virtual_time
async def test_item_with_text_and_no_audio_is_deleted():
    model = ScriptedRealtime(
        at=[
            At(0.1, ReplyStarted("r")),
            At(0.1, ReplyText("r", "i", "Words. ")),
            At(0.2, ReplyAudio("r", "i", AudioFrame.silence(1.0, 24000))),
            At(0.2, ReplyText("r", "j", "More words.")),
            At(0.2, ReplyAudio("r", "j", AudioFrame.silence(1.0, 24000))),
            At(3.0, ReplyDone("r")),
            At(3.1, ReplyStarted("r2")),
            At(3.1, ReplyText("r2", "k", "Unheard.")),
        ]
    )
    async with join_agent(model) as agent:
        await asyncio.sleep(1.9)
        agent.interrupt()
        cuts = [c for c in model.commands if isinstance(c, Truncate | DeleteItem)]
        assert [(c.item_id, c.heard_text) for c in cuts] == [("j", "More")]
        assert cuts[0].played_ms == 680
        await asyncio.sleep(1.5)
        agent.interrupt()
        assert model.commands[-1] == DeleteItem("k")
        assert [i.text for i in agent.conversation] == ["Words. More"]


@virtual_time
async def test_overlong_reply_is_truncated_and_reported_once():
    model = ScriptedRealtime([Reply("x", seconds=620.0, chunk_ms=1000)])
    async with join_agent(model) as agent:
        agent.simple_response("go")
        await asyncio.sleep(1.0)
        (error,) = events_of(agent, ErrorEvent)
        assert "ten minutes" in error.message


@virtual_time
async def test_failure_that_nothing_awaits_is_raised_by_the_block():
    model = ScriptedRealtime(at=[At(1.0, SessionError("gone"))])
    with pytest.raises(SessionError, match="gone"):
        async with join_agent(model):
            await asyncio.sleep(2)


@virtual_time
async def test_model_ends_cleanly():
    class Leaving(ScriptedRealtime):
        def open(self, setup):
            connection = super().open(setup)

            class Short:
                transmit = connection.transmit

                async def run(self, receive):
                    with_time = asyncio.create_task(connection.run(receive))
                    await asyncio.sleep(1.0)
                    with_time.cancel()
                    await asyncio.wait([with_time])

            return Short()

    async with join_agent(Leaving()) as agent:
        await agent.finish()
    (end,) = events_of(agent, RealtimeDisconnectedEvent)
    assert end.clean


@virtual_time
async def test_model_that_closes_slowly_is_reported_once():
    class Slow(ScriptedRealtime):
        async def run(self, setup, listener):
            try:
                await super().run(setup, listener)
            finally:
                await asyncio.sleep(0.1)
                listener.disconnected(RealtimeDisconnectedEvent("again", clean=False))

    async with join_agent(Slow()) as agent:
        pass
    assert events_of(agent, RealtimeDisconnectedEvent) == [
        RealtimeDisconnectedEvent("closed", clean=True)
    ]


@virtual_time
async def test_model_that_cannot_start():
    class Unready(ScriptedRealtime):
        async def prepare(self, setup):
            raise SessionError("no weights")

    agent = Agent(edge=FakeEdge(), llm=Unready())
    events = []
    agent.events.tap(events.append)
    with pytest.raises(SessionError, match="no weights"):
        async with agent.join():
            pytest.fail("it started")
    assert events == [RealtimeDisconnectedEvent("no weights", clean=False)]
    assert not other_tasks()


@virtual_time
async def test_person_leaves_before_the_start():
    edge = FakeEdge(never_ready=True)
    asyncio.get_running_loop().call_later(0.5, edge.hung_up.set)
    with pytest.raises(SessionClosedError, match="left before"):
        async with join_agent(ScriptedRealtime(), edge):
            pytest.fail("it started")


@virtual_time
async def test_agent_joins_once():
    async with join_agent(ScriptedRealtime()) as agent:
        await agent.close()
        await agent.close()
    with pytest.raises(ConfigError, match="joins once"):
        async with agent.join():
            pytest.fail("it joined again")
    with pytest.raises(SessionClosedError):
        await agent.finish()
    await agent.close()
    assert len(events_of(agent, RealtimeDisconnectedEvent)) == 1


@virtual_time
async def test_exception_of_the_program_leaves_the_block():
    with pytest.raises(KeyError):
        async with join_agent(ScriptedRealtime()):
            raise KeyError("mine")
    assert not other_tasks()


@virtual_time
async def test_cancelling_the_program_ends_it():
    agents = []

    async def program():
        async with join_agent(ScriptedRealtime(["x" * 100])) as agent:
            agents.append(agent)
            await agent.simple_response("go")

    task = asyncio.create_task(program())
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(events_of(agents[0], RealtimeDisconnectedEvent)) == 1
    assert not other_tasks()


@virtual_time
async def test_handler_may_end_the_conversation():
    async with join_agent(ScriptedRealtime(["bye"])) as agent:

        @agent.events.subscribe
        async def on_end(event: AgentTurnEndedEvent):
            await agent.close()

        agent.simple_response("go")
        await agent.finish()
    assert len(events_of(agent, RealtimeDisconnectedEvent)) == 1


steps = st.one_of(
    st.tuples(st.just("ask"), st.booleans()),
    st.tuples(st.just("say"), st.booleans()),
    st.tuples(st.just("interrupt"), st.just(0)),
    st.tuples(st.just("speak"), st.floats(0.02, 0.6)),
    st.tuples(st.just("silence"), st.floats(0.02, 1.0)),
    st.tuples(st.just("write"), st.just(0)),
)
replies = st.builds(
    Reply,
    text=st.sampled_from(["hello there you", "x" * 40]),
    after_s=st.floats(0, 0.5),
    pace=st.sampled_from([0.0, 1.0, 3.0]),
    fails=st.sampled_from([None, None, None, "broken"]),
    refused=st.sampled_from([None, None, None, "no"]),
)


@given(
    script=st.lists(replies, max_size=6),
    plan=st.lists(steps, max_size=8),
    after=st.floats(0, 3),
    end=st.sampled_from(["leave", "close", "hang up", "fail"]),
    own_tts=st.booleans(),
)
@settings(deadline=None, max_examples=60)
@virtual_time
async def test_conversation_ends_within_a_second_at_any_moment(script, plan, after, end, own_tts):
    loop = asyncio.get_running_loop()
    model = ScriptedRealtime(
        script,
        transcripts=["hello", "", "stop now"],
        at=[At(after, SessionError("lost"))] if end == "fail" else [],
    )
    edge = FakeEdge(hangs_up_in=0.4)
    agent = Agent(edge=edge, llm=model, tts=FakeTTS() if own_tts else None)
    events, speeches = [], []
    agent.events.tap(events.append)
    ended = None
    try:
        async with agent.join():
            if end == "close":
                loop.call_later(after, lambda: asyncio.ensure_future(agent.close()))
            if end == "hang up":
                loop.call_later(after, edge.hung_up.set)
            for step, value in plan:
                match step:
                    case "ask":
                        speeches.append(agent.simple_response("go", interrupt=value))
                    case "say":
                        speeches.append(agent.say("some words", interruptible=value))
                    case "interrupt":
                        agent.interrupt()
                    case "speak":
                        await edge.speak(value)
                    case "silence":
                        await edge.be_silent(value)
                    case "write":
                        edge.person.push_text("hi")
            ended = loop.time()
    except (SessionClosedError, SessionError):
        ended = ended or loop.time()
    assert loop.time() - ended <= 1.0
    assert len([e for e in events if isinstance(e, RealtimeDisconnectedEvent)]) == 1
    assert all(speech.done for speech in speeches)
    await asyncio.sleep(0)
    assert not other_tasks()
    assert not pending_timers()
    assert sum(isinstance(e, InterruptionEvent) for e in events) == model.epoch
    by_id = {s.id: s for s in speeches}
    for item in agent.conversation:
        if isinstance(item, AgentItem):
            assert item.state != "speaking"
            if item.speech_id in by_id:
                assert item.text == by_id[item.speech_id].heard_text


@virtual_time
async def test_edge_error_at_a_frame_is_reported_and_ends_nothing():
    class Fragile(FakeEdge):
        frames_taken = 0

        def play(self, frame):
            self.frames_taken += 1
            if self.frames_taken == 30:
                raise OSError("the device is busy")
            super().play(frame)

    edge = Fragile()
    async with join_agent(ScriptedRealtime(), edge) as agent:
        speech = await agent.say("Good morning to all of you.")
        assert speech.state == "heard"
        (event,) = events_of(agent, ErrorEvent)
        assert (event.source, event.message) == ("edge", "OSError: the device is busy")
