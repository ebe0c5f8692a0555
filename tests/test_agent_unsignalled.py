"""An agent with a model that plans its words, confirms no cancelling, and signals no speech."""

import asyncio

import pytest

from duologue.audio import AudioFrame
from duologue.events import (
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    InterruptionEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)
from duologue.items import UserItem
from duologue.realtime.commands import CancelReply, RequestReply, SendToolResult
from duologue.realtime.going_on import GO_ON_AFTER_SOUND
from duologue.realtime.outputs import (
    ReplyAudio,
    ReplyDone,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SessionStarted,
    ToolCall,
    UserTranscript,
)
from duologue.realtime.profile import Profile
from duologue.realtime.session import Realtime
from duologue.testing import run_virtual, virtual_time
from talk import Phone, agent_items, of, talking, tone

PLAN = "one two three four five six seven eight"


class Line:
    """Its connection: what the model tells is told by the test."""

    def __init__(self, model):
        self.model = model

    async def run(self, receive):
        self.model.tell = receive
        receive(SessionStarted())
        await asyncio.Event().wait()

    def transmit(self, command):
        if type(command).__name__ != "SendAudio":
            self.model.sent.append(command)


class Driven(Realtime):
    def __init__(self, **abilities):
        profile = Profile(
            "driven",
            "driven-1",
            tool_reply="automatic",
            truncates=False,
            cancels=False,
            speech_signals="found",
            **abilities,
        )
        super().__init__(profile)
        self.sent = []
        self.tell = None

    def open(self, setup):
        return Line(self)

    def says(self, reply_id, seconds, *texts, planned=()):
        self.tell(ReplyStarted(reply_id))
        for text in planned:
            self.tell(ReplyText(reply_id, f"item_{reply_id}", text, planned=True))
        self.tell(ReplyAudio(reply_id, f"item_{reply_id}", AudioFrame(tone(seconds), 24000)))
        for text in texts:
            self.tell(ReplyText(reply_id, f"item_{reply_id}", text))

    def interrupted(self, reply_id, words):
        """It stops by itself, and tells what it has heard."""
        self.tell(ReplyInterrupted(reply_id))
        self.tell(UserTranscript("words", words, final=False))

    def last(self, kind):
        return [command for command in self.sent if isinstance(command, kind)][-1]


@virtual_time
async def test_what_is_planned_is_never_the_transcript():
    model = Driven()
    async with talking(model) as agent:
        model.says("r", 1.0, planned=["I plan this. ", "And that."])
        await asyncio.sleep(0.5)
        assert not of(agent, AgentTranscriptEvent)
        model.tell(ReplyText("r", "item_r", "I said this. "))
        model.tell(ReplyText("r", "item_r", "And those."))
        model.tell(ReplyDone("r"))
        await asyncio.sleep(1)
        said = [(e.text, e.final) for e in of(agent, AgentTranscriptEvent)]
        assert said == [
            ("I said this. ", False),
            ("And those.", False),
            ("I said this. And those.", True),
        ]
        (item,) = agent_items(agent)
        assert (item.text, item.state) == ("I said this. And those.", "heard")


@pytest.mark.parametrize("made", [False, True])
def test_of_a_cut_reply_the_less_counts_that_both_sides_know(made):
    async def main():
        model = Driven()
        async with talking(model) as agent:
            model.says("r", 4.0, planned=["one two three ", "four five six seven eight"])
            if made:
                model.tell(ReplyDone("r"))
            await asyncio.sleep(3)
            model.interrupted("r", "wait")
            (event,) = of(agent, InterruptionEvent)
            assert event.heard_text == "one two three four five six"
            for text, known in (
                ("one two three ", "one two three"),
                ("four", "one two three four"),
            ):
                model.tell(ReplyText("r", "item_r", text))
                (item,) = agent_items(agent)
                assert (item.text, item.state) == (known, "cut")
                assert not [e for e in of(agent, AgentTranscriptEvent) if e.final]
            await asyncio.sleep(2)
            finals = [e.text for e in of(agent, AgentTranscriptEvent) if e.final]
            assert finals == ["one two three four"]

    run_virtual(main())


@pytest.mark.parametrize("text", [PLAN, "uno"])
def test_a_model_that_takes_more_to_be_heard_or_something_else_is_not_believed(text):
    async def main():
        model = Driven()
        async with talking(model) as agent:
            model.says("r", 4.0, planned=[PLAN])
            await asyncio.sleep(2)
            model.interrupted("r", "wait")
            (item,) = agent_items(agent)
            assert item.text
            model.tell(ReplyText("r", "item_r", text))
            model.tell(ReplyDone("r", "cancelled"))
            assert agent_items(agent) == [item]

    run_virtual(main())


