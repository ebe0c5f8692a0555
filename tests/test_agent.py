import asyncio
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from duologue import Agent, Conversation, JsonlStore, Processor, User
from duologue.audio import AudioFrame
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
from duologue.realtime.errors import (
    ConfigError,
    ErrorKind,
    ReplyRefusedError,
    SessionClosedError,
    SessionError,
    UnsupportedError,
)
from duologue.realtime.outputs import (
    ProviderError,
    Usage,
)
from duologue.realtime.profile import Profile
from duologue.testing import At, Reply, ScriptedRealtime, virtual_time
from duologue.video import VideoFrame
from talk import FakeTTS, Phone, agent_items, kinds, of, settled_tasks, talking, tone


@virtual_time
async def test_a_reply_is_heard_and_remembered():
    model = ScriptedRealtime([Reply("Hello there.", seconds=1.0)])
    async with talking(model) as agent:
        speech = await agent.simple_response("Greet me.")
        assert speech.state == "heard"
        assert speech.heard_text == "Hello there."
        assert speech.played_ms == 1000
        assert np.array_equal(agent.edge.sound, tone(1.0))
        user, said = agent.conversation.items
        assert (user.text, user.spoken) == ("Greet me.", False)
        assert (said.text, said.state, said.played_ms) == ("Hello there.", "heard", 1000)
    assert kinds(agent) == [
        "RealtimeConnectedEvent",
        "AgentTranscriptEvent",
        "AgentTurnStartedEvent",
        "AgentHeardEvent",
        "AgentTranscriptEvent",
        "AgentTurnEndedEvent",
        "RealtimeDisconnectedEvent",
    ]
    assert agent.told[-1] == RealtimeDisconnectedEvent("closed", clean=True)
    assert not settled_tasks()


@virtual_time
async def test_words_are_told_as_they_are_heard():
    text = "One two three four five six seven eight nine ten."
    model = ScriptedRealtime([Reply(text, seconds=5.0)])
    times = []
    async with talking(model) as agent:
        agent.events.tap(
            lambda event: (
                times.append(asyncio.get_running_loop().time())
                if isinstance(event, AgentHeardEvent)
                else None
            )
        )
        speech = agent.simple_response("Count.")
        await asyncio.sleep(3.0)
        heard = "".join(event.text for event in of(agent, AgentHeardEvent))
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
        async with talking(model, tts=tts) as agent:
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
def test_say_enters_the_history_as_far_as_it_was_heard(own):
    @virtual_time
    async def run():
        model = ScriptedRealtime()
        async with talking(model, tts=FakeTTS() if own else None) as agent:
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
                # The model never had this item; it learns of what was heard, and no more.
                assert not cuts
                (added,) = [c.item for c in model.commands if isinstance(c, AddItem)]
                assert added.text == speech.heard_text
            else:
                (cut,) = cuts
                assert (cut.heard_text, cut.played_ms) == (speech.heard_text, speech.played_ms)
        assert not settled_tasks()

    run()


@virtual_time
async def test_say_waits_for_what_is_being_said():
    model = ScriptedRealtime([Reply("first", seconds=1.0, tone=300)])
    async with talking(model) as agent:
        first = agent.simple_response("go")
        await asyncio.sleep(0.5)
        second = agent.say("second")
        await second
        assert first.state == second.state == "heard"
        assert np.array_equal(agent.edge.sound[:24000], tone(1.0, 300))


@virtual_time
async def test_a_failing_synthesiser_fails_the_speech_only():
    tts = FakeTTS(fails=SessionError("no voice"))
    async with talking(ScriptedRealtime([Reply("Fine.")]), tts=tts) as agent:
        with pytest.raises(SessionError, match="no voice"):
            await agent.say("hello there")
        assert [e.source for e in of(agent, ErrorEvent)] == ["tts"]
        assert len(of(agent, AgentTurnEndedEvent)) == 1
        assert (await agent.simple_response("still there?")).heard_text == "Fine."


@virtual_time
async def test_a_synthesiser_that_hangs_does_not_keep_the_end():
    tts = FakeTTS(hangs=True)
    began = asyncio.get_running_loop().time()
    async with talking(ScriptedRealtime(), tts=tts) as agent:
        agent.say("x")
        await asyncio.sleep(0.5)
    assert asyncio.get_running_loop().time() - began < 1.5
    assert tts.closed == 1
    assert not settled_tasks()


