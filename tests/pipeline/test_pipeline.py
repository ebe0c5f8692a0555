import asyncio

import numpy as np
import pytest
from fake_components import LLM, STT, TTS, Turn, be_silent, session, speak

from duologue.audio import AudioFrame
from duologue.errors import SessionError
from duologue.items import AgentItem, SystemItem, ToolCallItem, ToolResultItem, UserItem
from duologue.pipeline.interfaces import TextDelta, TokenUsage, ToolRequest
from duologue.realtime.commands import CancelReply, ClearInput, DeleteItem, ToolSpec, Truncate
from duologue.realtime.outputs import (
    ProviderError,
    ReplyAudio,
    ReplyDone,
    ReplyStarted,
    ReplyText,
    ToolCall,
    Usage,
    UserTranscript,
    UserTurnEnded,
)
from duologue.testing import virtual_time
from duologue.vad.endpointing import Endpointing

TOOL = ToolSpec("look", "Looks.", {"type": "object"})


def said(history):
    return [(type(i).__name__, getattr(i, "text", getattr(i, "output", None))) for i in history]


@virtual_time
async def test_a_turn_is_answered():
    llm = LLM("Hello there friend. How are you?")
    async with session(llm=llm, turn=Turn()) as pipeline:
        assert llm.prepared == ("Be kind.", ())
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 3.0)
        ear = pipeline.ear
        assert ear.text.strip() == "Hello there friend. How are you?"
        assert pipeline.tts.said == ["Hello there friend.", "How are you?"]
        (started,) = ear.of(ReplyStarted)
        assert ear.of(ReplyDone) == [ReplyDone(started.reply_id)]
        letters = sum(map(len, pipeline.tts.said))
        assert sum(len(a.frame) for a in ear.of(ReplyAudio)) == letters * 1200
        first, second = ear.of(ReplyText)
        assert (first.start, second.start) == (0, 1200 * len(pipeline.tts.said[0]))
        assert len(llm.asked) == 1
        assert said(llm.asked[0][1]) == [("UserItem", "w1 w2 w3 w4 w5")]
        assert llm.closed == 1


@virtual_time
async def test_an_answer_begins_at_the_first_pause_and_is_not_waited_for_again():
    llm = LLM("Yes.", wait_s=0.05)
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 1.0)
        # 60 ms of pause, 20 ms of recogniser, 50 ms of model: done before the vote at 150 ms.
        assert pipeline.ear.when(ReplyStarted) - end == pytest.approx(0.16, abs=0.03)
        assert pipeline.ear.when(ReplyAudio) - end == pytest.approx(0.16, abs=0.03)
        assert len(llm.asked) == 1


@virtual_time
async def test_what_was_begun_is_thrown_away_if_the_person_goes_on():
    llm = LLM("Wrong answer.", "Right answer.", wait_s=0.4)
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 0.12)
        assert len(llm.asked) == 1
        await speak(pipeline, 0.1)
        assert llm.closed == 1
        await speak(pipeline, 0.4)
        await be_silent(pipeline, 2.0)
        assert len(llm.asked) == 2
        assert llm.closed == 2
        assert "Wrong" not in pipeline.ear.text
        assert len(pipeline.ear.of(ReplyStarted)) == 1
        (turn,) = pipeline.ear.of(UserTurnEnded)
        final = pipeline.ear.of(UserTranscript)[-1]
        assert (final.item_id, final.final) == (turn.item_id, True)
        assert final.text.split()[-1] == "w10"


@virtual_time
@pytest.mark.parametrize(
    ("vote", "pause"), [(0.0, 2.0), (0.1, 1.74), (0.25, 1.35), (0.49, 0.726), (0.5, 0.15)]
)
async def test_the_surer_it_is_that_the_person_goes_on_the_longer_they_are_waited_for(vote, pause):
    async with session(turn=Turn(*[vote] * 20)) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 3.0)
        assert pipeline.ear.when(UserTurnEnded) - end == pytest.approx(pause, abs=0.05)


