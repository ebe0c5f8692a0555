import asyncio

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from duologue import Agent, BargeInPolicy, Conversation, JsonlStore, Processor, User
from duologue.audio import AudioFrame
from duologue.events import (
    AgentTurnEndedEvent,
    ErrorEvent,
    InterruptionEvent,
    RealtimeConnectedEvent,
    RealtimeDisconnectedEvent,
    SpeechHeldEvent,
    SpeechResumedEvent,
    ToolEndEvent,
    TurnMetricsEvent,
    UsageEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
)
from duologue.items import AgentItem, UserItem
from duologue.realtime.commands import AddItem, CancelReply, DeleteItem, Truncate
from duologue.realtime.errors import (
    ConfigError,
    ErrorKind,
    ReplyRefusedError,
    SessionClosedError,
    SessionError,
    UnsupportedError,
)
from duologue.realtime.outputs import (
    GoAway,
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SpeechStarted,
    Usage,
    UserTranscript,
    UserTurnEnded,
)
from duologue.realtime.profile import Profile
from duologue.testing import At, Reply, ScriptedRealtime, ToolUse, virtual_time
from duologue.video import VideoFrame
from talk import Phone, kinds, of, talking, tone


class FakeTTS:
    rate = 24000

    def __init__(self, *, fails=None, hangs=False):
        self.fails = fails
        self.hangs = hangs
        self.closed = 0

    async def synthesize(self, text):
        try:
            for _ in range(len(text)):
                await asyncio.sleep(0.01)
                yield AudioFrame(np.full(2400, 500, np.int16), 24000)
            if self.hangs:
                await asyncio.Event().wait()
            if self.fails:
                raise self.fails
        finally:
            self.closed += 1


def agent_items(agent):
    return [item for item in agent.conversation if isinstance(item, AgentItem)]


def settled_tasks():
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def own_timers():
    """Callbacks of the library that are still to come."""
    timers = [t for t in asyncio.get_running_loop()._scheduled if not t.cancelled()]
    return [t for t in timers if getattr(t._callback, "__module__", "").startswith("duologue")]


# Speaking


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
        "AgentTranscriptEvent",
        "AgentTurnEndedEvent",
        "RealtimeDisconnectedEvent",
    ]
    assert agent.told[-1] == RealtimeDisconnectedEvent("closed", clean=True)
    assert not settled_tasks()


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


# Barge-in


async def until_speaking(phone):
    while not len(phone.sound):
        await asyncio.sleep(0.02)


@virtual_time
async def test_a_person_interrupts_once_however_many_signals_tell_it():
    model = ScriptedRealtime(
        [Reply("a long answer that goes on and on", seconds=10.0), Reply("Sorry.")],
        transcripts=["stop that now"],
        at=[
            At(2.3, SpeechStarted("other")),
            At(2.45, ReplyInterrupted()),
            At(2.5, UserTranscript("other", "stop that", final=False)),
            At(2.6, ReplyInterrupted("x")),
        ],
    )
    phone = Phone()
    async with talking(model, phone) as agent:
        speech = agent.simple_response("talk")
        await asyncio.sleep(2.1)
        await phone.speak(1.5)
        assert agent.llm.epoch == 1
        (told,) = of(agent, InterruptionEvent)
        assert (told.epoch, told.speech_id) == (1, speech.id)
        assert told.played_ms == speech.played_ms
        assert speech.text.startswith(told.heard_text)
        assert len([c for c in model.commands if isinstance(c, CancelReply)]) <= 1
        await phone.be_silent(3.0)
        assert agent_items(agent)[-1].text == "Sorry."
        assert agent.llm.epoch == 1


@virtual_time
async def test_nothing_old_is_played_after_an_interruption():
    phone = Phone()
    model = ScriptedRealtime([Reply("x" * 90, pace=1.0, chunk_ms=40)])
    async with talking(model, phone) as agent:
        agent.simple_response("talk")
        await asyncio.sleep(1.0)
        agent.interrupt()
        before = len(phone.sound)
        assert phone.clears >= 1
        await asyncio.sleep(2.0)
        assert len(phone.sound) == before