@virtual_time
async def test_words_that_come_after_the_reply_are_of_it_still():
    model = Driven()
    async with talking(model) as agent:
        model.says("r", 1.0, "While it ")
        model.tell(ReplyDone("r"))
        await asyncio.sleep(0.5)
        model.tell(ReplyText("r", "item_r", "plays "))
        await asyncio.sleep(1)
        assert agent_items(agent)[0].text == "While it plays"
        model.tell(ReplyText("r", "item_r", "and after."))
        (item,) = agent_items(agent)
        assert (item.text, item.state) == ("While it plays and after.", "heard")
        told = [(e.text, e.final) for e in of(agent, AgentTranscriptEvent)]
        assert told == [
            ("While it ", False),
            ("plays ", False),
            ("While it plays", True),
            ("and after.", False),
        ]
        assert len(of(agent, AgentTurnEndedEvent)) == 1
        agent.interrupt()
        model.tell(ReplyText("r", "item_r", " Never."))
        assert agent_items(agent) == [item]


@virtual_time
@pytest.mark.parametrize("said", [True, False])
async def test_a_model_that_tells_after_the_end_what_it_has_said_makes_one_final_event(said):
    model = Driven()
    async with talking(model) as agent:
        model.says("r", 1.0, planned=["I plan this. ", "And that."])
        model.tell(ReplyDone("r"))
        await asyncio.sleep(1.5)
        (ended,) = of(agent, AgentTurnEndedEvent)
        assert not ended.interrupted
        assert not of(agent, AgentTranscriptEvent)
        for text in ("I said this. ", "And those.") if said else ():
            model.tell(ReplyText("r", "item_r", text))
        await asyncio.sleep(2)
        finals = [e.text for e in of(agent, AgentTranscriptEvent) if e.final]
        assert finals == ["I said this. And those." if said else "I plan this. And that."]


@virtual_time
async def test_the_last_final_words_are_told_though_the_conversation_ends():
    model = Driven()
    async with talking(model) as agent:
        model.says("r", 1.0, planned=["I plan this."])
        model.tell(ReplyDone("r"))
        await asyncio.sleep(1.5)
    assert [e.text for e in of(agent, AgentTranscriptEvent)] == ["I plan this."]


@virtual_time
async def test_the_next_request_does_not_wait_for_a_cancelled_reply():
    model = Driven()
    async with talking(model) as agent:
        model.says("r", 5.0, "A long story.")
        await asyncio.sleep(1)
        agent.simple_response("Stop. And now?")
        assert isinstance(model.sent[-1], RequestReply)
        assert model.last(CancelReply).reply_id == "r"
        model.tell(ReplyAudio("r", "item_r", AudioFrame(tone(1.0), 24000)))
        assert agent.llm.stale == 1
        model.tell(ReplyDone("r", "cancelled"))
        model.tell(ReplyStarted("s", model.last(RequestReply).request_id))
        model.tell(ReplyAudio("s", "item_s", AudioFrame(tone(0.5), 24000)))
        model.tell(ReplyDone("s"))
        await asyncio.sleep(1)
        assert [item.id for item in agent_items(agent)] == ["item_r", "item_s"]


@virtual_time
async def test_what_may_not_be_interrupted_is_not_by_the_models_word_either():
    model = Driven(say="instructed")
    async with talking(model) as agent:
        speech = agent.say("The law says so.", interruptible=False)
        request_id = model.sent[-1].request_id
        model.tell(ReplyStarted("r", request_id))
        model.tell(ReplyAudio("r", "item_r", AudioFrame(tone(1.0), 24000)))
        model.tell(ReplyInterrupted("r"))
        model.tell(ReplyDone("r"))
        await speech
        assert speech.state == "heard"
        assert agent.llm.epoch == 0


@virtual_time
async def test_a_model_that_goes_on_after_its_tools_is_awaited_and_unheard_when_stale():
    model = Driven()

    def register(agent):
        @agent.tool
        async def look() -> str:
            """Look."""
            await asyncio.sleep(0.5)
            return "seen"

    async with talking(model, prepare=register) as agent:
        for round_, stale in (("a", False), ("b", True)):
            model.tell(ReplyStarted(round_))
            model.tell(ToolCall(round_, f"call_{round_}", "look", "{}"))
            model.tell(ReplyDone(round_))
            await asyncio.sleep(0.2)
            if stale:
                agent.interrupt()
            await asyncio.sleep(0.5)
            assert model.last(SendToolResult).call_id == f"call_{round_}"
            assert agent.llm.pending
            assert agent.llm.answering is not stale
            model.says(f"{round_}2", 0.5, "Seen.")
            model.tell(ReplyDone(f"{round_}2"))
            await asyncio.sleep(1)
            assert not agent.llm.pending
        assert [item.id for item in agent_items(agent)] == ["item_a2"]


