import asyncio

import numpy as np
import pytest

from duologue import BargeInPolicy
from duologue.events import (
    AgentTurnEndedEvent,
    InterruptionEvent,
    SpeechHeldEvent,
    SpeechResumedEvent,
    UserTurnEndedEvent,
)
from duologue.realtime.commands import CancelReply, DeleteItem, Truncate
from duologue.realtime.outputs import ReplyInterrupted, SpeechStarted, UserTranscript
from duologue.testing import At, Reply, ScriptedRealtime, virtual_time
from fake_edge import FakeEdge, FakeTTS, agent_items, events_of, join_agent, pending_timers, tone


async def until_speaking(edge):
    while not len(edge.played_audio):
        await asyncio.sleep(0.02)


@virtual_time
async def test_person_interrupts_once_however_many_signals_arrive():
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
    edge = FakeEdge()
    async with join_agent(model, edge) as agent:
        speech = agent.simple_response("talk")
        await asyncio.sleep(2.1)
        await edge.speak(1.5)
        assert agent.llm.epoch == 1
        (event,) = events_of(agent, InterruptionEvent)
        assert (event.epoch, event.speech_id) == (1, speech.id)
        assert event.played_ms == speech.played_ms
        assert speech.text.startswith(event.heard_text)
        assert len([c for c in model.commands if isinstance(c, CancelReply)]) <= 1
        await edge.be_silent(3.0)
        assert agent_items(agent)[-1].text == "Sorry."
        assert agent.llm.epoch == 1


@virtual_time
async def test_no_stale_audio_is_played_after_an_interruption():
    edge = FakeEdge()
    model = ScriptedRealtime([Reply("x" * 90, pace=1.0, chunk_ms=40)])
    async with join_agent(model, edge) as agent:
        agent.simple_response("talk")
        await asyncio.sleep(1.0)
        agent.interrupt()
        before = len(edge.played_audio)
        assert edge.clears >= 1
        await asyncio.sleep(2.0)
        assert len(edge.played_audio) == before


@virtual_time
async def test_interrupted_reply_that_has_not_started_is_cancelled_when_it_starts():
    edge = FakeEdge()
    model = ScriptedRealtime([Reply("too late", after_s=1.0), Reply("now", tone=300, seconds=0.5)])
    async with join_agent(model, edge) as agent:
        speech = agent.simple_response("one")
        await asyncio.sleep(0.2)
        agent.interrupt()
        assert (await speech).interrupted
        assert (await agent.simple_response("two")).heard_text == "now"
        assert len([c for c in model.commands if isinstance(c, CancelReply)]) == 1
        assert np.array_equal(edge.played_audio, tone(0.5, 300))


@virtual_time
async def test_a_cough_loses_no_sample():
    edge = FakeEdge()
    model = ScriptedRealtime([Reply("x", seconds=3.0)], transcripts=["", ""])
    async with join_agent(model, edge) as agent:
        speech = agent.simple_response("talk")
        await until_speaking(edge)
        await edge.speak(0.3)
        await edge.be_silent(4.0)
        assert (await speech).state == "heard"
        (held,), (resumed,) = (
            events_of(agent, SpeechHeldEvent),
            events_of(agent, SpeechResumedEvent),
        )
        assert held.speech_id == resumed.speech_id == speech.id
        assert 0 < resumed.held_ms <= 900
        assert np.array_equal(edge.played_audio, tone(3.0))
        assert agent.llm.epoch == 0
        assert [e.text for e in events_of(agent, UserTurnEndedEvent)] == [None]


@pytest.mark.parametrize("how", ["flag", "policy"])
def test_uninterruptible_speech_continues(how):
    @virtual_time
    async def run():
        edge = FakeEdge()
        model = ScriptedRealtime([], transcripts=["stop it please"])
        policy = BargeInPolicy(enabled=how == "flag")
        async with join_agent(model, edge, barge_in=policy) as agent:
            speech = agent.say("an important notice", interruptible=how == "policy")
            await edge.speak(0.6)
            await edge.be_silent(2.0)
            assert (await speech).state == "heard"
            assert agent.llm.epoch == 0
            agent.say("another", interruptible=False)
            await asyncio.sleep(0.5)
            assert agent.interrupt() == 1
            assert not agent.llm.pending or not agent.llm.replying

    run()