@virtual_time
async def test_a_reply_that_had_not_begun_is_cancelled_when_it_appears():
    phone = Phone()
    model = ScriptedRealtime([Reply("too late", after_s=1.0), Reply("now", tone=300, seconds=0.5)])
    async with talking(model, phone) as agent:
        speech = agent.simple_response("one")
        await asyncio.sleep(0.2)
        agent.interrupt()
        assert (await speech).interrupted
        assert (await agent.simple_response("two")).heard_text == "now"
        assert len([c for c in model.commands if isinstance(c, CancelReply)]) == 1
        assert np.array_equal(phone.sound, tone(0.5, 300))


@virtual_time
async def test_a_cough_loses_no_sample():
    phone = Phone()
    model = ScriptedRealtime([Reply("x", seconds=3.0)], transcripts=["", ""])
    async with talking(model, phone) as agent:
        speech = agent.simple_response("talk")
        await until_speaking(phone)
        await phone.speak(0.3)
        await phone.be_silent(4.0)
        assert (await speech).state == "heard"
        (held,), (resumed,) = of(agent, SpeechHeldEvent), of(agent, SpeechResumedEvent)
        assert held.speech_id == resumed.speech_id == speech.id
        assert 0 < resumed.held_ms <= 900
        assert np.array_equal(phone.sound, tone(3.0))
        assert agent.llm.epoch == 0
        assert [e.text for e in of(agent, UserTurnEndedEvent)] == [None]


@pytest.mark.parametrize("how", ["flag", "policy"])
def test_what_is_not_interruptible_goes_on(how):
    @virtual_time
    async def run():
        phone = Phone()
        model = ScriptedRealtime([], transcripts=["stop it please"])
        policy = BargeInPolicy(enabled=how == "flag")
        async with talking(model, phone, barge_in=policy) as agent:
            speech = agent.say("an important notice", interruptible=how == "policy")
            await phone.speak(0.6)
            await phone.be_silent(2.0)
            assert (await speech).state == "heard"
            assert agent.llm.epoch == 0
            agent.say("another", interruptible=False)
            await asyncio.sleep(0.5)
            assert agent.interrupt() == 1
            assert not agent.llm.pending or not agent.llm.answering

    run()


class Distant(ScriptedRealtime):
    """Takes three seconds to hear that its reply was cancelled."""

    def open(self, setup):
        connection = super().open(setup)
        transmit = connection.transmit

        def late(command):
            if isinstance(command, CancelReply):
                asyncio.get_running_loop().call_later(3.0, transmit, command)
            else:
                transmit(command)

        connection.transmit = late
        return connection


@virtual_time
async def test_a_model_that_is_slow_to_stop_is_interrupted_once():
    phone = Phone()
    replies = [Reply("x" * 90, pace=1.0), Reply("Sorry.", seconds=0.5, tone=300)]
    model = Distant(
        replies,
        transcripts=["stop that please"],
        at=[At(2.5, ReplyInterrupted()), At(2.7, ReplyInterrupted("r"))],
    )
    async with talking(model, phone) as agent:
        agent.simple_response("talk")
        await asyncio.sleep(1.5)
        await phone.speak(1.5)
        assert agent.llm.pending
        assert agent.llm.epoch == 1
        heard = len(phone.sound)
        await phone.be_silent(5.0)
        assert agent.llm.epoch == 1
        assert len(of(agent, InterruptionEvent)) == 1
        assert agent_items(agent)[-1].text == "Sorry."
        assert len(phone.sound) == heard + 12000


@virtual_time
async def test_a_notice_that_is_only_asked_for_is_protected_too():
    model = ScriptedRealtime(
        at=[
            At(1.02, SpeechStarted("u", at=0.5)),
            At(1.05, UserTranscript("u", "stop it", final=False)),
        ]
    )
    async with talking(model) as agent:
        await asyncio.sleep(1.0)
        speech = agent.say("please hold the line", interruptible=False)
        assert (await speech).state == "heard"
        assert agent.llm.epoch == 0


