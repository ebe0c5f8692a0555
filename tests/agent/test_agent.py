import asyncio
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from duologue import Agent, Conversation, JsonlStore, Processor, User
from duologue.audio import AudioFrame
from duologue.errors import (
    ConfigError,
    ErrorKind,
    ReplyRefusedError,
    SessionClosedError,
    SessionError,
    UnsupportedError,
)
from duologue.events import (
    AgentHeardEvent,
    AgentTurnEndedEvent,
    ErrorEvent,
    InterruptionEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    TurnMetricsEvent,
    UsageEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
)
from duologue.items import UserItem
from duologue.realtime.commands import AddItem, DeleteItem, Truncate
from duologue.realtime.outputs import ProviderError, Usage
from duologue.testing import SCRIPTED_CAPABILITIES, At, Reply, ScriptedRealtime, virtual_time
from duologue.video import VideoFrame
from fake_edge import (
    FakeEdge,
    FakeTTS,
    agent_items,
    event_names,
    events_of,
    join_agent,
    other_tasks,
    tone,
)


@virtual_time
async def test_reply_is_heard_and_stored():
    model = ScriptedRealtime([Reply("Hello there.", seconds=1.0)])
    async with join_agent(model) as agent:
        speech = await agent.simple_response("Greet me.")
        assert speech.state == "heard"
        assert speech.heard_text == "Hello there."
        assert speech.played_ms == 1000
        assert np.array_equal(agent.edge.played_audio, tone(1.0))
        user, reply = agent.conversation.items
        assert (user.text, user.spoken) == ("Greet me.", False)
        assert (reply.text, reply.state, reply.played_ms) == ("Hello there.", "heard", 1000)
    assert event_names(agent) == [
        "RealtimeConnectedEvent",
        "ReplyStartedEvent",
        "AgentTranscriptEvent",
        "ReplyDoneEvent",
        "AgentTurnStartedEvent",
        "AgentHeardEvent",
        "AgentTranscriptEvent",
        "AgentTurnEndedEvent",
        "RealtimeDisconnectedEvent",
    ]
    assert agent.recorded[-1] == RealtimeDisconnectedEvent("closed", clean=True)
    assert not other_tasks()


@virtual_time
async def test_heard_text_is_reported_while_it_plays():
    text = "One two three four five six seven eight nine ten."
    model = ScriptedRealtime([Reply(text, seconds=5.0)])
    times = []
    async with join_agent(model) as agent:
        agent.events.tap(
            lambda event: (
                times.append(asyncio.get_running_loop().time())
                if isinstance(event, AgentHeardEvent)
                else None
            )
        )
        speech = agent.simple_response("Count.")
        await asyncio.sleep(3.0)
        heard = "".join(event.text for event in events_of(agent, AgentHeardEvent))
        agent.interrupt()
        assert speech.heard_text.startswith(heard)
        assert len(speech.heard_text) - len(heard) <= len(" seven")
        assert len(times) > 3
        assert all(later - sooner >= 0.19 for sooner, later in pairwise(times))


@pytest.mark.parametrize("tts", [None, FakeTTS()])
def test_say_speaks_exactly_the_text(tts):
    @virtual_time
    async def run():
        model = ScriptedRealtime()
        async with join_agent(model, tts=tts) as agent:
            speech = await agent.say("I'll be right back.")
            assert speech.heard_text == "I'll be right back."
            (item,) = agent_items(agent)
            assert (item.text, item.state) == ("I'll be right back.", "heard")
            await asyncio.sleep(0.1)
            if tts is not None:
                (added,) = [c.item for c in model.commands if isinstance(c, AddItem)]
                assert added.text == "I'll be right back."

    run()


