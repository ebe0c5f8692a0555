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
from duologue.realtime.outputs import (
    ReplyInterrupted,
    SpeechStarted,
    UserTranscript,
)
from duologue.testing import At, Reply, ScriptedRealtime, virtual_time
from talk import FakeTTS, Phone, agent_items, of, own_timers, talking, tone


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


@virtual_time
@pytest.mark.parametrize("own", [False, True])
async def test_a_notice_behind_other_speech_is_protected_and_so_is_that(own):
    phone, model = Phone(), ScriptedRealtime(["Yes?"], transcripts=["hi there"])
    async with talking(model, phone, **({"tts": FakeTTS()} if own else {})) as agent:
        greeting = agent.say("Good morning and welcome to the hotel by the sea.")
        await asyncio.sleep(0.5)
        notice = agent.say("This call is recorded.", interruptible=False)
        await phone.speak(0.6)
        await phone.be_silent(8)
        assert (greeting.state, notice.state) == ("heard", "heard")
        assert notice.heard_text == "This call is recorded."
        assert not of(agent, InterruptionEvent)