@virtual_time
async def test_an_interruption_ends_a_hold():
    phone = Phone()
    model = ScriptedRealtime([Reply("x", seconds=9.0)], transcripts=[""])
    async with talking(model, phone) as agent:
        agent.simple_response("talk")
        await asyncio.sleep(1.0)
        await phone.speak(0.2)
        assert of(agent, SpeechHeldEvent)
        agent.interrupt()
        agent.say("something new and rather long")
        await phone.be_silent(1.2)
        assert not of(agent, SpeechResumedEvent)
        await phone.speak(0.1)
        assert len(of(agent, SpeechHeldEvent)) == 2
    assert not own_timers()


@virtual_time
async def test_what_no_client_has_confirmed_was_not_heard():
    phone = Phone()
    phone.quality = "confirmed"
    replies = [Reply("never arrived", seconds=5.0), Reply("arrived and known", seconds=5.0)]
    model = ScriptedRealtime(replies)
    async with talking(model, phone) as agent:
        agent.simple_response("one")
        await asyncio.sleep(1.0)
        agent.interrupt()
        (item,) = agent.conversation
        assert item.text == "one"
        assert isinstance(model.commands[-1], DeleteItem)
        assert of(agent, AgentTurnEndedEvent)[0].interrupted
        speech = agent.simple_response("two")
        await asyncio.sleep(1.0)
        phone.person.played(len(phone.frames) * 480 - 4800)
        agent.interrupt()
        assert 500 < speech.played_ms < 900
        assert speech.quality == "confirmed"
        (cut,) = [c for c in model.commands if isinstance(c, Truncate)]
        assert cut.played_ms == speech.played_ms


# Ends


@virtual_time
async def test_the_person_leaves():
    phone = Phone()
    async with talking(ScriptedRealtime(), phone) as agent:
        asyncio.get_running_loop().call_later(3.0, phone.hung_up.set)
        await agent.finish()
        with pytest.raises(SessionClosedError):
            agent.say("hello?")
    assert of(agent, RealtimeDisconnectedEvent) == [RealtimeDisconnectedEvent("closed", clean=True)]


@virtual_time
async def test_the_line_breaks():
    phone = Phone(fails_at=1.0)
    with pytest.raises(OSError, match="broken"):
        async with talking(ScriptedRealtime(), phone) as agent:
            await agent.finish()
    assert len(of(agent, RealtimeDisconnectedEvent)) == 1
    assert not settled_tasks()


@virtual_time
async def test_the_model_fails_in_mid_call():
    model = ScriptedRealtime(
        [Reply("x" * 30, pace=1.0)], at=[At(1.0, SessionError("server error", code="500"))]
    )
    async with talking(model) as agent:
        speech = agent.simple_response("talk")
        with pytest.raises(SessionError, match="server error"):
            await agent.finish()
        assert of(agent, RealtimeDisconnectedEvent) == [
            RealtimeDisconnectedEvent("server error", clean=False)
        ]
        with pytest.raises(SessionClosedError):
            await asyncio.wait_for(asyncio.shield(_wait(speech)), 5)
        assert speech.played_ms > 0
    assert len(of(agent, RealtimeDisconnectedEvent)) == 1
    assert not settled_tasks()


async def _wait(speech):
    return await speech


@virtual_time
async def test_the_model_fails_while_a_tool_runs():
    model = ScriptedRealtime(
        [Reply("", 0.0, tools=[ToolUse("slow")])], at=[At(1.0, SessionError("gone"))]
    )

    def add(agent):
        @agent.tool
        async def slow() -> str:
            await asyncio.sleep(9)
            return "x"

    async with talking(model, prepare=add) as agent:
        with pytest.raises(SessionClosedError, match="gone"):
            await agent.simple_response("go")
        assert not agent.edge.person.settled
        with pytest.raises(SessionError, match="gone"):
            await agent.finish()
    assert [e.status for e in of(agent, ToolEndEvent)] == ["cancelled"]
    assert not settled_tasks()


