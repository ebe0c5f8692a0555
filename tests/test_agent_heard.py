"""What was received, sounded, told and heard, and how they differ when a connection changes."""

import asyncio

import numpy as np
import pytest

from duologue import AudioFrame
from duologue.events import (
    AgentTranscriptEvent,
    AgentTurnEndedEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    InterruptionEvent,
)
from duologue.items import AgentItem
from duologue.realtime.commands import AddItem, DeleteItem, RequestReply, Say, Truncate
from duologue.realtime.errors import ErrorKind, SessionError
from duologue.realtime.outputs import (
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    SessionStarted,
    ToolCall,
)
from duologue.realtime.profile import Profile
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.realtime.session import Realtime
from duologue.testing import Reply, ScriptedRealtime, ToolUse, run_virtual, virtual_time
from pipeline.parts import LLM
from talk import FakeTTS, Phone, agent_items, of, talking


class Line:
    """A connection in the test's hands."""

    def __init__(self, model, setup):
        self.model, self.setup, self.sent = model, setup, []
        self.ended = asyncio.Event()

    async def run(self, receive):
        self.tell = receive
        receive(SessionStarted())
        await self.ended.wait()
        raise SessionError("the line broke", kind=self.model.ends_with)

    def transmit(self, command):
        self.sent.append(command)

    def of(self, kind):
        return [command for command in self.sent if isinstance(command, kind)]

    @property
    def asked(self):
        return self.of((RequestReply, Say))[-1]

    @property
    def told(self):
        """What this connection knows of what the agent has said, by item."""
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

    def reply(self, reply_id, text, seconds, *, item="item", request=None, done=True):
        """Tell a reply at once, its words before its sound."""
        self.tell(ReplyStarted(reply_id, request))
        self.more(reply_id, text, seconds, item=item)
        if done:
            self.tell(ReplyDone(reply_id))

    def more(self, reply_id, text, seconds, *, item="item"):
        self.tell(ReplyText(reply_id, item, text))
        sound = np.full(round(seconds * 24000), 900, np.int16)
        self.tell(ReplyAudio(reply_id, item, AudioFrame(sound, 24000)))


class Model(Realtime):
    def __init__(self, **abilities):
        super().__init__(Profile("x", "x", **abilities), reconnect=ReconnectPolicy(base_s=0.05))
        self.lines = []
        self.ends_with = ErrorKind.RECYCLE

    def open(self, setup):
        self.lines.append(Line(self, setup))
        return self.lines[-1]

    @property
    def line(self):
        return self.lines[-1]

    async def lose(self):
        self.line.ended.set()
        await asyncio.sleep(0.5)


NUMBERS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


@virtual_time
@pytest.mark.parametrize("again", [False, True])
async def test_words_without_sound_are_dropped_with_their_connection(again):
    model = Model()
    async with talking(model) as agent:
        speech = agent.simple_response("Count.")
        model.line.reply("r", NUMBERS, 1.0, request=model.line.asked.request_id, done=False)
        await asyncio.sleep(0.5)
        await model.lose()
        assert model.line.told == ["one two three"]
        heard = "one two three"
        if again:  # The same ids, and another loss.
            model.line.reply("r", NUMBERS, 1.0, request=model.line.asked.request_id, done=False)
            await model.lose()
            assert model.line.told == ["one two three one two three"]
            assert model.line.asked.instructions.count("Go on from there") == 1
            heard += " one two three"
        request_id = model.line.asked.request_id
        model.line.reply("r", "and that is all.", 2.0, request=request_id)
        await speech
        assert speech.heard_text == f"{heard} and that is all."
        assert [item.text for item in agent_items(agent)] == [speech.heard_text]


