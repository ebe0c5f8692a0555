"""What was received, spoken and heard, and how they differ when a connection changes."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from fake_components import LLM

from duologue import AudioFrame
from duologue.errors import ErrorKind, SessionError
from duologue.events import (
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    InterruptionEvent,
)
from duologue.items import AgentItem
from duologue.realtime.commands import AddItem, DeleteItem, RequestReply, Say, Truncate
from duologue.realtime.outputs import (
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    SessionStarted,
    ToolCall,
)
from duologue.realtime.realtime import Realtime
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import (
    SCRIPTED_CAPABILITIES,
    Reply,
    ScriptedRealtime,
    ToolUse,
    run_virtual,
    virtual_time,
)
from fake_edge import FakeEdge, FakeTTS, agent_items, events_of, join_agent


class FakeConnection:
    """A connection that the test controls."""

    def __init__(self, model, setup):
        self.model, self.setup, self.sent = model, setup, []
        self.ended = asyncio.Event()

    async def run(self, receive):
        self.emit = receive
        receive(SessionStarted())
        await self.ended.wait()
        raise SessionError("the connection broke", kind=self.model.ends_with)

    def transmit(self, command):
        self.sent.append(command)

    def commands_of(self, kind):
        return [command for command in self.sent if isinstance(command, kind)]

    @property
    def last_request(self):
        return self.commands_of((RequestReply, Say))[-1]

    @property
    def known_texts(self):
        """Return the agent's text that this connection knows, by item."""
        known = {i.id: i.text for i in self.setup.history if isinstance(i, AgentItem)}
        for command in self.sent:
            match command:
                case AddItem(item=AgentItem(id=item_id, text=text)):
                    known[item_id] = text
                case Truncate(item_id=item_id, heard_text=text):
                    known[item_id] = text
                case DeleteItem(item_id=item_id):
                    known.pop(item_id, None)
        return list(known.values())

    def send_reply(self, reply_id, text, seconds, *, item="item", request=None, done=True):
        """Send a whole reply at once, its text before its audio."""
        self.emit(ReplyStarted(reply_id, request))
        self.send_part(reply_id, text, seconds, item=item)
        if done:
            self.emit(ReplyDone(reply_id))

    def send_part(self, reply_id, text, seconds, *, item="item"):
        self.emit(ReplyText(reply_id, item, text))
        audio = np.full(round(seconds * 24000), 900, np.int16)
        self.emit(ReplyAudio(reply_id, item, AudioFrame(audio, 24000)))


class Model(Realtime):
    def __init__(self, **abilities):
        super().__init__(
            replace(
                SCRIPTED_CAPABILITIES,
                provider="x",
                model="x",
                **{"user_transcripts": "final", **abilities},
            ),
            reconnect=ReconnectPolicy(base_s=0.05),
        )
        self.connections = []
        self.ends_with = ErrorKind.RECYCLE

    def open(self, setup):
        self.connections.append(FakeConnection(self, setup))
        return self.connections[-1]

    @property
    def fake(self):
        return self.connections[-1]

    async def lose_connection(self):
        self.fake.ended.set()
        await asyncio.sleep(0.5)


NUMBERS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


@virtual_time
@pytest.mark.parametrize("again", [False, True])
async def test_text_without_audio_is_dropped_with_its_connection(again):
    model = Model()
    async with join_agent(model) as agent:
        speech = agent.simple_response("Count.")
        model.fake.send_reply(
            "r", NUMBERS, 1.0, request=model.fake.last_request.request_id, done=False
        )
        await asyncio.sleep(0.5)
        await model.lose_connection()
        assert model.fake.known_texts == ["one two three"]
        heard = "one two three"
        if again:  # The same ids, and another lost connection.
            model.fake.send_reply(
                "r", NUMBERS, 1.0, request=model.fake.last_request.request_id, done=False
            )
            await model.lose_connection()
            assert model.fake.known_texts == ["one two three one two three"]
            assert model.fake.last_request.instructions.count("Go on from there") == 1
            heard += " one two three"
        request_id = model.fake.last_request.request_id
        model.fake.send_reply("r", "and that is all.", 2.0, request=request_id)
        await speech
        assert speech.heard_text == f"{heard} and that is all."
        assert [item.text for item in agent_items(agent)] == [speech.heard_text]