@pytest.mark.parametrize("own", [False, True])
def test_say_enters_the_history_as_far_as_heard(own):
    @virtual_time
    async def run():
        model = ScriptedRealtime()
        async with join_agent(model, tts=FakeTTS() if own else None) as agent:
            text = "one two three four five six seven eight nine ten"
            speech = agent.say(text)
            await asyncio.sleep(1.5)
            agent.interrupt()
            assert (await speech).interrupted
            assert 0 < len(speech.heard_text) < len(text)
            assert text.startswith(speech.heard_text)
            (item,) = agent_items(agent)
            assert (item.text, item.state) == (speech.heard_text, "cut")
            await asyncio.sleep(0.1)
            cuts = [c for c in model.commands if isinstance(c, Truncate | DeleteItem)]
            if own:
                # The model never had this item; it is told what was heard, and no more.
                assert not cuts
                (added,) = [c.item for c in model.commands if isinstance(c, AddItem)]
                assert added.text == speech.heard_text
            else:
                (cut,) = cuts
                assert (cut.heard_text, cut.played_ms) == (speech.heard_text, speech.played_ms)
        assert not other_tasks()

    run()


@virtual_time
async def test_say_waits_for_the_current_speech():
    model = ScriptedRealtime([Reply("first", seconds=1.0, tone=300)])
    async with join_agent(model) as agent:
        first = agent.simple_response("go")
        await asyncio.sleep(0.5)
        second = agent.say("second")
        await second
        assert first.state == second.state == "heard"
        assert np.array_equal(agent.edge.played_audio[:24000], tone(1.0, 300))


@virtual_time
async def test_failing_tts_fails_only_its_speech():
    tts = FakeTTS(fails=SessionError("no voice"))
    async with join_agent(ScriptedRealtime([Reply("Fine.")]), tts=tts) as agent:
        with pytest.raises(SessionError, match="no voice"):
            await agent.say("hello there")
        assert [e.source for e in events_of(agent, ErrorEvent)] == ["tts"]
        assert len(events_of(agent, AgentTurnEndedEvent)) == 1
        assert (await agent.simple_response("still there?")).heard_text == "Fine."


@virtual_time
async def test_hanging_tts_does_not_delay_the_end():
    tts = FakeTTS(hangs=True)
    started = asyncio.get_running_loop().time()
    async with join_agent(ScriptedRealtime(), tts=tts) as agent:
        agent.say("x")
        await asyncio.sleep(0.5)
    assert asyncio.get_running_loop().time() - started < 1.5
    assert tts.closed == 1
    assert not other_tasks()


@virtual_time
async def test_simple_response_interrupts_the_current_speech_or_waits_for_it():
    replies = [Reply("a" * 60, seconds=4.0), Reply("b", seconds=1.0), Reply("c", seconds=1.0)]
    async with join_agent(ScriptedRealtime(replies)) as agent:
        first = agent.simple_response("one")
        await asyncio.sleep(1.0)
        second = agent.simple_response("two", interrupt=True)
        assert (await first).interrupted
        await asyncio.sleep(0.5)
        third = agent.simple_response("three", interrupt=False)
        assert (await third).state == "heard"
        assert second.state == "heard"
        assert agent.llm.epoch == 1
        assert len(events_of(agent, InterruptionEvent)) == 1


@virtual_time
async def test_refused_reply_raises_in_the_caller():
    async with join_agent(ScriptedRealtime([Reply("", refused="quota"), Reply("ok")])) as agent:
        with pytest.raises(ReplyRefusedError) as caught:
            await agent.simple_response("go")
        assert caught.value.code == "quota"
        assert [e.code for e in events_of(agent, ErrorEvent)] == ["quota"]
        assert (await agent.simple_response("again")).heard_text == "ok"


@virtual_time
async def test_failed_reply_raises_in_the_caller_and_the_next_one_works():
    replies = [Reply("only half of", seconds=0.5, fails="overloaded"), Reply("ok")]
    async with join_agent(ScriptedRealtime(replies)) as agent:
        speech = agent.simple_response("go")
        with pytest.raises(SessionError, match="overloaded"):
            await speech
        assert speech.played_ms == 500
        assert agent_items(agent)[0].state == "cut"
        assert (await agent.simple_response("again")).heard_text == "ok"


@virtual_time
async def test_person_may_write_text():
    edge = FakeEdge()
    async with join_agent(ScriptedRealtime(["Yes."]), edge) as agent:
        edge.person.push_text("Are you there?")
        await asyncio.sleep(2)
        assert [i.text for i in agent.conversation] == ["Are you there?", "Yes."]