@virtual_time
async def test_response_interrupts_what_is_said_or_waits_for_it():
    replies = [Reply("a" * 60, seconds=4.0), Reply("b", seconds=1.0), Reply("c", seconds=1.0)]
    async with talking(ScriptedRealtime(replies)) as agent:
        first = agent.simple_response("one")
        await asyncio.sleep(1.0)
        second = agent.simple_response("two", interrupt=True)
        assert (await first).interrupted
        await asyncio.sleep(0.5)
        third = agent.simple_response("three", interrupt=False)
        assert (await third).state == "heard"
        assert second.state == "heard"
        assert agent.llm.epoch == 1
        assert len(of(agent, InterruptionEvent)) == 1


@virtual_time
async def test_a_refused_reply_reaches_the_caller():
    async with talking(ScriptedRealtime([Reply("", refused="quota"), Reply("ok")])) as agent:
        with pytest.raises(ReplyRefusedError) as caught:
            await agent.simple_response("go")
        assert caught.value.code == "quota"
        assert [e.code for e in of(agent, ErrorEvent)] == ["quota"]
        assert (await agent.simple_response("again")).heard_text == "ok"


@virtual_time
async def test_a_failed_reply_reaches_the_caller_and_the_next_works():
    replies = [Reply("only half of", seconds=0.5, fails="overloaded"), Reply("ok")]
    async with talking(ScriptedRealtime(replies)) as agent:
        speech = agent.simple_response("go")
        with pytest.raises(SessionError, match="overloaded"):
            await speech
        assert speech.played_ms == 500
        assert agent_items(agent)[0].state == "cut"
        assert (await agent.simple_response("again")).heard_text == "ok"


@virtual_time
async def test_a_person_may_write():
    phone = Phone()
    async with talking(ScriptedRealtime(["Yes."]), phone) as agent:
        phone.person.text("Are you there?")
        await asyncio.sleep(2)
        assert [i.text for i in agent.conversation] == ["Are you there?", "Yes."]


@virtual_time
async def test_the_model_is_given_what_was_said_before(tmp_path):
    path = tmp_path / "talk.jsonl"
    async with talking(
        ScriptedRealtime(["Hello."]), conversation=Conversation(JsonlStore(path))
    ) as agent:
        await agent.simple_response("Hi.")
    setups = []

    class Watched(ScriptedRealtime):
        def open(self, setup):
            setups.append(setup)
            return super().open(setup)

    again = Conversation(JsonlStore(path))
    async with talking(Watched(), conversation=again, instructions="Be kind."):
        pass
    (setup,) = setups
    assert setup.instructions == "Be kind."
    assert [item.text for item in setup.history] == ["Hi.", "Hello."]


@virtual_time
async def test_pictures_are_refused_politely_and_once():
    phone = Phone()
    async with talking(ScriptedRealtime(), phone) as agent:
        for _ in range(3):
            phone.person.video(lambda: pytest.fail("nobody looks"))
        (error,) = of(agent, ErrorEvent)
        assert "can't see" in error.message


@virtual_time
async def test_pictures_are_taken_as_often_as_the_model_wants():
    phone = Phone()
    picture = VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0)

    class Dimming(Processor):
        def video(self, frame):
            return VideoFrame(frame.pixels + 1, frame.at)

    profile = Profile("p", "m", video=True)
    model = ScriptedRealtime(profile=profile, fps=2)
    async with talking(model, phone, processors=[Dimming()]):
        for _ in range(30):
            phone.person.video(lambda: picture)
            await asyncio.sleep(0.1)
    sent = [c.frame for c in model.commands]
    assert len(sent) == 6
    assert sent[0].pixels.max() == 1


@virtual_time
async def test_processors_see_change_and_drop_sound():
    class Half(Processor):
        def __init__(self):
            self.seen = 0

        def audio(self, frame):
            self.seen += 1
            return frame if self.seen % 2 else None

    phone, half, plain = Phone(), Half(), Processor()
    model = ScriptedRealtime()
    async with talking(model, phone, processors=[half, plain]):
        await phone.be_silent(1.0)
    assert half.seen == 50
    assert model.heard_samples == pytest.approx(25 * 480, abs=100)
    frame = AudioFrame.silence(0.02, 16000)
    assert plain.audio(frame) is frame
    picture = VideoFrame(np.zeros((2, 2, 3), np.uint8), 0.0)
    assert plain.video(picture) is picture


