import base64
import json

import pytest

pytest.importorskip("pybase64", reason="the aws extra is not installed")
pytest.importorskip("orjson", reason="the aws extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from nova_codec_harness import Line

from duologue.items import UserItem
from duologue.providers.aws._signals import StreamQuiet
from duologue.realtime.commands import AddItem, CancelReply, RequestReply, Say
from duologue.realtime.outputs import (
    ReplyAudio,
    ReplyDone,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SayMismatch,
    ToolCall,
    Usage,
    UserTranscript,
)


def kinds(outputs):
    return [type(one).__name__ for one in outputs]


def text_of(outputs, *, planned=False):
    found = [one for one in outputs if isinstance(one, ReplyText) and one.planned is planned]
    return "".join(one.text for one in found)


def test_a_turn_and_its_answer():
    line = Line()
    line.get("completionStart", completionId="c")
    (words,) = line.heard("how is the weather")
    assert isinstance(words, UserTranscript)
    assert words.text.strip() == "how is the weather"
    outputs = line.planned("It is sunny.")
    assert kinds(outputs) == ["ReplyStarted", "ReplyText"]
    started, planned = outputs
    assert started.request_id is None
    assert (planned.planned, planned.text) == (True, "It is sunny.")
    outputs = line.audio(100, 200, stop="PARTIAL_TURN")
    assert [len(one.frame) for one in outputs] == [100, 200]
    assert {one.reply_id for one in outputs} == {started.reply_id}
    assert outputs[0].frame.rate == 24000
    assert kinds(line.planned("Go out!")) == ["ReplyText"]
    assert kinds(line.audio(100)) == ["ReplyAudio", "ReplyDone"]
    outputs = [*line.said("It is sunny."), *line.said("Go out!", "END_TURN")]
    assert kinds(outputs) == ["ReplyText", "ReplyText"]
    assert text_of(outputs) == "It is sunny. Go out!"
    assert {(one.reply_id, one.item_id) for one in outputs} == {(started.reply_id, planned.item_id)}
    assert not line.get("completionEnd", stopReason="END_TURN")


def test_a_sentence_that_is_planned_in_parts_is_one():
    line = Line()
    outputs = line.block(
        "TEXT", "ASSISTANT", "PARTIAL_TURN", "It is", " five.", stage="SPECULATIVE"
    )
    outputs += line.audio(100)
    assert [one.text for one in outputs if isinstance(one, ReplyText)] == ["It is five."]
    (words,) = line.said("It is five.")
    assert words.text == "It is five."
    assert line.codec._replies.last.spoken_sentences == len(line.codec._replies.last.planned) == 1


def test_words_of_the_person_come_in_pieces_with_their_own_spaces():
    line = Line()
    pieces = [*line.heard("so", " far"), *line.heard("so good")]
    assert [one.text for one in pieces] == [" so", " so far", " so good"]
    assert pieces[0].item_id == pieces[1].item_id != pieces[2].item_id


def test_words_that_were_written_to_it_are_not_what_the_person_said():
    line = Line()
    line.send(Say("r", "Hello."))
    ((_, written),) = [one for one in line.sent if one[0] == "textInput"][1:]
    assert not line.heard(written["content"])
    assert not line.heard("Hello.")
    assert line.heard("Hello, you.")
    line.planned("Hello.")
    assert not line.heard(written["content"])
    line.audio(100)
    assert line.heard("Hello.")


def test_what_was_written_may_be_said_later_in_the_same_words():
    line = Line()
    line.send(AddItem(UserItem("u", "Hello.", spoken=False)))
    line.send(RequestReply("r"))
    assert not line.heard("Hello.")
    line.reply("Hi.")
    assert line.heard("Hello.")


def test_an_interruption_while_it_speaks():
    line = Line()
    (started, _) = line.planned("A long story.")
    assert kinds(line.audio(100, 100, stop="INTERRUPTED")) == [
        "ReplyAudio",
        "ReplyAudio",
        "ReplyInterrupted",
        "ReplyDone",
    ]
    assert not line.interrupted()
    outputs = line.said("A long")
    assert [(one.reply_id, one.text) for one in outputs] == [(started.reply_id, "A long")]


def test_an_interruption_of_what_was_made_to_its_end():
    line = Line()
    reply_id = line.reply("One.", "Two.")
    line.said("One.")
    assert line.interrupted() == [ReplyInterrupted(reply_id)]
    assert not line.interrupted()


def test_an_interruption_between_two_sentences():
    line = Line()
    (started, _) = line.planned("One.")
    line.audio(100, stop="PARTIAL_TURN")
    assert line.interrupted() == [
        ReplyInterrupted(started.reply_id),
        ReplyDone(started.reply_id, "cancelled"),
    ]


def test_an_interruption_of_what_we_have_cancelled_ourselves_is_no_news():
    line = Line()
    (started, _) = line.planned("One.")
    line.send(CancelReply(started.reply_id))
    assert line.interrupted() == [ReplyDone(started.reply_id, "cancelled")]


def test_the_sound_of_a_cancelled_reply_stays_its_own():
    line = Line()
    (first, _) = line.planned("One.")
    line.send(CancelReply(first.reply_id))
    line.send(RequestReply("r2"))
    outputs = line.audio(100, stop="PARTIAL_TURN")
    outputs += line.planned("More.")
    outputs += line.audio(100, stop="INTERRUPTED")
    assert {one.reply_id for one in outputs} == {first.reply_id}
    (second, _) = line.planned("Two.")
    assert (second.reply_id != first.reply_id, second.request_id) == (True, "r2")
    assert {one.reply_id for one in line.audio(100)} == {second.reply_id}


def test_late_words_find_the_reply_that_they_were_said_in():
    line = Line()
    first = line.reply("Yes.", "It is late.")
    second = line.reply("Yes.", "Good night.")
    said = [line.said(text) for text in ("Yes.", "It is late.", "Yes.", "Good night.")]
    assert [one.reply_id for (one,) in said] == [first, first, second, second]


def test_late_words_of_a_cut_reply_are_not_taken_for_those_of_the_next():
    line = Line()
    line.reply("Yes.", "No.", "Perhaps.")
    line.said("Yes.")
    line.interrupted()
    second = line.reply("No.", "Never.")
    said = [line.said(text) for text in ("No.", "Never.")]
    assert [one.reply_id for (one,) in said] == [second, second]


def test_words_that_were_not_planned_like_that_belong_to_the_reply_that_is_being_said():
    line = Line()
    first = line.reply("It costs 5 €.")
    (words,) = line.said("It costs five euros.")
    assert (words.reply_id, words.text) == (first, "It costs five euros.")


def test_scripted_text_is_checked_against_what_was_said():
    for said, wrong in (("It is five.", False), ("IT IS, FIVE", False), ("It is six.", True)):
        line = Line()
        line.send(Say("r", "It is five."))
        reply_id = line.reply("It is five.")
        outputs = line.said(said, "END_TURN")
        found = [one for one in outputs if isinstance(one, SayMismatch)]
        assert found == ([SayMismatch(reply_id, "It is five.", said)] if wrong else [])


def test_scripted_text_that_was_cut_is_not_checked():
    line = Line()
    line.send(Say("r", "One. Two."))
    line.reply("One.", "Two.")
    assert kinds(line.said("One.")) == ["ReplyText"]
    assert kinds(line.interrupted()) == ["ReplyInterrupted"]
    assert kinds(line.said("Two")) == ["ReplyText"]


def test_scripted_text_is_checked_when_all_of_it_was_said():
    line = Line()
    line.send(Say("r", "One. Two."))
    line.reply("One.", "Two.")
    outputs = [*line.said("One."), *line.said("Two.")]
    assert kinds(outputs) == ["ReplyText", "ReplyText"]
    assert text_of(outputs) == "One. Two."


def test_calls_in_a_row_are_of_one_reply_and_what_follows_is_another():
    line = Line()
    outputs = [*line.call("c1", content='{"city":"Bonn"}'), *line.call("c2")]
    assert kinds(outputs) == ["ReplyStarted", "ToolCall", "ToolCall"]
    started, first, _ = outputs
    assert first == ToolCall(started.reply_id, "c1", "weather", '{"city":"Bonn"}')
    outputs = line.planned("It is sunny.")
    assert kinds(outputs) == ["ReplyDone", "ReplyStarted", "ReplyText"]
    assert outputs[0] == ReplyDone(started.reply_id)


def test_a_reply_of_calls_is_over_when_no_more_come():
    line = Line()
    (started, _) = line.call()
    assert line.tell(StreamQuiet()) == [ReplyDone(started.reply_id)]
    assert not line.tell(StreamQuiet())
    line.planned("One.")
    assert not line.tell(StreamQuiet())


def test_words_before_a_call_are_of_its_reply():
    line = Line()
    (started, _) = line.planned("Let me look.")
    line.audio(100, stop="PARTIAL_TURN")
    (call,) = line.call()
    assert call.reply_id == started.reply_id


@pytest.mark.parametrize(
    ("content", "arguments"),
    [
        ('{"a":1}', '{"a":1}'),
        (json.dumps('{"a":1}'), '{"a":1}'),
        (json.dumps("hello"), '"hello"'),
        ("not json", "not json"),
        (json.dumps("{broken"), '"{broken"'),
        ("", "{}"),
    ],
)
def test_arguments_come_as_json_or_as_json_of_json(content, arguments):
    (_, call) = Line().call(content=content)
    assert call.arguments == arguments


def test_usage_is_told_by_modality():
    line = Line()
    tokens = {"speechTokens": 5, "textTokens": 0}
    delta = {"input": tokens, "output": {"speechTokens": 0, "textTokens": 3}}
    outputs = line.get("usageEvent", details={"delta": delta, "total": {}}, totalTokens=8)
    assert outputs == [Usage({"audio": 5}, {"text": 3})]
    nothing = {"input": {"speechTokens": 0}, "output": {}}
    assert not line.get("usageEvent", details={"delta": nothing})


def test_half_a_sample_waits_for_its_other_half():
    line = Line()
    line.planned("One.")
    outputs = line.audio(3, end=False)
    for data in (b"\x01", b"\x02\x03", b"\x04"):
        content = base64.b64encode(data).decode()
        outputs += line.get("audioOutput", contentId=f"content_{line.count}", content=content)
    assert [one.frame.samples.tolist() for one in outputs[1:]] == [[0x0201], [0x0403]]


def test_a_reply_that_is_never_ended_ends_with_the_completion():
    line = Line()
    (started, _) = line.planned("One.")
    line.audio(100, stop="PARTIAL_TURN")
    assert line.get("completionStart", completionId="2") == [ReplyDone(started.reply_id)]
    (again, _) = line.planned("Two.")
    assert line.get("completionEnd", stopReason="INTERRUPTED") == [
        ReplyInterrupted(again.reply_id),
        ReplyDone(again.reply_id, "cancelled"),
    ]


def test_what_is_not_of_the_protocol_is_counted_and_harms_nothing():
    line = Line()
    for message in (b"", b"[]", b'{"event":3}', b'{"event":{}}', b'{"event":{"textOutput":3}}'):
        assert not line.tell(message)
    assert not line.get("textOutput", content="of no block")
    assert not line.get("audioOutput", contentId="x", content="!!")
    for _ in range(3):
        assert not line.get("surprise", field=1)
    for index in range(1000):
        line.get(f"surprise{index}")
    blocks = line.codec.blocks
    assert blocks.malformed == 7
    assert blocks.unknown["surprise"] == 3
    assert len(blocks.unknown) <= 65


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
def test_whatever_comes_replies_begin_and_end_once(events):
    line = Line()
    begun, done = [], []
    for name, fields in events:
        outputs = line.tell(json.dumps({"event": {name: fields}}).encode())
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
