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
async def test_turn_is_answered():
    llm = LLM("Hello there friend. How are you?")
    async with session(llm=llm, turn=Turn()) as pipeline:
        assert llm.prepared == ("Be kind.", ())
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 3.0)
        observer = pipeline.observer
        assert observer.text.strip() == "Hello there friend. How are you?"
        assert pipeline.tts.texts == ["Hello there friend.", "How are you?"]
        (started,) = observer.of_type(ReplyStarted)
        assert observer.of_type(ReplyDone) == [ReplyDone(started.reply_id)]
        letters = sum(map(len, pipeline.tts.texts))
        assert sum(len(a.frame) for a in observer.of_type(ReplyAudio)) == letters * 1200
        first, second = observer.of_type(ReplyText)
        assert (first.start, second.start) == (0, 1200 * len(pipeline.tts.texts[0]))
        assert len(llm.requests) == 1
        assert said(llm.requests[0][1]) == [("UserItem", "w1 w2 w3 w4 w5")]
        assert llm.closed == 1


@virtual_time
async def test_reply_starts_at_the_first_pause_and_is_not_made_again():
    llm = LLM("Yes.", wait_s=0.05)
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 1.0)
        # 60 ms of pause, 20 ms of recogniser, 50 ms of model: done before the vote at 150 ms.
        assert pipeline.observer.time_of(ReplyStarted) - end == pytest.approx(0.16, abs=0.03)
        assert pipeline.observer.time_of(ReplyAudio) - end == pytest.approx(0.16, abs=0.03)
        assert len(llm.requests) == 1


@virtual_time
async def test_speculative_reply_is_discarded_if_the_person_continues():
    llm = LLM("Wrong answer.", "Right answer.", wait_s=0.4)
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 0.12)
        assert len(llm.requests) == 1
        await speak(pipeline, 0.1)
        assert llm.closed == 1
        await speak(pipeline, 0.4)
        await be_silent(pipeline, 2.0)
        assert len(llm.requests) == 2
        assert llm.closed == 2
        assert "Wrong" not in pipeline.observer.text
        assert len(pipeline.observer.of_type(ReplyStarted)) == 1
        (turn,) = pipeline.observer.of_type(UserTurnEnded)
        final = pipeline.observer.of_type(UserTranscript)[-1]
        assert (final.item_id, final.final) == (turn.item_id, True)
        assert final.text.split()[-1] == "w10"


@virtual_time
@pytest.mark.parametrize(
    ("vote", "pause"), [(0.0, 2.0), (0.1, 1.74), (0.25, 1.35), (0.49, 0.726), (0.5, 0.15)]
)
async def test_longer_wait_the_surer_the_detector_is_that_the_person_continues(vote, pause):
    async with session(turn=Turn(*[vote] * 20)) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 3.0)
        assert pipeline.observer.time_of(UserTurnEnded) - end == pytest.approx(pause, abs=0.05)


@virtual_time
async def test_detector_is_soon_asked_again_even_if_its_first_vote_counts_late():
    async with session(turn=Turn(0.1, 1.0), endpointing=Endpointing(vote_s=0.3)) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 3.0)
        assert pipeline.observer.time_of(UserTurnEnded) - end == pytest.approx(0.45, abs=0.03)


@virtual_time
async def test_pause_within_a_sentence_is_not_answered():
    async with session(turn=Turn(*[0.1] * 7)) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 1.1)
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 3.0)
        (turn,) = pipeline.observer.of_type(UserTurnEnded)
        assert len(pipeline.observer.of_type(ReplyStarted)) == 1
        [final] = [o for o in pipeline.observer.of_type(UserTranscript) if o.final]
        assert (final.item_id, final.text.split()[-1]) == (turn.item_id, "w10")


@virtual_time
@pytest.mark.parametrize(("longest", "pause"), [(0.7, 0.7), (5.0, 5.0)])
async def test_longest_pause_is_an_option(longest, pause):
    options = Endpointing(max_pause_s=longest)
    async with session(turn=Turn(*[0.0] * 99), endpointing=options) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 6.0)
        assert pipeline.observer.time_of(UserTurnEnded) - end == pytest.approx(pause, abs=0.05)


@virtual_time
async def test_timeout_decides_when_the_detector_does_not_answer():
    class Hung(Turn):
        async def end_of_turn(self, audio, text):
            await asyncio.Event().wait()

    async with session(turn=Hung()) as pipeline:
        await speak(pipeline, 0.5)
        end = asyncio.get_running_loop().time()
        await be_silent(pipeline, 2.0)
        assert pipeline.observer.time_of(UserTurnEnded) - end == pytest.approx(0.7, abs=0.03)


@virtual_time
async def test_speculative_reply_is_made_again_when_the_history_changed():
    llm = LLM("Long long answer of mine.", "Stale.", "Fresh.")
    async with session(llm=llm, turn=Turn()) as pipeline:
        pipeline.request_reply("q")
        await asyncio.sleep(2.0)
        (text,) = {o.item_id for o in pipeline.observer.of_type(ReplyText)}
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 0.12)
        assert len(llm.requests) == 2
        pipeline.observer.cuts = [Truncate(text, 500, "Long long")]
        pipeline.interrupt()
        await be_silent(pipeline, 1.0)
        assert "Stale" not in pipeline.observer.text
        assert pipeline.observer.text.endswith("Fresh. ")
        assert said(llm.requests[2][1])[0] == ("AgentItem", "Long long")