@virtual_time
async def test_a_text_that_comes_before_the_model_is_connected_is_answered():
    class Slow(ScriptedRealtime):
        async def run(self, setup, observer):
            await asyncio.sleep(1)
            await super().run(setup, observer)

    edge = FakeEdge()
    agent = Agent(edge=edge, llm=Slow(["Yes."]))

    async def write():
        while edge.person is None:
            await asyncio.sleep(0.01)
        edge.person.push_text("Are you there?")

    writing = asyncio.ensure_future(write())
    async with agent.join():
        await writing
        await asyncio.sleep(2)
        assert [i.text for i in agent.conversation] == ["Are you there?", "Yes."]


@virtual_time
async def test_model_gets_the_stored_history(tmp_path):
    path = tmp_path / "talk.jsonl"
    async with join_agent(
        ScriptedRealtime(["Hello."]), conversation=Conversation(JsonlStore(path))
    ) as agent:
        await agent.simple_response("Hi.")
    setups = []

    class Watched(ScriptedRealtime):
        def open(self, setup):
            setups.append(setup)
            return super().open(setup)

    again = Conversation(JsonlStore(path))
    async with join_agent(Watched(), conversation=again, instructions="Be kind."):
        pass
    (setup,) = setups
    assert setup.instructions == "Be kind."
    assert [item.text for item in setup.history] == ["Hi.", "Hello."]


@virtual_time
async def test_video_for_a_blind_model_is_reported_once():
    edge = FakeEdge()
    async with join_agent(ScriptedRealtime(), edge) as agent:
        for _ in range(3):
            edge.person.push_video(lambda: pytest.fail("the frame was taken"))
        (error,) = events_of(agent, ErrorEvent)
        assert "can't see" in error.message


@virtual_time
async def test_video_frames_are_sent_at_the_models_fps():
    edge = FakeEdge()
    image = VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0)

    class Dimming(Processor):
        def video(self, frame):
            return VideoFrame(frame.pixels + 1, frame.at)

    profile = replace(
        SCRIPTED_CAPABILITIES, provider="p", model="m", video=True, user_transcripts="final"
    )
    model = ScriptedRealtime(capabilities=profile, fps=2)
    async with join_agent(model, edge, processors=[Dimming()]):
        for _ in range(30):
            edge.person.push_video(lambda: image)
            await asyncio.sleep(0.1)
    sent = [c.frame for c in model.commands]
    assert len(sent) == 6
    assert sent[0].pixels.max() == 1


@virtual_time
async def test_processors_see_change_and_drop_audio():
    class Half(Processor):
        def __init__(self):
            self.seen = 0

        def audio(self, frame):
            self.seen += 1
            return frame if self.seen % 2 else None

    edge, half, plain = FakeEdge(), Half(), Processor()
    model = ScriptedRealtime()
    async with join_agent(model, edge, processors=[half, plain]):
        await edge.be_silent(1.0)
    assert half.seen == 50
    assert model.received_samples == pytest.approx(25 * 480, abs=100)
    frame = AudioFrame.silence(0.02, 16000)
    assert plain.audio(frame) is frame
    image = VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0)
    assert plain.video(image) is image


@virtual_time
async def test_turn_events_come_in_order_with_their_times():
    edge = FakeEdge()
    model = ScriptedRealtime(["Fine."], transcripts=["how are you"])
    async with join_agent(model, edge, person=User("Ann", "ann")) as agent:
        assert (agent.agent_user.id, agent.person.id) == ("agent", "ann")
        await edge.speak(1.0)
        await edge.be_silent(2.0)
    order = [k for k in event_names(agent) if k.startswith(("User", "Agent", "Turn"))]
    partials = [k for k in order if k == "UserTranscriptEvent"]
    assert order[0] == "UserTurnStartedEvent"
    assert order[1 : 1 + len(partials)] == partials
    assert order[1 + len(partials) :] == [
        "UserTurnEndedEvent",
        "AgentTranscriptEvent",
        "AgentTurnStartedEvent",
        "TurnMetricsEvent",
        "AgentTranscriptEvent",
        "AgentTurnEndedEvent",
    ]
    assert events_of(agent, UserTranscriptEvent)[-1] == UserTranscriptEvent(
        "how are you", True, "ann"
    )
    assert events_of(agent, UserTurnEndedEvent) == [UserTurnEndedEvent("ann", "how are you")]
    (times,) = events_of(agent, TurnMetricsEvent)
    assert 400 < times.endpoint_ms <= times.first_text_ms <= times.first_audio_ms
    assert times.first_audio_ms <= times.first_played_ms < times.first_audio_ms + 21
    item = next(i for i in agent.conversation if isinstance(i, UserItem))
    assert (item.text, item.participant) == ("how are you", "ann")