@virtual_time
async def test_a_pause_within_a_sentence_is_not_answered():
    async with session(turn=Turn(*[0.1] * 7)) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 1.1)
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 3.0)
        (turn,) = pipeline.ear.of(UserTurnEnded)
        assert len(pipeline.ear.of(ReplyStarted)) == 1
        [final] = [o for o in pipeline.ear.of(UserTranscript) if o.final]
        assert (final.item_id, final.text.split()[-1]) == (turn.item_id, "w10")


@virtual_time
@pytest.mark.parametrize(("longest", "pause"), [(0.7, 0.7), (5.0, 5.0)])
async def test_the_longest_pause_is_a_setting(longest, pause):
    options = Endpointing(max_pause_s=longest)
    async with session(turn=Turn(*[0.0] * 99), endpointing=options) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 6.0)
        assert pipeline.ear.when(UserTurnEnded) - end == pytest.approx(pause, abs=0.05)


@virtual_time
async def test_a_detector_that_does_not_answer_leaves_it_to_the_time_out():
    class Hung(Turn):
        async def end_of_turn(self, audio, text):
            await asyncio.Event().wait()

    async with session(turn=Hung()) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 2.0)
        assert pipeline.ear.when(UserTurnEnded) - end == pytest.approx(0.7, abs=0.03)


@virtual_time
async def test_a_draft_from_a_history_that_has_changed_is_made_anew():
    llm = LLM("Long long answer of mine.", "Stale.", "Fresh.")
    async with session(llm=llm, turn=Turn()) as pipeline:
        pipeline.request_reply("q")
        await asyncio.sleep(2.0)
        (text,) = {o.item_id for o in pipeline.ear.of(ReplyText)}
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 0.12)
        assert len(llm.asked) == 2
        pipeline.ear.cuts = [Truncate(text, 500, "Long long")]
        pipeline.interrupt()
        await be_silent(pipeline, 1.0)
        assert "Stale" not in pipeline.ear.text
        assert pipeline.ear.text.endswith("Fresh. ")
        assert said(llm.asked[2][1])[0] == ("AgentItem", "Long long")


@virtual_time
async def test_the_model_only_knows_what_was_heard():
    llm = LLM("One two three four. Five six seven.", "Ok.", "Ok.")
    async with session(llm=llm, turn=Turn()) as pipeline:
        pipeline.request_reply("q")
        await asyncio.sleep(0.4)
        item_id = pipeline.ear.of(ReplyText)[0].item_id
        pipeline.ear.cuts = [Truncate(item_id, 200, "One two")]
        pipeline.interrupt()
        pipeline.request_reply("q2")
        await asyncio.sleep(1.0)
        assert said(llm.asked[1][1]) == [("AgentItem", "One two")]
        item = llm.asked[1][1][0]
        assert (item.state, item.played_ms) == ("cut", 200)
        pipeline.ear.cuts = [DeleteItem(item_id), DeleteItem("unknown"), Truncate("x", 1, "y")]
        pipeline.interrupt()
        pipeline.request_reply("q3")
        await asyncio.sleep(1.0)
        assert "One two" not in str(llm.asked[2][1])


@virtual_time
async def test_a_failing_model_fails_its_reply_and_the_next_turn_works():
    llm = LLM([TextDelta("Well, "), SessionError("overloaded")], "Better now.")
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 1.0)
        (done,) = pipeline.ear.of(ReplyDone)
        assert (done.status, done.message) == ("failed", "overloaded")
        await be_silent(pipeline, 2.0)
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        assert pipeline.ear.text.endswith("Better now. ")
        assert [d.status for d in pipeline.ear.of(ReplyDone)] == ["failed", "completed"]


@virtual_time
async def test_a_failing_voice_fails_its_reply_and_closes_the_model():
    llm, tts = LLM("One. Two. Three. " * 30), TTS()
    tts.fails = SessionError("no voice")
    async with session(llm=llm, tts=tts) as pipeline:
        pipeline.request_reply("q")
        await asyncio.sleep(1.0)
        (done,) = pipeline.ear.of(ReplyDone)
        assert (done.status, done.message) == ("failed", "no voice")
        assert llm.closed == 1
        assert not pipeline.pending