@virtual_time
async def test_model_only_knows_what_was_heard():
    llm = LLM("One two three four. Five six seven.", "Ok.", "Ok.")
    async with session(llm=llm, turn=Turn()) as pipeline:
        pipeline.request_reply("q")
        await asyncio.sleep(0.4)
        item_id = pipeline.observer.of_type(ReplyText)[0].item_id
        pipeline.observer.cuts = [Truncate(item_id, 200, "One two")]
        pipeline.interrupt()
        pipeline.request_reply("q2")
        await asyncio.sleep(1.0)
        assert said(llm.requests[1][1]) == [("AgentItem", "One two")]
        item = llm.requests[1][1][0]
        assert (item.state, item.played_ms) == ("cut", 200)
        pipeline.observer.cuts = [DeleteItem(item_id), DeleteItem("unknown"), Truncate("x", 1, "y")]
        pipeline.interrupt()
        pipeline.request_reply("q3")
        await asyncio.sleep(1.0)
        assert "One two" not in str(llm.requests[2][1])


@virtual_time
async def test_failing_llm_fails_its_reply_and_the_next_turn_works():
    llm = LLM([TextDelta("Well, "), SessionError("overloaded")], "Better now.")
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 1.0)
        (done,) = pipeline.observer.of_type(ReplyDone)
        assert (done.status, done.message) == ("failed", "overloaded")
        await be_silent(pipeline, 2.0)
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        assert pipeline.observer.text.endswith("Better now. ")
        assert [d.status for d in pipeline.observer.of_type(ReplyDone)] == ["failed", "completed"]


@virtual_time
async def test_failing_tts_fails_its_reply_and_closes_the_llm():
    llm, tts = LLM("One. Two. Three. " * 30), TTS()
    tts.fails = SessionError("no voice")
    async with session(llm=llm, tts=tts) as pipeline:
        pipeline.request_reply("q")
        await asyncio.sleep(1.0)
        (done,) = pipeline.observer.of_type(ReplyDone)
        assert (done.status, done.message) == ("failed", "no voice")
        assert llm.closed == 1
        assert not pipeline.pending


@virtual_time
async def test_failing_stt_is_reported_and_the_turn_ends_empty():
    async with session(turn=Turn()) as pipeline:
        pipeline.stt.fails = SessionError("deaf", code="stt")
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        assert {e.message for e in pipeline.observer.of_type(ProviderError)} == {
            "transcription: deaf"
        }
        (turn,) = pipeline.observer.of_type(UserTurnEnded)
        assert turn.empty
        pipeline.stt.fails = None
        await be_silent(pipeline, 1.0)
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        assert pipeline.observer.of_type(ReplyDone)


@virtual_time
async def test_cough_is_an_empty_turn():
    async with session(stt=STT(transcribe=lambda loud: "Uh."), turn=Turn()) as pipeline:
        await speak(pipeline, 0.2)
        await be_silent(pipeline, 1.0)
        (turn,) = pipeline.observer.of_type(UserTurnEnded)
        assert turn.empty
        assert not turn.reply_follows
        assert not pipeline.llm.requests
        assert not pipeline.pending
        pipeline.request_reply("q")
        await asyncio.sleep(0.5)
        assert said(pipeline.llm.requests[0][1]) == []


@virtual_time
async def test_say_is_exact_and_does_not_use_the_llm():
    async with session() as pipeline:
        text = "Call 555-0100, please: it's Mr. Smith!"
        pipeline.say("q", text)
        await asyncio.sleep(2)
        assert pipeline.observer.text == text
        assert not pipeline.llm.requests
        (started,) = pipeline.observer.of_type(ReplyStarted)
        assert started.request_id == "q"
        pipeline.request_reply("q2")
        await asyncio.sleep(1)
        assert said(pipeline.llm.requests[0][1]) == [("AgentItem", text)]


@virtual_time
async def test_tool_calls_through_a_pipeline():
    request = ToolRequest("c1", "look", '{"at": "sky"}')
    llm = LLM(["Let me see.", request, TokenUsage(5, 7)], "It is blue.")
    async with session(llm=llm, tools=[TOOL]) as pipeline:
        pipeline.request_reply("q")
        await asyncio.sleep(1)
        (call,) = pipeline.observer.of_type(ToolCall)
        assert (call.call_id, call.name, call.arguments) == ("c1", "look", '{"at": "sky"}')
        assert pipeline.observer.of_type(Usage) == [Usage({"text": 5}, {"text": 7})]
        pipeline.send_tool_result("c1", "look", "blue", failed=False)
        await asyncio.sleep(1)
        instructions, history, tools = llm.requests[1]
        assert instructions == "Be kind."
        assert tools == [TOOL]
        kinds = {type(i) for i in history}
        assert kinds == {AgentItem, ToolCallItem, ToolResultItem}
        assert pipeline.observer.text.endswith("It is blue. ")