@virtual_time
async def test_turns_are_found_in_the_sound_and_words_come_before_the_answer():
    model, phone = Driven(), Phone()
    async with talking(model, phone) as agent:
        await phone.be_silent(0.3)
        await phone.speak(0.8)
        model.tell(UserTranscript("w1", "how are ", final=False))
        await phone.be_silent(0.4)
        model.tell(UserTranscript("w2", "you", final=False))
        model.says("r", 2.0, "Fine.")
        model.tell(ReplyDone("r"))
        order = [
            type(event)
            for event in agent.told
            if isinstance(event, UserTurnStartedEvent | UserTurnEndedEvent | UserTranscriptEvent)
        ]
        assert order == [
            UserTurnStartedEvent,
            UserTranscriptEvent,
            UserTranscriptEvent,
            UserTranscriptEvent,
            UserTurnEndedEvent,
        ]
        assert of(agent, UserTurnEndedEvent)[0].text == "how are you"
        await phone.be_silent(0.5)
        await phone.speak(0.4)
        (event,) = of(agent, InterruptionEvent)
        model.tell(ReplyInterrupted("r"))
        assert len(of(agent, InterruptionEvent)) == agent.llm.epoch == 1
        assert event.played_ms < 1200
        assert [i.text for i in agent.conversation if isinstance(i, UserItem)] == ["how are you"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_model_that_gave_up_its_reply_for_a_sound_is_asked_to_go_on(whole):
    async def main():
        model, phone = Driven(), Phone()
        async with talking(model, phone) as agent:
            model.says("r", 3.0, "A long answer.")
            if whole:
                model.tell(ReplyDone("r"))
            await asyncio.sleep(1)
            await phone.speak(0.1)
            model.tell(ReplyInterrupted("r"))
            if not whole:
                model.tell(ReplyDone("r", "cancelled"))
            await phone.be_silent(0.7)
            model.says("noise", 1.0, "Sorry?")
            # What it answers to the sound is nobody's business.
            assert model.last(CancelReply).reply_id == "noise"
            model.tell(ReplyDone("noise", "cancelled"))
            await phone.be_silent(5)
            assert not of(agent, InterruptionEvent)
            assert len(phone.sound) == 3 * 24000
            asked = [one for one in model.sent if isinstance(one, RequestReply)]
            assert [one.instructions for one in asked] == ([] if whole else [GO_ON_AFTER_SOUND])
            assert [one.text for one in agent_items(agent)] == ["A long answer."]

    run_virtual(main())


@virtual_time
async def test_a_word_that_comes_after_the_answer_to_it_was_dropped_is_answered():
    model, phone = Driven(), Phone()
    async with talking(model, phone) as agent:
        model.says("r", 5.0, "A long answer.")
        model.tell(ReplyDone("r"))
        await asyncio.sleep(1)
        await phone.speak(0.15)
        await phone.be_silent(1.0)
        model.says("s", 1.0, "I stop.")
        assert model.last(CancelReply).reply_id == "s"
        assert not of(agent, InterruptionEvent)
        model.tell(UserTranscript("w", "stop", final=False))
        assert len(of(agent, InterruptionEvent)) == 1
        assert model.last(RequestReply).instructions is None
        model.tell(ReplyDone("s", "cancelled"))
        said = [one.text for one in agent.conversation if isinstance(one, UserItem)]
        assert said == ["stop"]


@virtual_time
async def test_words_that_were_ahead_of_the_sound_are_not_heard_where_the_model_stopped_by_itself():
    model, phone = Driven(), Phone()
    async with talking(model, phone) as agent:
        model.says("r", 2.0, "one two three four five six seven eight nine ten eleven")
        await asyncio.sleep(1)
        model.tell(ReplyInterrupted("r"))
        model.tell(ReplyDone("r", "cancelled"))
        await phone.be_silent(0.1)
        await phone.speak(0.6)
        (event,) = of(agent, InterruptionEvent)
        assert event.heard_text
        assert len(event.heard_text) <= 14 * event.played_ms / 1000
