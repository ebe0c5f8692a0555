import base64
import json

import pytest

pytest.importorskip("pybase64", reason="the aws extra is not installed")
pytest.importorskip("orjson", reason="the aws extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from nova_codec_harness import CodecHarness

from duologue.providers.aws._replies import Replies
from duologue.providers.aws._signals import StreamQuiet
from duologue.realtime.commands import CancelReply, RequestReply, Say
from duologue.realtime.outputs import (
    ReplyAudio,
    ReplyDone,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SayMismatch,
    ToolCall,
    UserTranscript,
)


def kinds(outputs):
    return [type(one).__name__ for one in outputs]


def text_of(outputs, *, planned=False):
    found = [one for one in outputs if isinstance(one, ReplyText) and one.planned is planned]
    return "".join(one.text for one in found)


def test_turn_and_its_reply():
    harness = CodecHarness()
    harness.receive_event("completionStart", completionId="c")
    (words,) = harness.receive_transcript("how is the weather")
    assert isinstance(words, UserTranscript)
    assert words.text.strip() == "how is the weather"
    outputs = harness.receive_planned("It is sunny.")
    assert kinds(outputs) == ["ReplyStarted", "ReplyText"]
    started, planned = outputs
    assert started.request_id is None
    assert (planned.planned, planned.text) == (True, "It is sunny.")
    outputs = harness.receive_audio(100, 200, stop="PARTIAL_TURN")
    assert [len(one.frame) for one in outputs] == [100, 200]
    assert {one.reply_id for one in outputs} == {started.reply_id}
    assert outputs[0].frame.rate == 24000
    assert kinds(harness.receive_planned("Go out!")) == ["ReplyText"]
    assert kinds(harness.receive_audio(100)) == ["ReplyAudio", "ReplyDone"]
    outputs = [
        *harness.receive_spoken("It is sunny."),
        *harness.receive_spoken("Go out!", "END_TURN"),
    ]
    assert kinds(outputs) == ["ReplyText", "ReplyText"]
    assert text_of(outputs) == "It is sunny. Go out!"
    assert {(one.reply_id, one.item_id) for one in outputs} == {(started.reply_id, planned.item_id)}
    assert not harness.receive_event("completionEnd", stopReason="END_TURN")


def test_sentence_that_is_planned_in_parts_is_one():
    harness = CodecHarness()
    outputs = harness.receive_block(
        "TEXT", "ASSISTANT", "PARTIAL_TURN", "It is", " five.", stage="SPECULATIVE"
    )
    outputs += harness.receive_audio(100)
    assert [one.text for one in outputs if isinstance(one, ReplyText)] == ["It is five."]
    (words,) = harness.receive_spoken("It is five.")
    assert words.text == "It is five."
    assert (
        harness.codec._replies.last.spoken_sentences
        == len(harness.codec._replies.last.planned)
        == 1
    )


def test_interruption_while_it_speaks():
    harness = CodecHarness()
    (started, _) = harness.receive_planned("A long story.")
    assert kinds(harness.receive_audio(100, 100, stop="INTERRUPTED")) == [
        "ReplyAudio",
        "ReplyAudio",
        "ReplyInterrupted",
        "ReplyDone",
    ]
    assert not harness.receive_interruption()
    outputs = harness.receive_spoken("A long")
    assert [(one.reply_id, one.text) for one in outputs] == [(started.reply_id, "A long")]


def test_interruption_after_its_audio_is_complete():
    harness = CodecHarness()
    reply_id = harness.receive_reply("One.", "Two.")
    harness.receive_spoken("One.")
    assert harness.receive_interruption() == [ReplyInterrupted(reply_id)]
    assert not harness.receive_interruption()


def test_interruption_between_two_sentences():
    harness = CodecHarness()
    (started, _) = harness.receive_planned("One.")
    harness.receive_audio(100, stop="PARTIAL_TURN")
    assert harness.receive_interruption() == [
        ReplyInterrupted(started.reply_id),
        ReplyDone(started.reply_id, "cancelled"),
    ]


def test_interruption_of_a_cancelled_reply_is_not_reported():
    harness = CodecHarness()
    (started, _) = harness.receive_planned("One.")
    harness.send(CancelReply(started.reply_id))
    assert harness.receive_interruption() == [ReplyDone(started.reply_id, "cancelled")]


def test_audio_of_a_cancelled_reply_stays_with_it():
    harness = CodecHarness()
    (first, _) = harness.receive_planned("One.")
    harness.send(CancelReply(first.reply_id))
    harness.send(RequestReply("r2"))
    outputs = harness.receive_audio(100, stop="PARTIAL_TURN")
    outputs += harness.receive_planned("More.")
    outputs += harness.receive_audio(100, stop="INTERRUPTED")
    assert {one.reply_id for one in outputs} == {first.reply_id}
    (second, _) = harness.receive_planned("Two.")
    assert (second.reply_id != first.reply_id, second.request_id) == (True, "r2")
    assert {one.reply_id for one in harness.receive_audio(100)} == {second.reply_id}


def test_late_text_belongs_to_the_reply_that_spoke_it():
    harness = CodecHarness()
    first = harness.receive_reply("Yes.", "It is late.")
    second = harness.receive_reply("Yes.", "Good night.")
    said = [harness.receive_spoken(text) for text in ("Yes.", "It is late.", "Yes.", "Good night.")]
    assert [one.reply_id for (one,) in said] == [first, first, second, second]


def test_late_text_of_an_interrupted_reply_does_not_go_to_the_next():
    harness = CodecHarness()
    harness.receive_reply("Yes.", "No.", "Perhaps.")
    harness.receive_spoken("Yes.")
    harness.receive_interruption()
    second = harness.receive_reply("No.", "Never.")
    said = [harness.receive_spoken(text) for text in ("No.", "Never.")]
    assert [one.reply_id for (one,) in said] == [second, second]


def test_unplanned_text_belongs_to_the_reply_that_is_being_spoken():
    harness = CodecHarness()
    first = harness.receive_reply("It costs 5 €.")
    (words,) = harness.receive_spoken("It costs five euros.")
    assert (words.reply_id, words.text) == (first, "It costs five euros.")


def test_say_is_compared_with_what_was_spoken():
    for said, wrong in (("It is five.", False), ("IT IS, FIVE", False), ("It is six.", True)):
        harness = CodecHarness()
        harness.send(Say("r", "It is five."))
        reply_id = harness.receive_reply("It is five.")
        outputs = harness.receive_spoken(said, "END_TURN")
        found = [one for one in outputs if isinstance(one, SayMismatch)]
        assert found == ([SayMismatch(reply_id, "It is five.", said)] if wrong else [])


def test_interrupted_say_is_not_compared():
    harness = CodecHarness()
    harness.send(Say("r", "One. Two."))
    harness.receive_reply("One.", "Two.")
    assert kinds(harness.receive_spoken("One.")) == ["ReplyText"]
    assert kinds(harness.receive_interruption()) == ["ReplyInterrupted"]
    assert kinds(harness.receive_spoken("Two")) == ["ReplyText"]


def test_say_is_compared_once_all_of_it_was_spoken():
    harness = CodecHarness()
    harness.send(Say("r", "One. Two."))
    harness.receive_reply("One.", "Two.")
    outputs = [*harness.receive_spoken("One."), *harness.receive_spoken("Two.")]
    assert kinds(outputs) == ["ReplyText", "ReplyText"]
    assert text_of(outputs) == "One. Two."


def test_calls_in_a_row_belong_to_one_reply_and_what_follows_to_another():
    harness = CodecHarness()
    outputs = [*harness.receive_call("c1", content='{"city":"Bonn"}'), *harness.receive_call("c2")]
    assert kinds(outputs) == ["ReplyStarted", "ToolCall", "ToolCall"]
    started, first, _ = outputs
    assert first == ToolCall(started.reply_id, "c1", "weather", '{"city":"Bonn"}')
    outputs = harness.receive_planned("It is sunny.")
    assert kinds(outputs) == ["ReplyDone", "ReplyStarted", "ReplyText"]
    assert outputs[0] == ReplyDone(started.reply_id)


def test_reply_of_tool_calls_ends_when_no_more_come():
    harness = CodecHarness()
    (started, _) = harness.receive_call()
    assert harness.receive(StreamQuiet()) == [ReplyDone(started.reply_id)]
    assert not harness.receive(StreamQuiet())
    harness.receive_planned("One.")
    assert not harness.receive(StreamQuiet())


def test_text_before_a_tool_call_belongs_to_its_reply():
    harness = CodecHarness()
    (started, _) = harness.receive_planned("Let me look.")
    harness.receive_audio(100, stop="PARTIAL_TURN")
    (call,) = harness.receive_call()
    assert call.reply_id == started.reply_id


def test_half_a_sample_waits_for_its_other_half():
    harness = CodecHarness()
    harness.receive_planned("One.")
    outputs = harness.receive_audio(3, end=False)
    for data in (b"\x01", b"\x02\x03", b"\x04"):
        content = base64.b64encode(data).decode()
        outputs += harness.receive_event(
            "audioOutput", contentId=f"content_{harness.count}", content=content
        )
    assert [one.frame.samples.tolist() for one in outputs[1:]] == [[0x0201], [0x0403]]


def test_reply_that_is_never_ended_ends_with_the_completion():
    harness = CodecHarness()
    (started, _) = harness.receive_planned("One.")
    harness.receive_audio(100, stop="PARTIAL_TURN")
    assert harness.receive_event("completionStart", completionId="2") == [
        ReplyDone(started.reply_id)
    ]
    (again, _) = harness.receive_planned("Two.")
    assert harness.receive_event("completionEnd", stopReason="INTERRUPTED") == [
        ReplyInterrupted(again.reply_id),
        ReplyDone(again.reply_id, "cancelled"),
    ]


def test_outputs_without_a_reply_are_ignored():
    replies = Replies(24000)
    assert replies.cancel("reply_1") is None
    assert not replies.add_spoken("Hello.")
    assert not replies.interrupt()
    assert not replies.end()
    assert not replies.end_tool_calls()


def test_ended_reply_gets_no_more_plans_and_no_more_audio():
    replies = Replies(24000)
    reply, _ = replies.begin()
    assert not replies.add_planned(reply, "  ")
    assert replies.add_audio(reply, b"\1\2")
    assert replies.end() == [ReplyDone(reply.id)]
    assert not replies.add_planned(reply, "Late.")
    assert not replies.add_audio(reply, b"\1\2")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = ["contentStart", "textOutput", "audioOutput", "toolUse", "contentEnd", "usageEvent"]
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "contentId": st.sampled_from(["a", "b", ""]) | JUNK,
        "type": st.sampled_from(["TEXT", "AUDIO", "TOOL"]) | JUNK,
        "role": st.sampled_from(["USER", "ASSISTANT", "TOOL"]) | JUNK,
        "additionalModelFields": st.sampled_from(['{"generationStage":"SPECULATIVE"}']) | JUNK,
        "content": st.sampled_from(["AAAA", "Hi.", '{ "interrupted" : true }']) | JUNK,
        "stopReason": st.sampled_from(["END_TURN", "INTERRUPTED", "PARTIAL_TURN"]) | JUNK,
        "toolUseId": st.sampled_from(["t"]) | JUNK,
        "toolName": st.sampled_from(["n"]) | JUNK,
        "details": JUNK,
    },
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), FIELDS | JUNK), max_size=20))
def test_replies_begin_and_end_once_whatever_comes(events):
    harness = CodecHarness()
    begun, done = [], []
    for name, fields in events:
        outputs = harness.receive(json.dumps({"event": {name: fields}}).encode())
        for one in outputs:
            match one:
                case ReplyStarted(reply_id=reply_id):
                    assert set(begun) == set(done)
                    begun.append(reply_id)
                case ReplyDone(reply_id=reply_id):
                    done.append(reply_id)
                case ReplyAudio(reply_id=reply_id) | ToolCall(reply_id=reply_id):
                    assert reply_id == begun[-1]
                    assert reply_id not in done
                case ReplyText(reply_id=reply_id):
                    assert reply_id in begun
    assert len(set(begun)) == len(begun)
    assert len(set(done)) == len(done)


# The replies by themselves


def test_text_and_audio_of_a_finished_reply_are_dropped():
    replies = Replies(24000)
    reply, started = replies.begin()
    assert kinds(started) == ["ReplyStarted"]
    assert replies.begin() == (reply, ())
    assert replies.add_audio(reply, b"\x01") == ()  # Half a sample waits for its other half.
    reply.finished = True
    assert replies.add_planned(reply, "Too late.") == ()
    assert replies.add_audio(reply, b"\x01\x00") == ()


def test_empty_text_is_not_added():
    replies = Replies(24000)
    assert replies.add_spoken("Nobody speaks.") == ()
    reply, _ = replies.begin()
    assert replies.add_planned(reply, " ") == ()
    assert replies.add_spoken(" ") == ()
    assert reply.spoken_text == ""


def test_only_a_known_reply_is_cancelled():
    replies = Replies(24000)
    reply, _ = replies.begin()
    assert replies.cancel("unknown") is None
    assert replies.cancel(reply.id) == reply.item_id
    assert reply.interrupted
    assert replies.by_item(reply.item_id) is replies.last is reply