@virtual_time
async def test_say_is_spoken_once_however_often_the_connection_is_lost():
    model = Model()
    async with join_agent(model) as agent:
        speech = agent.say(NUMBERS)
        for _ in range(3):
            await asyncio.sleep(0.1)
            request = model.fake.last_request
            model.fake.send_reply("r", request.text, 1.0, request=request.request_id, done=False)
            await model.lose_connection()
        request = model.fake.last_request
        assert NUMBERS.endswith(request.text)
        model.fake.send_reply("r", request.text, 5.0, request=request.request_id)
        await speech
        assert speech.heard_text == NUMBERS


@virtual_time
async def test_reply_lost_before_its_audio_is_requested_again():
    model = Model()
    async with join_agent(model) as agent:
        speech = agent.simple_response("Count.")
        model.fake.emit(ReplyStarted("r", model.fake.last_request.request_id))
        model.fake.emit(ReplyText("r", "item", "words only"))
        await model.lose_connection()
        assert model.fake.known_texts == []
        assert model.fake.last_request.instructions is None
        model.fake.send_reply("r", "Here it is.", 1.0, request=model.fake.last_request.request_id)
        assert (await speech).heard_text == "Here it is."


@virtual_time
@pytest.mark.parametrize("how", ["lost", "roll_over"])
async def test_next_connection_gets_all_text_that_has_audio(how):
    model = Model()
    async with join_agent(model) as agent:
        one, two = agent.simple_response("One?"), agent.simple_response("Two?", interrupt=False)
        for text in ("The first of them.", "And the second."):
            request_id = model.fake.last_request.request_id
            model.fake.send_reply(text, text, 3.0, item=text, request=request_id)
        await asyncio.sleep(1)
        if how == "lost":
            await model.lose_connection()
        else:
            agent.llm.roll_over()
            await asyncio.sleep(0.5)
        assert len(model.connections) == 2
        assert model.fake.known_texts == ["The first of them.", "And the second."]
        await one
        await asyncio.sleep(1)
        agent.interrupt()
        assert model.fake.known_texts == ["The first of them.", two.heard_text]
        assert [item.text for item in agent_items(agent)] == model.fake.known_texts


@virtual_time
async def test_speech_of_several_items_is_truncated_as_the_next_connections_one_item():
    model = Model()
    async with join_agent(model) as agent:
        speech = agent.simple_response("Tell me.")
        fake = model.fake
        fake.send_reply(
            "r", "one two three ", 2.0, item="a", request=fake.last_request.request_id, done=False
        )
        fake.send_part("r", "four five six seven", 2.0, item="b")
        fake.emit(ReplyDone("r"))
        await asyncio.sleep(1)
        await model.lose_connection()
        await asyncio.sleep(1.6)
        agent.interrupt()
        assert speech.heard_text.startswith("one two three four")
        (cut,) = model.fake.commands_of((Truncate, DeleteItem))
        assert (cut.item_id, cut.heard_text) == ("a", speech.heard_text)
        assert cut.played_ms == speech.played_ms
        assert model.fake.known_texts == [speech.heard_text]


@virtual_time
@pytest.mark.parametrize("end", ["heard", "cut"])
async def test_next_connection_knows_a_speech_by_the_agents_own_tts_once(end):
    model = Model()
    async with join_agent(model, tts=FakeTTS()) as agent:
        speech = agent.say("one two three four five six seven eight")
        await asyncio.sleep(0.2)
        await model.lose_connection()
        assert model.fake.known_texts
        await asyncio.sleep(1)
        if end == "cut":
            agent.interrupt()
        else:
            await speech
        await asyncio.sleep(0.1)
        assert not model.fake.commands_of(AddItem)
        assert model.fake.known_texts == [speech.heard_text] == [i.text for i in agent_items(agent)]


@virtual_time
@pytest.mark.parametrize(
    ("status", "heard"), [("failed", "one two three four"), ("cancelled", "one two three")]
)
async def test_text_ahead_of_the_audio_was_not_heard_when_a_reply_ends_early(status, heard):
    model = Model()
    async with join_agent(model) as agent:
        speech = agent.simple_response("Count.")
        model.fake.send_reply(
            "r", NUMBERS, 1.0, request=model.fake.last_request.request_id, done=False
        )
        model.fake.emit(ReplyDone("r", status))
        await asyncio.sleep(2)
        assert speech.done
        assert speech.heard_text == heard