@virtual_time
async def test_closing_cuts_what_was_only_asked_for():
    model = ScriptedRealtime([Reply("late", after_s=5.0)])
    phone = Phone()
    async with talking(model, phone) as agent:
        first = agent.simple_response("one")
        second = agent.simple_response("two", interrupt=False)
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(agent.close())
        await asyncio.sleep(0)
        phone.person.text("too late")
        await closing
        assert first.interrupted
        assert second.interrupted
    assert not of(agent, ErrorEvent)
    assert [i.text for i in agent.conversation] == ["one", "two"]


@virtual_time
async def test_a_transcript_that_comes_late_takes_its_place():
    model = ScriptedRealtime(
        at=[
            At(0.1, SpeechStarted("u")),
            At(0.5, UserTurnEnded("u")),
            At(0.6, ReplyStarted("r")),
            At(0.6, ReplyText("r", "i", "Yes.")),
            At(0.6, ReplyAudio("r", "i", AudioFrame.silence(0.5, 24000))),
            At(0.6, ReplyDone("r")),
            At(0.8, UserTranscript("u", "are you there", final=True)),
            At(0.9, ReplyText("unknown", "i", "words of nobody")),
            At(0.9, GoAway(60.0)),
        ]
    )
    async with talking(model) as agent:
        await asyncio.sleep(0.55)
        assert [i.text for i in agent.conversation] == [None]
        await asyncio.sleep(2)
        assert [i.text for i in agent.conversation] == ["are you there", "Yes."]
        assert of(agent, UserTurnEndedEvent) == [UserTurnEndedEvent("person", None)]


@virtual_time
async def test_an_item_whose_words_came_without_sound_is_taken_back():
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
    async with talking(model) as agent:
        await asyncio.sleep(1.9)
        agent.interrupt()
        cuts = [c for c in model.commands if isinstance(c, Truncate | DeleteItem)]
        assert [(c.item_id, c.heard_text) for c in cuts] == [("i", "Words."), ("j", "More")]
        assert cuts[0].played_ms == 1000
        await asyncio.sleep(1.5)
        agent.interrupt()
        assert model.commands[-1] == DeleteItem("k")
        assert [i.text for i in agent.conversation] == ["Words. More"]


@virtual_time
async def test_a_reply_that_is_far_too_long_is_bounded_and_told_once():
    model = ScriptedRealtime([Reply("x", seconds=620.0, chunk_ms=1000)])
    async with talking(model) as agent:
        agent.simple_response("go")
        await asyncio.sleep(1.0)
        (error,) = of(agent, ErrorEvent)
        assert "ten minutes" in error.message


@virtual_time
async def test_a_failure_nobody_waited_for_leaves_the_block():
    model = ScriptedRealtime(at=[At(1.0, SessionError("gone"))])
    with pytest.raises(SessionError, match="gone"):
        async with talking(model):
            await asyncio.sleep(2)


@virtual_time
async def test_the_model_ends_cleanly():
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

    async with talking(Leaving()) as agent:
        await agent.finish()
    (end,) = of(agent, RealtimeDisconnectedEvent)
    assert end.clean


@virtual_time
async def test_a_model_that_is_slow_to_leave_is_told_of_once():
    class Slow(ScriptedRealtime):
        async def run(self, setup, listener):
            try:
                await super().run(setup, listener)
            finally:
                await asyncio.sleep(0.1)
                listener.disconnected(RealtimeDisconnectedEvent("again", clean=False))

    async with talking(Slow()) as agent:
        pass
    assert of(agent, RealtimeDisconnectedEvent) == [RealtimeDisconnectedEvent("closed", clean=True)]


