"""An agent with a model that plans its text, confirms no cancellation, and signals no speech."""

import asyncio
from dataclasses import replace

import pytest

from duologue.agent.session import CONTINUE_AFTER_NOISE_PROMPT
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
from duologue.realtime.realtime import Realtime
from duologue.testing import SCRIPTED_CAPABILITIES, run_virtual, virtual_time
from fake_edge import FakeEdge, agent_items, events_of, join_agent, tone

PLAN = "one two three four five six seven eight"


class FakeConnection:
    """Its connection; the test sends the model's outputs."""

    def __init__(self, model):
        self.model = model

    async def run(self, receive):
        self.model.emit = receive
        receive(SessionStarted())
        await asyncio.Event().wait()

    def transmit(self, command):
        if type(command).__name__ != "SendAudio":
            self.model.sent.append(command)


class Driven(Realtime):
    def __init__(self, **abilities):
        profile = replace(
            SCRIPTED_CAPABILITIES,
            provider="driven",
            model="driven-1",
            tool_reply="automatic",
            truncation="none",
            confirms_cancel=False,
            speech_detection="local",
            **{"user_transcripts": "final", **abilities},
        )
        super().__init__(profile, in_process=True)
        self.sent = []
        self.emit = None

    def open(self, setup):
        return FakeConnection(self)

    def reply(self, reply_id, seconds, *texts, planned=()):
        self.emit(ReplyStarted(reply_id))
        for text in planned:
            self.emit(ReplyText(reply_id, f"item_{reply_id}", text, planned=True))
        self.emit(ReplyAudio(reply_id, f"item_{reply_id}", AudioFrame(tone(seconds), 24000)))
        for text in texts:
            self.emit(ReplyText(reply_id, f"item_{reply_id}", text))

    def stop_by_itself(self, reply_id, transcript):
        """Stop by itself, and send the transcript of what the model heard."""
        self.emit(ReplyInterrupted(reply_id))
        self.emit(UserTranscript("words", transcript, final=False))

    def last(self, kind):
        return [command for command in self.sent if isinstance(command, kind)][-1]


@virtual_time
async def test_planned_text_is_never_the_transcript():
    model = Driven()
    async with join_agent(model) as agent:
        model.reply("r", 1.0, planned=["I plan this. ", "And that."])
        await asyncio.sleep(0.5)
        assert not events_of(agent, AgentTranscriptEvent)
        model.emit(ReplyText("r", "item_r", "I said this. "))
        model.emit(ReplyText("r", "item_r", "And those."))
        model.emit(ReplyDone("r"))
        await asyncio.sleep(1)
        finals = [(e.text, e.final) for e in events_of(agent, AgentTranscriptEvent)]
        assert finals == [
            ("I said this. ", False),
            ("And those.", False),
            ("I said this. And those.", True),
        ]
        (item,) = agent_items(agent)
        assert (item.text, item.state) == ("I said this. And those.", "heard")


@pytest.mark.parametrize("made", [False, True])
def test_of_a_truncated_reply_the_shorter_text_counts(made):
    async def main():
        model = Driven()
        async with join_agent(model) as agent:
            model.reply("r", 4.0, planned=["one two three ", "four five six seven eight"])
            if made:
                model.emit(ReplyDone("r"))
            await asyncio.sleep(3)
            model.stop_by_itself("r", "wait")
            (event,) = events_of(agent, InterruptionEvent)
            assert event.heard_text == "one two three four five six"
            for text, known in (
                ("one two three ", "one two three"),
                ("four", "one two three four"),
            ):
                model.emit(ReplyText("r", "item_r", text))
                (item,) = agent_items(agent)
                assert (item.text, item.state) == (known, "cut")
                assert not [e for e in events_of(agent, AgentTranscriptEvent) if e.final]
            await asyncio.sleep(2)
            finals = [e.text for e in events_of(agent, AgentTranscriptEvent) if e.final]
            assert finals == ["one two three four"]

    run_virtual(main())


@pytest.mark.parametrize("text", [PLAN, "uno"])
def test_late_transcript_never_adds_to_what_was_heard(text):
    async def main():
        model = Driven()
        async with join_agent(model) as agent:
            model.reply("r", 4.0, planned=[PLAN])
            await asyncio.sleep(2)
            model.stop_by_itself("r", "wait")
            (item,) = agent_items(agent)
            assert item.text
            model.emit(ReplyText("r", "item_r", text))
            model.emit(ReplyDone("r", "cancelled"))
            assert agent_items(agent) == [item]

    run_virtual(main())