@virtual_time
async def test_scripted_text_is_said_once_however_often_its_connection_breaks():
    model = Model()
    async with talking(model) as agent:
        speech = agent.say(NUMBERS)
        for _ in range(3):
            await asyncio.sleep(0.1)
            asked = model.line.asked
            model.line.reply("r", asked.text, 1.0, request=asked.request_id, done=False)
            await model.lose()
        asked = model.line.asked
        assert NUMBERS.endswith(asked.text)
        model.line.reply("r", asked.text, 5.0, request=asked.request_id)
        await speech
        assert speech.heard_text == NUMBERS


@virtual_time
async def test_a_reply_that_broke_off_before_its_sound_is_asked_for_anew():
    model = Model()
    async with talking(model) as agent:
        speech = agent.simple_response("Count.")
        model.line.tell(ReplyStarted("r", model.line.asked.request_id))
        model.line.tell(ReplyText("r", "item", "words only"))
        await model.lose()
        assert model.line.told == []
        assert model.line.asked.instructions is None
        model.line.reply("r", "Here it is.", 1.0, request=model.line.asked.request_id)
        assert (await speech).heard_text == "Here it is."


@virtual_time
@pytest.mark.parametrize("how", ["lost", "roll_over"])
async def test_the_next_connection_is_told_of_all_that_is_ready_to_be_said(how):
    model = Model()
    async with talking(model) as agent:
        one, two = agent.simple_response("One?"), agent.simple_response("Two?", interrupt=False)
        for words in ("The first of them.", "And the second."):
            request_id = model.line.asked.request_id
            model.line.reply(words, words, 3.0, item=words, request=request_id)
        await asyncio.sleep(1)
        if how == "lost":
            await model.lose()
        else:
            agent.llm.roll_over()
            await asyncio.sleep(0.5)
        assert len(model.lines) == 2
        assert model.line.told == ["The first of them.", "And the second."]
        await one
        await asyncio.sleep(1)
        agent.interrupt()
        assert model.line.told == ["The first of them.", two.heard_text]
        assert [item.text for item in agent_items(agent)] == model.line.told


@virtual_time
async def test_a_speech_of_several_items_is_cut_as_the_one_that_the_next_connection_knows():
    model = Model()
    async with talking(model) as agent:
        speech = agent.simple_response("Tell me.")
        line = model.line
        line.reply("r", "one two three ", 2.0, item="a", request=line.asked.request_id, done=False)
        line.more("r", "four five six seven", 2.0, item="b")
        line.tell(ReplyDone("r"))
        await asyncio.sleep(1)
        await model.lose()
        await asyncio.sleep(1.6)
        agent.interrupt()
        assert speech.heard_text.startswith("one two three four")
        (cut,) = model.line.of((Truncate, DeleteItem))
        assert (cut.item_id, cut.heard_text) == ("a", speech.heard_text)
        assert cut.played_ms == speech.played_ms
        assert model.line.told == [speech.heard_text]


@virtual_time
@pytest.mark.parametrize("end", ["heard", "cut"])
async def test_a_speech_by_the_agents_own_voice_is_known_once_to_the_next_connection(end):
    model = Model()
    async with talking(model, tts=FakeTTS()) as agent:
        speech = agent.say("one two three four five six seven eight")
        await asyncio.sleep(0.2)
        await model.lose()
        assert model.line.told
        await asyncio.sleep(1)
        if end == "cut":
            agent.interrupt()
        else:
            await speech
        await asyncio.sleep(0.1)
        assert not model.line.of(AddItem)
        assert model.line.told == [speech.heard_text] == [i.text for i in agent_items(agent)]


@virtual_time
@pytest.mark.parametrize(
    ("status", "heard"), [("failed", "one two three four"), ("cancelled", "one two three")]
)
async def test_words_ahead_of_the_sound_were_not_heard_where_a_reply_ends_early(status, heard):
    model = Model()
    async with talking(model) as agent:
        speech = agent.simple_response("Count.")
        model.line.reply("r", NUMBERS, 1.0, request=model.line.asked.request_id, done=False)
        model.line.tell(ReplyDone("r", status))
        await asyncio.sleep(2)
        assert speech.done
        assert speech.heard_text == heard