@virtual_time
async def test_a_turn_is_told_in_order_with_its_times():
    phone = Phone()
    model = ScriptedRealtime(["Fine."], transcripts=["how are you"])
    async with talking(model, phone, person=User("Ann", "ann")) as agent:
        assert (agent.agent_user.id, agent.person.id) == ("agent", "ann")
        await phone.speak(1.0)
        await phone.be_silent(2.0)
    order = [k for k in kinds(agent) if k.startswith(("User", "Agent", "Turn"))]
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
    assert of(agent, UserTranscriptEvent)[-1] == UserTranscriptEvent("how are you", True, "ann")
    assert of(agent, UserTurnEndedEvent) == [UserTurnEndedEvent("ann", "how are you")]
    (times,) = of(agent, TurnMetricsEvent)
    assert 400 < times.endpoint_ms <= times.first_text_ms <= times.first_audio_ms
    assert times.first_audio_ms <= times.first_played_ms < times.first_audio_ms + 21
    item = next(i for i in agent.conversation if isinstance(i, UserItem))
    assert (item.text, item.participant) == ("how are you", "ann")


@virtual_time
async def test_the_models_reports_are_told():
    model = ScriptedRealtime(
        at=[
            At(0.1, Usage({"text": 1}, {"audio": 2})),
            At(0.2, ProviderError(ErrorKind.BENIGN, "a", "nothing")),
            At(0.3, ProviderError(ErrorKind.RETRY, "b", "something")),
        ]
    )
    async with talking(model) as agent:
        await asyncio.sleep(1)
    assert of(agent, UsageEvent) == [UsageEvent({"text": 1}, {"audio": 2})]
    assert [e.code for e in of(agent, ErrorEvent)] == ["b"]
    assert len(of(agent, RealtimeConnectedEvent)) == 1


def test_combinations_that_can_not_work():
    model = ScriptedRealtime()
    with pytest.raises(ConfigError, match="hears by itself"):
        Agent(edge=Phone(), llm=model, stt=object())
    text = SimpleNamespace(model="m", tools_reliable=True, prepare=print, generate=print)
    with pytest.raises(ConfigError, match="needs stt"):
        Agent(edge=Phone(), llm=text)


@virtual_time
async def test_what_the_model_can_not_do_is_an_error():
    agent = Agent(edge=Phone(), llm=ScriptedRealtime())
    with pytest.raises(SessionClosedError):
        agent.say("too early")
    profile = Profile("p", "m", say="none")
    async with talking(ScriptedRealtime(profile=profile)) as agent:
        with pytest.raises(UnsupportedError, match="tts"):
            agent.say("hello")
        with pytest.raises(ConfigError, match="some text"):
            agent.say("  ")


@pytest.mark.parametrize("ability", ["none", "experimental"])
def test_tools_need_a_model_that_calls_them(ability):
    @virtual_time
    async def run():
        model = ScriptedRealtime(profile=Profile("p", "m", tools=ability))
        agent = Agent(edge=Phone(), llm=model)
        agent.tool(len_of)
        with pytest.raises(UnsupportedError):
            async with agent.join():
                pytest.fail("it began")

    run()


def len_of(text: str) -> int:
    return len(text)


@virtual_time
async def test_an_edge_that_can_not_be_joined_says_why():
    phone = Phone()
    phone.output_rate = 11025 + 1
    with pytest.raises(ValueError, match="whole number"):
        async with talking(ScriptedRealtime(), phone):
            pytest.fail("it began")


@virtual_time
async def test_a_person_without_an_id_is_not_the_agent():
    async with talking(ScriptedRealtime(), person=User("Robin")) as agent:
        assert (agent.person.name, agent.person.id) == ("Robin", "person")


@virtual_time
async def test_what_is_no_text_is_told_at_once():
    async with talking(ScriptedRealtime()) as agent:
        for wrong in (b"bytes", 5, None):
            with pytest.raises(ConfigError, match=r"say needs a str, not \w+"):
                agent.say(wrong)
            with pytest.raises(ConfigError, match=r"simple_response needs a str, not \w+"):
                agent.simple_response(wrong)
        assert not of(agent, ErrorEvent)