@virtual_time
async def test_text_after_a_reply_still_belongs_to_it():
    model = Driven()
    async with join_agent(model) as agent:
        model.reply("r", 1.0, "While it ")
        model.emit(ReplyDone("r"))
        await asyncio.sleep(0.5)
        model.emit(ReplyText("r", "item_r", "plays "))
        await asyncio.sleep(1)
        assert agent_items(agent)[0].text == "While it plays"
        model.emit(ReplyText("r", "item_r", "and after."))
        (item,) = agent_items(agent)
        assert (item.text, item.state) == ("While it plays and after.", "heard")
        finals = [(e.text, e.final) for e in events_of(agent, AgentTranscriptEvent)]
        assert finals == [
            ("While it ", False),
            ("plays ", False),
            ("While it plays", True),
            ("and after.", False),
        ]
        assert len(events_of(agent, AgentTurnEndedEvent)) == 1
        agent.interrupt()
        model.emit(ReplyText("r", "item_r", " Never."))
        assert agent_items(agent) == [item]


@virtual_time
@pytest.mark.parametrize("said", [True, False])
async def test_late_spoken_text_makes_one_final_transcript(said):
    model = Driven()
    async with join_agent(model) as agent:
        model.reply("r", 1.0, planned=["I plan this. ", "And that."])
        model.emit(ReplyDone("r"))
        await asyncio.sleep(1.5)
        (ended,) = events_of(agent, AgentTurnEndedEvent)
        assert not ended.interrupted
        assert not events_of(agent, AgentTranscriptEvent)
        for text in ("I said this. ", "And those.") if said else ():
            model.emit(ReplyText("r", "item_r", text))
        await asyncio.sleep(2)
        finals = [e.text for e in events_of(agent, AgentTranscriptEvent) if e.final]
        assert finals == ["I said this. And those." if said else "I plan this. And that."]


@virtual_time
async def test_pending_final_transcript_is_reported_when_the_conversation_ends():
    model = Driven()
    async with join_agent(model) as agent:
        model.reply("r", 1.0, planned=["I plan this."])
        model.emit(ReplyDone("r"))
        await asyncio.sleep(1.5)
    assert [e.text for e in events_of(agent, AgentTranscriptEvent)] == ["I plan this."]


@virtual_time
async def test_next_request_does_not_wait_for_a_cancelled_reply():
    model = Driven()
    async with join_agent(model) as agent:
        model.reply("r", 5.0, "A long story.")
        await asyncio.sleep(1)
        agent.simple_response("Stop. And now?")
        assert isinstance(model.sent[-1], RequestReply)
        assert model.last(CancelReply).reply_id == "r"
        model.emit(ReplyAudio("r", "item_r", AudioFrame(tone(1.0), 24000)))
        assert agent.llm.stale_outputs == 1
        model.emit(ReplyDone("r", "cancelled"))
        model.emit(ReplyStarted("s", model.last(RequestReply).request_id))
        model.emit(ReplyAudio("s", "item_s", AudioFrame(tone(0.5), 24000)))
        model.emit(ReplyDone("s"))
        await asyncio.sleep(1)
        assert [item.id for item in agent_items(agent)] == ["item_r", "item_s"]


@virtual_time
async def test_model_does_not_interrupt_an_uninterruptible_speech():
    model = Driven(say="instructed")
    async with join_agent(model) as agent:
        speech = agent.say("The law says so.", interruptible=False)
        request_id = model.sent[-1].request_id
        model.emit(ReplyStarted("r", request_id))
        model.emit(ReplyAudio("r", "item_r", AudioFrame(tone(1.0), 24000)))
        model.emit(ReplyInterrupted("r"))
        model.emit(ReplyDone("r"))
        await speech
        assert speech.state == "heard"
        assert agent.llm.epoch == 0


@virtual_time
async def test_model_that_continues_after_its_tools_is_awaited_and_dropped_when_stale():
    model = Driven()

    def register(agent):
        @agent.tool
        async def look() -> str:
            """Look."""
            await asyncio.sleep(0.5)
            return "seen"

    async with join_agent(model, prepare=register) as agent:
        for round_, stale in (("a", False), ("b", True)):
            model.emit(ReplyStarted(round_))
            model.emit(ToolCall(round_, f"call_{round_}", "look", "{}"))
            model.emit(ReplyDone(round_))
            await asyncio.sleep(0.2)
            if stale:
                agent.interrupt()
            await asyncio.sleep(0.5)
            assert model.last(SendToolResult).call_id == f"call_{round_}"
            assert agent.llm.pending
            assert agent.llm.replying is not stale
            model.reply(f"{round_}2", 0.5, "Seen.")
            model.emit(ReplyDone(f"{round_}2"))
            await asyncio.sleep(1)
            assert not agent.llm.pending
        assert [item.id for item in agent_items(agent)] == ["item_a2"]