@virtual_time
async def test_the_end_of_a_session_adds_nothing_to_what_was_heard():
    model = Model()
    with pytest.raises(SessionError):  # noqa: PT012
        async with talking(model) as agent:
            speech = agent.simple_response("Count.")
            model.line.reply("r", NUMBERS, 1.0, request=model.line.asked.request_id, done=False)
            model.ends_with = ErrorKind.FATAL
            await model.lose()
            await asyncio.sleep(3)
            assert speech.heard_text == "one two three four"
            await agent.finish()


@virtual_time
async def test_a_model_that_uses_an_id_again_changes_nothing_that_was_said_before():
    model = Model()
    async with talking(model) as agent:
        for words in ("First.", "Second.", "Third of them is cut here."):
            agent.simple_response("?", interrupt=False)
            model.line.reply("r", words, 2.0, request=model.line.asked.request_id)
            await asyncio.sleep(1 if words.startswith("Third") else 3)
        agent.interrupt()
        texts = [item.text for item in agent_items(agent)]
        assert texts[:2] == ["First.", "Second."]
        assert texts[2].startswith("Third")
        # The connection that uses it is told of it by that, and the next by one of its own.
        (cut,) = model.line.of(Truncate)
        assert cut.item_id == "item"
        await model.lose()
        assert model.line.told == texts
        assert len({item.id for item in model.line.setup.history}) == len(model.line.setup.history)


@virtual_time
async def test_an_id_of_an_item_that_was_loaded_is_not_taken_for_it():
    model = Model()

    def before(agent):
        agent.conversation.put(AgentItem("item", "Said last week."))

    async with talking(model, prepare=before) as agent:
        agent.simple_response("?")
        model.line.reply("r", "Said today.", 1.0, request=model.line.asked.request_id)
        await asyncio.sleep(2)
        assert [item.text for item in agent_items(agent)] == ["Said last week.", "Said today."]


@virtual_time
async def test_words_of_a_reply_without_sound_are_not_spread_over_the_next_ones():
    model = Model()

    def add(agent):
        @agent.tool
        async def look() -> str:
            return "ten"

    async with talking(model, prepare=add) as agent:
        speech = agent.simple_response("?")
        model.line.tell(ReplyStarted("r", model.line.asked.request_id))
        model.line.tell(ReplyText("r", "a", "Words that nobody speaks, a good many of them."))
        model.line.tell(ToolCall("r", "c", "look", "{}"))
        model.line.tell(ReplyDone("r"))
        await asyncio.sleep(0.1)
        model.line.reply("s", "It is ten.", 1.0, item="b", request=model.line.asked.request_id)
        assert (await speech).heard_text == "It is ten."


@virtual_time
async def test_of_a_speech_that_is_too_long_only_what_was_played_was_heard():
    model = Model()
    async with talking(model) as agent:
        speech = agent.simple_response("Tell me everything.")
        line = model.line
        line.tell(ReplyStarted("r", line.asked.request_id))
        for _ in range(700):
            line.more("r", "a dozen words", 1.0)
        line.tell(ReplyDone("r"))
        await asyncio.sleep(800)
        assert (speech.state, speech.played_ms) == ("heard", 600_000)
        assert 0 < len(speech.heard_text) <= 600 * 13 < len(speech.text) == 700 * 13
        (error,) = of(agent, ErrorEvent)
        assert "longer than ten minutes" in error.message
        (cut,) = line.of(Truncate)
        assert (cut.item_id, cut.played_ms, cut.heard_text) == ("item", 600_000, speech.heard_text)
        again = agent.simple_response("And?")
        line.reply("s", "No more.", 1.0, item="next", request=line.asked.request_id)
        assert (await again).heard_text == "No more."


@virtual_time
async def test_a_scripted_text_that_is_too_long_for_the_agents_own_voice_is_cut_short():
    model = Model()
    async with talking(model, tts=FakeTTS()) as agent:
        text = "ten chars " * 700
        speech = agent.say(text)
        await asyncio.sleep(1000)
        played = speech.played_ms / 100
        assert 6000 <= played < 7000
        assert played * 0.8 < len(speech.heard_text) <= played
        assert len(of(agent, ErrorEvent)) == 1
        assert model.line.told == [speech.heard_text]