class Distant(ScriptedRealtime):
    """Confirms the cancellation of its reply three seconds late."""

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
async def test_model_that_is_slow_to_stop_is_interrupted_once():
    edge = FakeEdge()
    replies = [Reply("x" * 90, pace=1.0), Reply("Sorry.", seconds=0.5, tone=300)]
    model = Distant(
        replies,
        transcripts=["stop that please"],
        at=[At(2.5, ReplyInterrupted()), At(2.7, ReplyInterrupted("r"))],
    )
    async with join_agent(model, edge) as agent:
        agent.simple_response("talk")
        await asyncio.sleep(1.5)
        await edge.speak(1.5)
        assert agent.llm.pending
        assert agent.llm.epoch == 1
        heard = len(edge.played_audio)
        await edge.be_silent(5.0)
        assert agent.llm.epoch == 1
        assert len(events_of(agent, InterruptionEvent)) == 1
        assert agent_items(agent)[-1].text == "Sorry."
        assert len(edge.played_audio) == heard + 12000


@virtual_time
async def test_uninterruptible_speech_is_protected_before_it_starts():
    model = ScriptedRealtime(
        at=[
            At(1.02, SpeechStarted("u", at=0.5)),
            At(1.05, UserTranscript("u", "stop it", final=False)),
        ]
    )
    async with join_agent(model) as agent:
        await asyncio.sleep(1.0)
        speech = agent.say("please hold the line", interruptible=False)
        assert (await speech).state == "heard"
        assert agent.llm.epoch == 0


@virtual_time
async def test_interruption_ends_a_hold():
    edge = FakeEdge()
    model = ScriptedRealtime([Reply("x", seconds=9.0)], transcripts=[""])
    async with join_agent(model, edge) as agent:
        agent.simple_response("talk")
        await asyncio.sleep(1.0)
        await edge.speak(0.2)
        assert events_of(agent, SpeechHeldEvent)
        agent.interrupt()
        agent.say("something new and rather long")
        await edge.be_silent(1.2)
        assert not events_of(agent, SpeechResumedEvent)
        await edge.speak(0.1)
        assert len(events_of(agent, SpeechHeldEvent)) == 2
    assert not pending_timers()


@virtual_time
async def test_audio_that_no_client_confirmed_was_not_heard():
    edge = FakeEdge()
    edge.quality = "confirmed"
    replies = [Reply("never arrived", seconds=5.0), Reply("arrived and known", seconds=5.0)]
    model = ScriptedRealtime(replies)
    async with join_agent(model, edge) as agent:
        agent.simple_response("one")
        await asyncio.sleep(1.0)
        agent.interrupt()
        (item,) = agent.conversation
        assert item.text == "one"
        assert isinstance(model.commands[-1], DeleteItem)
        assert events_of(agent, AgentTurnEndedEvent)[0].interrupted
        speech = agent.simple_response("two")
        await asyncio.sleep(1.0)
        edge.person.report_played(len(edge.frames) * 480 - 4800)
        agent.interrupt()
        assert 500 < speech.played_ms < 900
        assert speech.quality == "confirmed"
        (cut,) = [c for c in model.commands if isinstance(c, Truncate)]
        assert cut.played_ms == speech.played_ms


@virtual_time
@pytest.mark.parametrize("own", [False, True])
async def test_uninterruptible_speech_protects_the_speech_before_it(own):
    edge, model = FakeEdge(), ScriptedRealtime(["Yes?"], transcripts=["hi there"])
    async with join_agent(model, edge, **({"tts": FakeTTS()} if own else {})) as agent:
        greeting = agent.say("Good morning and welcome to the hotel by the sea.")
        await asyncio.sleep(0.5)
        notice = agent.say("This call is recorded.", interruptible=False)
        await edge.speak(0.6)
        await edge.be_silent(8)
        assert (greeting.state, notice.state) == ("heard", "heard")
        assert notice.heard_text == "This call is recorded."
        assert not events_of(agent, InterruptionEvent)