@virtual_time
async def test_reports_of_the_model_become_events():
    model = ScriptedRealtime(
        at=[
            At(0.1, Usage({"text": 1}, {"audio": 2})),
            At(0.2, ProviderError(ErrorKind.BENIGN, "a", "nothing")),
            At(0.3, ProviderError(ErrorKind.RETRY, "b", "something")),
        ]
    )
    async with join_agent(model) as agent:
        await asyncio.sleep(1)
    assert events_of(agent, UsageEvent) == [UsageEvent({"text": 1}, {"audio": 2})]
    assert [e.code for e in events_of(agent, ErrorEvent)] == ["b"]
    assert len(events_of(agent, RealtimeConnectedEvent)) == 1


def test_impossible_combinations_of_arguments_raise():
    model = ScriptedRealtime()
    with pytest.raises(ConfigError, match="listens by itself"):
        Agent(edge=FakeEdge(), llm=model, stt=object())
    text = SimpleNamespace(model="m", tools_reliable=True, prepare=print, generate=print)
    with pytest.raises(ConfigError, match="needs stt"):
        Agent(edge=FakeEdge(), llm=text)


@virtual_time
async def test_what_the_model_does_not_support_raises():
    agent = Agent(edge=FakeEdge(), llm=ScriptedRealtime())
    with pytest.raises(SessionClosedError):
        agent.say("too early")
    profile = replace(
        SCRIPTED_CAPABILITIES, provider="p", model="m", say="none", user_transcripts="final"
    )
    async with join_agent(ScriptedRealtime(capabilities=profile)) as agent:
        with pytest.raises(UnsupportedError, match="tts"):
            agent.say("hello")
        with pytest.raises(ConfigError, match="some text"):
            agent.say("  ")


@pytest.mark.parametrize("ability", ["none", "experimental"])
def test_tools_require_a_model_that_calls_them(ability):
    @virtual_time
    async def run():
        model = ScriptedRealtime(
            capabilities=replace(
                SCRIPTED_CAPABILITIES,
                provider="p",
                model="m",
                tools=ability,
                user_transcripts="final",
            )
        )
        agent = Agent(edge=FakeEdge(), llm=model)
        agent.tool(len_of)
        with pytest.raises(UnsupportedError):
            async with agent.join():
                pytest.fail("it started")

    run()


def len_of(text: str) -> int:
    return len(text)


@virtual_time
async def test_edge_that_cannot_be_joined_raises_its_error():
    edge = FakeEdge()
    edge.output_rate = 11025 + 1
    with pytest.raises(ValueError, match="whole number"):
        async with join_agent(ScriptedRealtime(), edge):
            pytest.fail("it started")


@virtual_time
async def test_person_without_an_id_is_not_the_agent():
    async with join_agent(ScriptedRealtime(), person=User("Robin")) as agent:
        assert (agent.person.name, agent.person.id) == ("Robin", "person")


@virtual_time
async def test_say_and_simple_response_reject_anything_but_text():
    async with join_agent(ScriptedRealtime()) as agent:
        for wrong in (b"bytes", 5, None):
            with pytest.raises(ConfigError, match=r"say needs a str, not \w+"):
                agent.say(wrong)
            with pytest.raises(ConfigError, match=r"simple_response needs a str, not \w+"):
                agent.simple_response(wrong)
        assert not events_of(agent, ErrorEvent)