@pytest.mark.parametrize("latency_ms", [0, 150])
@pytest.mark.parametrize("lead_ms", [0, 20])
def test_the_turn_of_one_speech_ends_before_the_next_begins(latency_ms, lead_ms):
    async def main():
        phone = Phone()
        phone.latency_ms, phone.lead_ms = latency_ms, lead_ms
        model = ScriptedRealtime(
            [Reply("One moment.", tools=[ToolUse("look")]), Reply("It is ten.")]
        )

        def add(agent):
            @agent.tool
            async def look() -> str:
                return "ten"

        async with talking(model, phone, prepare=add) as agent:
            agent.simple_response("What time is it?")
            await asyncio.sleep(0.3)
            agent.say("Good morning.")
            await agent.say("Goodbye.")
            told = of(agent, AgentTurnStartedEvent | AgentTurnEndedEvent)
            assert len(told) == 8
            for began, ended in zip(told[::2], told[1::2], strict=True):
                assert isinstance(began, AgentTurnStartedEvent)
                assert isinstance(ended, AgentTurnEndedEvent)
                assert began.speech_id == ended.speech_id
            assert len([e for e in of(agent, AgentTranscriptEvent) if e.final]) == 4

    run_virtual(main())


@virtual_time
async def test_what_waits_behind_a_speech_that_is_cut_has_no_turn():
    async with talking(ScriptedRealtime()) as agent:
        first, second = agent.say("Good morning to you."), agent.say("Never said.")
        await asyncio.sleep(0.5)
        agent.interrupt()
        assert [e.speech_id for e in of(agent, AgentTurnStartedEvent)] == [first.id]
        assert [e.speech_id for e in of(agent, AgentTurnEndedEvent)] == [first.id]
        assert second.interrupted


class English(FakeTTS):
    """A voice that makes no sound of other scripts."""

    async def synthesize(self, text):
        if text.isascii():
            async for frame in super().synthesize(text):
                yield frame


@pytest.mark.parametrize("own", [False, True])
def test_a_voice_that_makes_no_sound_is_told(own):
    async def main():
        model = Model() if own else LLM("您好，请问有什么可以帮您？")
        parts = {"tts": English()} if own else {"stt": NoEar(), "tts": English()}
        async with talking(model, **parts) as agent:
            speech = agent.say("您好。") if own else agent.simple_response("?")
            await speech
            assert (speech.state, speech.heard_text) == ("silent", "")
            (error,) = of(agent, ErrorEvent)
            assert error.source == "tts"
            assert "made no sound" in error.message
            assert not agent_items(agent)
            assert not of(agent, AgentTurnStartedEvent)

    run_virtual(main())


@virtual_time
async def test_a_voice_that_makes_no_sound_of_a_part_is_told_and_the_part_was_not_heard():
    llm = LLM("Hello to you all. 您好请问有什么可以帮您. That is all I know.")
    async with talking(llm, stt=NoEar(), tts=English()) as agent:
        speech = await agent.simple_response("?")
        assert speech.heard_text == "Hello to you all. That is all I know."
        (error,) = of(agent, ErrorEvent)
        assert "您好" in error.message


class NoEar:
    rate = 16000

    def stream(self):
        raise AssertionError("nobody speaks")


@virtual_time
async def test_say_cuts_what_is_said_when_asked_to():
    async with talking(ScriptedRealtime([Reply("A long story.", 10.0)])) as agent:
        story = agent.simple_response("Tell me.")
        await asyncio.sleep(1)
        notice = agent.say("Fire!", interrupt=True)
        assert story.interrupted
        await notice
        assert notice.heard_text == "Fire!"
        await agent.say("All is well.", interrupt=True)
        assert len(of(agent, InterruptionEvent)) == 1