@virtual_time
async def test_a_failing_recogniser_is_told_and_the_turn_ends_empty():
    async with session(turn=Turn()) as pipeline:
        pipeline.stt.fails = SessionError("deaf", code="stt")
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        assert {e.message for e in pipeline.ear.of(ProviderError)} == {"transcription: deaf"}
        (turn,) = pipeline.ear.of(UserTurnEnded)
        assert turn.empty
        pipeline.stt.fails = None
        await be_silent(pipeline, 1.0)
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        assert pipeline.ear.of(ReplyDone)


@virtual_time
async def test_a_cough_is_an_empty_turn():
    async with session(stt=STT(says=lambda loud: "Uh."), turn=Turn()) as pipeline:
        await speak(pipeline, 0.2)
        await be_silent(pipeline, 1.0)
        (turn,) = pipeline.ear.of(UserTurnEnded)
        assert turn.empty
        assert not turn.reply_follows
        assert not pipeline.llm.asked
        assert not pipeline.pending
        pipeline.request_reply("q")
        await asyncio.sleep(0.5)
        assert said(pipeline.llm.asked[0][1]) == []


@virtual_time
async def test_say_is_exact_and_asks_nobody():
    async with session() as pipeline:
        text = "Call 555-0100, please: it's Mr. Smith!"
        pipeline.say("q", text)
        await asyncio.sleep(2)
        assert pipeline.ear.text == text
        assert not pipeline.llm.asked
        (started,) = pipeline.ear.of(ReplyStarted)
        assert started.request_id == "q"
        pipeline.request_reply("q2")
        await asyncio.sleep(1)
        assert said(pipeline.llm.asked[0][1]) == [("AgentItem", text)]


@virtual_time
async def test_tools_through_a_pipeline():
    request = ToolRequest("c1", "look", '{"at": "sky"}')
    llm = LLM(["Let me see.", request, TokenUsage(5, 7)], "It is blue.")
    async with session(llm=llm, tools=[TOOL]) as pipeline:
        pipeline.request_reply("q")
        await asyncio.sleep(1)
        (call,) = pipeline.ear.of(ToolCall)
        assert (call.call_id, call.name, call.arguments) == ("c1", "look", '{"at": "sky"}')
        assert pipeline.ear.of(Usage) == [Usage({"text": 5}, {"text": 7})]
        pipeline.send_tool_result("c1", "look", "blue", failed=False)
        await asyncio.sleep(1)
        instructions, history, tools = llm.asked[1]
        assert instructions == "Be kind."
        assert tools == [TOOL]
        kinds = {type(i) for i in history}
        assert kinds == {AgentItem, ToolCallItem, ToolResultItem}
        assert pipeline.ear.text.endswith("It is blue. ")


@virtual_time
async def test_instructions_may_hold_for_one_reply_and_tools_may_change():
    async with session(history=[SystemItem("s", "Before.")]) as pipeline:
        pipeline.request_reply("q", "Be brief.")
        await asyncio.sleep(1)
        pipeline.update_instructions("Be rude.")
        pipeline.update_tools([TOOL])
        pipeline.add_item(UserItem("u", "Hi.", spoken=False))
        pipeline.request_reply("q2")
        await asyncio.sleep(1)
        first, second = pipeline.llm.asked
        assert first[0] == "Be kind.\n\nBe brief."
        assert said(first[1]) == [("SystemItem", "Before.")]
        assert (second[0], second[2]) == ("Be rude.", [TOOL])
        assert said(second[1])[-1] == ("UserItem", "Hi.")


@virtual_time
async def test_a_cancelled_reply_stops_the_work():
    llm = LLM("One two three. " * 50)
    async with session(llm=llm, tts=TTS(takes_s=0.05)) as pipeline:
        pipeline.request_reply("q")
        await asyncio.sleep(1.0)
        pipeline.interrupt()
        await asyncio.sleep(0.1)
        assert llm.closed == 1
        assert [d.status for d in pipeline.ear.of(ReplyDone)] == ["cancelled"]
        told = len(pipeline.ear.told)
        pipeline._session.transmit(CancelReply("unknown"))
        await asyncio.sleep(2.0)
        assert len(pipeline.ear.told) == told
        assert not pipeline.pending