@virtual_time
async def test_end_of_a_session_adds_nothing_to_what_was_heard():
    model = Model()
    with pytest.raises(SessionError):  # noqa: PT012
        async with join_agent(model) as agent:
            speech = agent.simple_response("Count.")
            model.fake.send_reply(
                "r", NUMBERS, 1.0, request=model.fake.last_request.request_id, done=False
            )
            model.ends_with = ErrorKind.FATAL
            await model.lose_connection()
            await asyncio.sleep(3)
            assert speech.heard_text == "one two three four"
            await agent.finish()


@virtual_time
async def test_reused_item_id_changes_nothing_in_earlier_items():
    model = Model()
    async with join_agent(model) as agent:
        for text in ("First.", "Second.", "Third of them is cut here."):
            agent.simple_response("?", interrupt=False)
            model.fake.send_reply("r", text, 2.0, request=model.fake.last_request.request_id)
            await asyncio.sleep(1 if text.startswith("Third") else 3)
        agent.interrupt()
        texts = [item.text for item in agent_items(agent)]
        assert texts[:2] == ["First.", "Second."]
        assert texts[2].startswith("Third")
        # The connection that uses the id twice is told its own id; the next one gets a new id.
        (cut,) = model.fake.commands_of(Truncate)
        assert cut.item_id == "item"
        await model.lose_connection()
        assert model.fake.known_texts == texts
        assert len({item.id for item in model.fake.setup.history}) == len(model.fake.setup.history)


@virtual_time
async def test_id_of_a_loaded_item_is_not_taken_for_a_new_one():
    model = Model()

    def before(agent):
        agent.conversation.put(AgentItem("item", "Said last week."))

    async with join_agent(model, prepare=before) as agent:
        agent.simple_response("?")
        model.fake.send_reply("r", "Said today.", 1.0, request=model.fake.last_request.request_id)
        await asyncio.sleep(2)
        assert [item.text for item in agent_items(agent)] == ["Said last week.", "Said today."]


@virtual_time
async def test_text_of_a_reply_without_audio_is_not_spread_over_the_next_replies():
    model = Model()

    def add(agent):
        @agent.tool
        async def look() -> str:
            return "ten"

    async with join_agent(model, prepare=add) as agent:
        speech = agent.simple_response("?")
        model.fake.emit(ReplyStarted("r", model.fake.last_request.request_id))
        model.fake.emit(ReplyText("r", "a", "Words that nobody speaks, a good many of them."))
        model.fake.emit(ToolCall("r", "c", "look", "{}"))
        model.fake.emit(ReplyDone("r"))
        await asyncio.sleep(0.1)
        model.fake.send_reply(
            "s", "It is ten.", 1.0, item="b", request=model.fake.last_request.request_id
        )
        assert (await speech).heard_text == "It is ten."


@virtual_time
async def test_overlong_speech_was_heard_only_as_far_as_played():
    model = Model()
    async with join_agent(model) as agent:
        speech = agent.simple_response("Tell me everything.")
        fake = model.fake
        fake.emit(ReplyStarted("r", fake.last_request.request_id))
        for _ in range(700):
            fake.send_part("r", "a dozen words", 1.0)
        fake.emit(ReplyDone("r"))
        await asyncio.sleep(800)
        assert (speech.state, speech.played_ms) == ("heard", 600_000)
        assert 0 < len(speech.heard_text) <= 600 * 13 < len(speech.text) == 700 * 13
        (error,) = events_of(agent, ErrorEvent)
        assert "longer than ten minutes" in error.message
        (cut,) = fake.commands_of(Truncate)
        assert (cut.item_id, cut.played_ms, cut.heard_text) == ("item", 600_000, speech.heard_text)
        again = agent.simple_response("And?")
        fake.send_reply("s", "No more.", 1.0, item="next", request=fake.last_request.request_id)
        assert (await again).heard_text == "No more."