@virtual_time
async def test_instructions_for_one_reply_and_changed_tools():
    async with session(history=[SystemItem("s", "Before.")]) as pipeline:
        pipeline.request_reply("q", "Be brief.")
        await asyncio.sleep(1)
        pipeline.update_instructions("Be rude.")
        pipeline.update_tools([TOOL])
        pipeline.add_item(UserItem("u", "Hi.", spoken=False))
        pipeline.request_reply("q2")
        await asyncio.sleep(1)
        first, second = pipeline.llm.requests
        assert first[0] == "Be kind.\n\nBe brief."
        assert said(first[1]) == [("SystemItem", "Before.")]
        assert (second[0], second[2]) == ("Be rude.", [TOOL])
        assert said(second[1])[-1] == ("UserItem", "Hi.")


@virtual_time
async def test_cancelled_reply_stops_its_work():
    llm = LLM("One two three. " * 50)
    async with session(llm=llm, tts=TTS(delay_s=0.05)) as pipeline:
        pipeline.request_reply("q")
        await asyncio.sleep(1.0)
        pipeline.interrupt()
        await asyncio.sleep(0.1)
        assert llm.closed == 1
        assert [d.status for d in pipeline.observer.of_type(ReplyDone)] == ["cancelled"]
        told = len(pipeline.observer.outputs)
        pipeline._session.transmit(CancelReply("unknown"))
        await asyncio.sleep(2.0)
        assert len(pipeline.observer.outputs) == told
        assert not pipeline.pending


@virtual_time
async def test_person_ends_their_turn():
    async with session(turn=Turn(0.0, 0.0)) as pipeline:
        pipeline.end_turn()
        await speak(pipeline, 0.5)
        pipeline.end_turn()
        await asyncio.sleep(0.1)
        (turn,) = pipeline.observer.of_type(UserTurnEnded)
        assert turn.reply_follows
        await asyncio.sleep(1.0)
        assert len(pipeline.observer.of_type(ReplyDone)) == 1


@virtual_time
async def test_turn_can_be_dropped():
    async with session(turn=Turn()) as pipeline:
        pipeline._session.transmit(ClearInput())
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 0.1)
        pipeline._session.transmit(ClearInput())
        await be_silent(pipeline, 1.0)
        assert not pipeline.observer.of_type(UserTurnEnded)
        assert all(stream.closed for stream in pipeline.stt.streams)
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 1.0)
        assert len(pipeline.observer.of_type(UserTurnEnded)) == 1


@virtual_time
async def test_replies_to_two_turns_come_one_after_the_other():
    slow = "answer that is long enough to be still in the making by then."
    llm = LLM(f"First {slow}", f"Second {slow}")
    async with session(llm=llm, turn=Turn(), tts=TTS(delay_s=0.1)) as pipeline:
        pipeline.say("q", "A notice that takes its time to be made.")
        for _ in range(2):
            await speak(pipeline, 0.3)
            await be_silent(pipeline, 0.5)
        await be_silent(pipeline, 25.0)
        order = [
            (type(o).__name__, o.reply_id)
            for o in pipeline.observer.of_type(ReplyStarted, ReplyDone)
        ]
        assert [kind for kind, _ in order] == ["ReplyStarted", "ReplyDone"] * 3
        assert [a for _, a in order[::2]] == [b for _, b in order[1::2]]


@virtual_time
async def test_streams_are_closed_at_the_end():
    async with session(turn=Turn()) as pipeline:
        await speak(pipeline, 0.3)
        await be_silent(pipeline, 1.0)
        await be_silent(pipeline, 3.0)
        await speak(pipeline, 0.3)
        stt = pipeline.stt
    assert len(stt.streams) == 2
    assert all(stream.closed for stream in stt.streams)


@virtual_time
async def test_audio_and_commands_during_the_end_start_nothing():
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
    assert not pipeline.llm.requests


@virtual_time
async def test_thoughts_of_a_model_are_neither_spoken_nor_kept():
    answer = [
        TextDelta(text) for text in ("<thi", "nk>They greet. Be ", "brief.</think>", "\n\nHello.")
    ]
    llm = LLM(answer)
    async with session(llm=llm, turn=Turn()) as pipeline:
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        assert pipeline.observer.text == "Hello."
        assert pipeline.tts.texts == ["Hello."]
        await speak(pipeline, 0.5)
        await be_silent(pipeline, 2.0)
        assert ("AgentItem", "Hello.") in said(llm.requests[-1][1])


@virtual_time
@pytest.mark.parametrize("text", ["Dial *99# for C#.", "Write <think> before it.", "a_b 3 * 4"])
async def test_say_is_spoken_word_for_word(text):
    async with session() as pipeline:
        pipeline.say("q", text)
        await be_silent(pipeline, 1.0)
        assert pipeline.observer.text == text
        assert pipeline.tts.texts == [text]