@virtual_time
async def test_the_person_says_that_they_are_done():
    async with session(turn=Turn(0.0, 0.0)) as pipeline:
        pipeline.end_turn()
        await speak(pipeline, 0.5)
        pipeline.end_turn()
        await asyncio.sleep(0.1)
        (turn,) = pipeline.ear.of(UserTurnEnded)
        assert turn.reply_follows
        await asyncio.sleep(1.0)
        assert len(pipeline.ear.of(ReplyDone)) == 1


@virtual_time
async def test_a_turn_may_be_forgotten():
    async with session(turn=Turn()) as pipeline:
        pipeline._session.transmit(ClearInput())
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 0.1)
        pipeline._session.transmit(ClearInput())
        await be_silent(pipeline, 1.0)
        assert not pipeline.ear.of(UserTurnEnded)
        assert all(stream.closed for stream in pipeline.stt.streams)
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 1.0)
        assert len(pipeline.ear.of(UserTurnEnded)) == 1


@virtual_time
async def test_answers_to_two_turns_are_told_one_after_the_other():
    slow = "answer that is long enough to be still in the making by then."
    llm = LLM(f"First {slow}", f"Second {slow}")
    async with session(llm=llm, turn=Turn(), tts=TTS(takes_s=0.1)) as pipeline:
        pipeline.say("q", "A notice that takes its time to be made.")
        for _ in range(2):
            await speak(pipeline, 0.3)
            await be_silent(pipeline, 0.5)
        await be_silent(pipeline, 25.0)
        order = [(type(o).__name__, o.reply_id) for o in pipeline.ear.of(ReplyStarted, ReplyDone)]
        assert [kind for kind, _ in order] == ["ReplyStarted", "ReplyDone"] * 3
        assert [a for _, a in order[::2]] == [b for _, b in order[1::2]]


@virtual_time
async def test_the_streams_are_let_go_at_the_end():
    async with session(turn=Turn()) as pipeline:
        await speak(pipeline, 0.3)
        await be_silent(pipeline, 1.0)
        await be_silent(pipeline, 3.0)
        await speak(pipeline, 0.3)
        stt = pipeline.stt
    assert len(stt.streams) == 2
    assert all(stream.closed for stream in stt.streams)


@virtual_time
async def test_sound_and_commands_that_come_as_it_ends_begin_nothing():
    class Lingering(STT):
        def stream(self):
            stream = super().stream()

            async def close():
                pipeline.request_reply("late")
                for _ in range(30):
                    pipeline.send_audio(AudioFrame(np.full(320, 8000, np.int16), 16000))
                stream.closed = True

            stream.close = close
            return stream

    async with session(stt=Lingering(), turn=Turn()) as pipeline:
        await speak(pipeline, 0.3)
    assert [stream.closed for stream in pipeline.stt.streams] == [True]
    assert not pipeline.llm.asked


@virtual_time
async def test_thoughts_of_a_model_are_neither_spoken_nor_kept():
    answer = [
        TextDelta(text) for text in ("<thi", "nk>They greet. Be ", "brief.</think>", "\n\nHello.")
    ]
    llm = LLM(answer)
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        assert pipeline.ear.text == "Hello."
        assert pipeline.tts.said == ["Hello."]
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        assert ("AgentItem", "Hello.") in said(llm.asked[-1][1])


@virtual_time
@pytest.mark.parametrize("text", ["Dial *99# for C#.", "Write <think> before it.", "a_b 3 * 4"])
async def test_what_the_program_says_is_said_word_for_word(text):
    async with session() as pipeline:
        pipeline.say("q", text)
        await be_silent(pipeline, 1.0)
        assert pipeline.ear.text == text
        assert pipeline.tts.said == [text]