@virtual_time
async def test_overlong_say_by_the_agents_own_tts_is_cut_short():
    model = Model()
    async with join_agent(model, tts=FakeTTS()) as agent:
        text = "ten chars " * 700
        speech = agent.say(text)
        await asyncio.sleep(1000)
        played = speech.played_ms / 100
        assert 6000 <= played < 7000
        assert played * 0.8 < len(speech.heard_text) <= played
        assert len(events_of(agent, ErrorEvent)) == 1
        assert model.fake.known_texts == [speech.heard_text]


@pytest.mark.parametrize("latency_ms", [0, 150])
@pytest.mark.parametrize("lead_ms", [0, 20])
def test_turn_of_one_speech_ends_before_the_next_starts(latency_ms, lead_ms):
    async def main():
        edge = FakeEdge()
        edge.latency_ms, edge.lead_ms = latency_ms, lead_ms
        model = ScriptedRealtime(
            [Reply("One moment.", tools=[ToolUse("look")]), Reply("It is ten.")]
        )

        def add(agent):
            @agent.tool
            async def look() -> str:
                return "ten"

        async with join_agent(model, edge, prepare=add) as agent:
            agent.simple_response("What time is it?")
            await asyncio.sleep(0.3)
            agent.say("Good morning.")
            await agent.say("Goodbye.")
            turns = events_of(agent, AgentTurnStartedEvent | AgentTurnEndedEvent)
            assert len(turns) == 8
            for start, end in zip(turns[::2], turns[1::2], strict=True):
                assert isinstance(start, AgentTurnStartedEvent)
                assert isinstance(end, AgentTurnEndedEvent)
                assert start.speech_id == end.speech_id
            assert len([e for e in events_of(agent, AgentTranscriptEvent) if e.final]) == 4

    run_virtual(main())


@virtual_time
async def test_speech_behind_a_cut_speech_has_no_turn():
    async with join_agent(ScriptedRealtime()) as agent:
        first, second = agent.say("Good morning to you."), agent.say("Never said.")
        await asyncio.sleep(0.5)
        agent.interrupt()
        assert [e.speech_id for e in events_of(agent, AgentTurnStartedEvent)] == [first.id]
        assert [e.speech_id for e in events_of(agent, AgentTurnEndedEvent)] == [first.id]
        assert second.interrupted


class English(FakeTTS):
    """A voice that makes no audio of other scripts."""

    async def synthesize(self, text):
        if text.isascii():
            async for frame in super().synthesize(text):
                yield frame


@pytest.mark.parametrize("own", [False, True])
def test_voice_that_makes_no_audio_is_reported(own):
    async def main():
        model = Model() if own else LLM("您好，请问有什么可以帮您？")
        parts = {"tts": English()} if own else {"stt": NoEar(), "tts": English()}
        async with join_agent(model, **parts) as agent:
            speech = agent.say("您好。") if own else agent.simple_response("?")
            await speech
            assert (speech.state, speech.heard_text) == ("silent", "")
            (error,) = events_of(agent, ErrorEvent)
            assert error.source == "tts"
            assert "made no audio" in error.message
            assert not agent_items(agent)
            assert not events_of(agent, AgentTurnStartedEvent)

    run_virtual(main())


@virtual_time
async def test_text_that_a_voice_leaves_out_is_reported_and_was_not_heard():
    llm = LLM("Hello to you all. 您好请问有什么可以帮您. That is all I know.")
    async with join_agent(llm, stt=NoEar(), tts=English()) as agent:
        speech = await agent.simple_response("?")
        assert speech.heard_text == "Hello to you all. That is all I know."
        (error,) = events_of(agent, ErrorEvent)
        assert "您好" in error.message


class NoEar:
    rate = 16000

    def stream(self):
        raise AssertionError("no one speaks")


@virtual_time
async def test_say_interrupts_the_current_speech_if_requested():
    async with join_agent(ScriptedRealtime([Reply("A long story.", 10.0)])) as agent:
        story = agent.simple_response("Tell me.")
        await asyncio.sleep(1)
        notice = agent.say("Fire!", interrupt=True)
        assert story.interrupted
        await notice
        assert notice.heard_text == "Fire!"
        await agent.say("All is well.", interrupt=True)
        assert len(events_of(agent, InterruptionEvent)) == 1