@virtual_time
async def test_turns_are_detected_locally_and_the_transcript_comes_before_the_reply():
    model, edge = Driven(), FakeEdge()
    async with join_agent(model, edge) as agent:
        await edge.be_silent(0.3)
        await edge.speak(0.8)
        model.emit(UserTranscript("w1", "how are ", final=False))
        await edge.be_silent(0.4)
        model.emit(UserTranscript("w2", "you", final=False))
        model.reply("r", 2.0, "Fine.")
        model.emit(ReplyDone("r"))
        order = [
            type(event)
            for event in agent.recorded
            if isinstance(event, UserTurnStartedEvent | UserTurnEndedEvent | UserTranscriptEvent)
        ]
        assert order == [
            UserTurnStartedEvent,
            UserTranscriptEvent,
            UserTranscriptEvent,
            UserTranscriptEvent,
            UserTurnEndedEvent,
        ]
        assert events_of(agent, UserTurnEndedEvent)[0].text == "how are you"
        await edge.be_silent(0.5)
        await edge.speak(0.4)
        (event,) = events_of(agent, InterruptionEvent)
        model.emit(ReplyInterrupted("r"))
        assert len(events_of(agent, InterruptionEvent)) == agent.llm.epoch == 1
        assert event.played_ms < 1200
        assert [i.text for i in agent.conversation if isinstance(i, UserItem)] == ["how are you"]


@pytest.mark.parametrize("whole", [True, False])
def test_model_that_stopped_its_reply_for_a_noise_is_asked_to_continue(whole):
    async def main():
        model, edge = Driven(), FakeEdge()
        async with join_agent(model, edge) as agent:
            model.reply("r", 3.0, "A long answer.")
            if whole:
                model.emit(ReplyDone("r"))
            await asyncio.sleep(1)
            await edge.speak(0.1)
            model.emit(ReplyInterrupted("r"))
            if not whole:
                model.emit(ReplyDone("r", "cancelled"))
            await edge.be_silent(0.7)
            model.reply("noise", 1.0, "Sorry?")
            # Its reply to the noise does not matter here.
            assert model.last(CancelReply).reply_id == "noise"
            model.emit(ReplyDone("noise", "cancelled"))
            await edge.be_silent(5)
            assert not events_of(agent, InterruptionEvent)
            assert len(edge.played_audio) == 3 * 24000
            requests = [item for item in model.sent if isinstance(item, RequestReply)]
            assert [item.instructions for item in requests] == (
                [] if whole else [CONTINUE_AFTER_NOISE_PROMPT]
            )
            assert [item.text for item in agent_items(agent)] == ["A long answer."]

    run_virtual(main())


@virtual_time
async def test_late_transcript_of_a_turn_whose_reply_was_dropped_gets_a_reply():
    model, edge = Driven(), FakeEdge()
    async with join_agent(model, edge) as agent:
        model.reply("r", 5.0, "A long answer.")
        model.emit(ReplyDone("r"))
        await asyncio.sleep(1)
        await edge.speak(0.15)
        await edge.be_silent(1.0)
        model.reply("s", 1.0, "I stop.")
        assert model.last(CancelReply).reply_id == "s"
        assert not events_of(agent, InterruptionEvent)
        model.emit(UserTranscript("w", "stop", final=False))
        assert len(events_of(agent, InterruptionEvent)) == 1
        assert model.last(RequestReply).instructions is None
        model.emit(ReplyDone("s", "cancelled"))
        finals = [item.text for item in agent.conversation if isinstance(item, UserItem)]
        assert finals == ["stop"]


@virtual_time
async def test_text_ahead_of_the_audio_is_not_heard_when_the_model_stops_by_itself():
    model, edge = Driven(), FakeEdge()
    async with join_agent(model, edge) as agent:
        model.reply("r", 2.0, "one two three four five six seven eight nine ten eleven")
        await asyncio.sleep(1)
        model.emit(ReplyInterrupted("r"))
        model.emit(ReplyDone("r", "cancelled"))
        await edge.be_silent(0.1)
        await edge.speak(0.6)
        (event,) = events_of(agent, InterruptionEvent)
        assert event.heard_text
        assert len(event.heard_text) <= 14 * event.played_ms / 1000