@virtual_time
async def test_a_model_that_can_not_begin():
    class Unready(ScriptedRealtime):
        async def prepare(self, setup):
            raise SessionError("no weights")

    agent = Agent(edge=Phone(), llm=Unready())
    told = []
    agent.events.tap(told.append)
    with pytest.raises(SessionError, match="no weights"):
        async with agent.join():
            pytest.fail("it began")
    assert told == [RealtimeDisconnectedEvent("no weights", clean=False)]
    assert not settled_tasks()


@virtual_time
async def test_the_person_leaves_before_it_began():
    phone = Phone(never_ready=True)
    asyncio.get_running_loop().call_later(0.5, phone.hung_up.set)
    with pytest.raises(SessionClosedError, match="left before"):
        async with talking(ScriptedRealtime(), phone):
            pytest.fail("it began")


@virtual_time
async def test_an_agent_joins_once():
    async with talking(ScriptedRealtime()) as agent:
        await agent.close()
        await agent.close()
    with pytest.raises(ConfigError, match="joins once"):
        async with agent.join():
            pytest.fail("it joined again")
    with pytest.raises(SessionClosedError):
        await agent.finish()
    await agent.close()
    assert len(of(agent, RealtimeDisconnectedEvent)) == 1


@virtual_time
async def test_what_the_program_raises_comes_out():
    with pytest.raises(KeyError):
        async with talking(ScriptedRealtime()):
            raise KeyError("mine")
    assert not settled_tasks()


@virtual_time
async def test_cancelling_the_program_ends_it():
    agents = []

    async def program():
        async with talking(ScriptedRealtime(["x" * 100])) as agent:
            agents.append(agent)
            await agent.simple_response("go")

    task = asyncio.create_task(program())
    await asyncio.sleep(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(of(agents[0], RealtimeDisconnectedEvent)) == 1
    assert not settled_tasks()


@virtual_time
async def test_a_handler_may_end_the_conversation():
    async with talking(ScriptedRealtime(["bye"])) as agent:

        @agent.events.subscribe
        async def on_end(event: AgentTurnEndedEvent):
            await agent.close()

        agent.simple_response("go")
        await agent.finish()
    assert len(of(agent, RealtimeDisconnectedEvent)) == 1


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
async def test_it_ends_within_a_second_at_any_moment(script, plan, after, end, own_tts):
    loop = asyncio.get_running_loop()
    model = ScriptedRealtime(
        script,
        transcripts=["hello", "", "stop now"],
        at=[At(after, SessionError("lost"))] if end == "fail" else [],
    )
    phone = Phone(hangs_up_in=0.4)
    agent = Agent(edge=phone, llm=model, tts=FakeTTS() if own_tts else None)
    told, speeches = [], []
    agent.events.tap(told.append)
    ended = None
    try:
        async with agent.join():
            if end == "close":
                loop.call_later(after, lambda: asyncio.ensure_future(agent.close()))
            if end == "hang up":
                loop.call_later(after, phone.hung_up.set)
            for step, value in plan:
                match step:
                    case "ask":
                        speeches.append(agent.simple_response("go", interrupt=value))
                    case "say":
                        speeches.append(agent.say("some words", interruptible=value))
                    case "interrupt":
                        agent.interrupt()
                    case "speak":
                        await phone.speak(value)
                    case "silence":
                        await phone.be_silent(value)
                    case "write":
                        phone.person.text("hi")
            ended = loop.time()
    except (SessionClosedError, SessionError):
        ended = ended or loop.time()
    assert loop.time() - ended <= 1.0
    assert len([e for e in told if isinstance(e, RealtimeDisconnectedEvent)]) == 1
    assert all(speech.done for speech in speeches)
    await asyncio.sleep(0)
    assert not settled_tasks()
    assert not own_timers()
    assert sum(isinstance(e, InterruptionEvent) for e in told) == model.epoch
    by_id = {s.id: s for s in speeches}
    for item in agent.conversation:
        if isinstance(item, AgentItem):
            assert item.state != "speaking"
            if item.speech_id in by_id:
                assert item.text == by_id[item.speech_id].heard_text


# The rest


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
    with pytest.raises(ConfigError, match="needs stt"):
        Agent(edge=Phone(), llm=object())


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
