import json

import pytest

pytest.importorskip("pybase64", reason="the aws extra is not installed")
pytest.importorskip("orjson", reason="the aws extra is not installed")

from nova_codec_harness import CodecHarness

from duologue.items import UserItem
from duologue.providers.aws._blocks import ContentBlocks
from duologue.providers.aws._replies import Replies
from duologue.realtime.commands import AddItem, RequestReply, Say
from duologue.realtime.outputs import ReplyDone, ReplyInterrupted, ReplyStarted, ReplyText, Usage


class Blocks:
    """Content blocks without a codec, which receive events by name and fields."""

    def __init__(self):
        self.calls = []
        self.replies = Replies(24000)
        self.blocks = ContentBlocks(self.replies, self.calls.append)

    def receive(self, name, **fields):
        return list(self.blocks.decode(json.dumps({"event": {name: fields}}).encode()))

    def receive_text(self, text, role, stop="PARTIAL_TURN", stage=None):
        fields = {"contentId": "c", "type": "TEXT", "role": role}
        if stage is not None:
            fields["additionalModelFields"] = stage
        return [
            *self.receive("contentStart", **fields),
            *self.receive("textOutput", contentId="c", content=text),
            *self.receive("contentEnd", contentId="c", stopReason=stop),
        ]


PLANNED = json.dumps({"generationStage": "SPECULATIVE"})


def test_block_of_a_planned_sentence_begins_a_reply():
    blocks = Blocks()
    started, text = blocks.receive_text("Hello.", "ASSISTANT", stage=PLANNED)
    assert isinstance(started, ReplyStarted)
    assert (text.reply_id, text.text, text.planned) == (started.reply_id, "Hello.", True)
    (spoken,) = blocks.receive_text("Hello.", "ASSISTANT")
    assert isinstance(spoken, ReplyText)
    assert not spoken.planned


@pytest.mark.parametrize("stage", ["not json", "[]", '{"generationStage": 3}', ""])
def test_block_with_an_invalid_stage_is_final(stage):
    blocks = Blocks()
    assert not blocks.receive_text("Nobody planned this.", "ASSISTANT", stage=stage)
    assert blocks.blocks.malformed == 0


@pytest.mark.parametrize("text", ['{ "interrupted" : true }', '{"interrupted":true}'])
def test_interruption_comes_as_text(text):
    blocks = Blocks()
    started, _ = blocks.receive_text("Hello.", "ASSISTANT", stage=PLANNED)
    assert blocks.receive_text(text, "ASSISTANT", "INTERRUPTED") == [
        ReplyInterrupted(started.reply_id),
        ReplyDone(started.reply_id, "cancelled"),
    ]


def test_text_in_braces_is_no_interruption():
    blocks = Blocks()
    blocks.receive_text("{curly", "ASSISTANT", stage=PLANNED)
    (spoken,) = blocks.receive_text("{curly", "ASSISTANT")
    assert spoken.text == "{curly"


def test_spoken_text_may_end_with_an_interruption():
    blocks = Blocks()
    started, _ = blocks.receive_text("Hello.", "ASSISTANT", stage=PLANNED)
    outputs = blocks.receive_text("Hello.", "ASSISTANT", "INTERRUPTED")
    assert [type(one) for one in outputs] == [ReplyText, ReplyInterrupted, ReplyDone]
    assert outputs[1].reply_id == started.reply_id


def test_interrupted_plan_is_not_reported_as_spoken():
    blocks = Blocks()
    started, *rest = blocks.receive_text("Hello.", "ASSISTANT", "INTERRUPTED", stage=PLANNED)
    assert rest == [
        ReplyInterrupted(started.reply_id),
        ReplyDone(started.reply_id, "cancelled"),
    ]


def test_tool_call_is_registered_and_may_be_interrupted():
    blocks = Blocks()
    blocks.receive("contentStart", contentId="t", type="TOOL", role="TOOL")
    started, call = blocks.receive("toolUse", contentId="t", toolUseId="1", toolName="look")
    assert (call.call_id, call.arguments) == ("1", "{}")
    assert blocks.calls == ["1"]
    assert blocks.receive("contentEnd", contentId="t", stopReason="INTERRUPTED") == [
        ReplyInterrupted(started.reply_id),
        ReplyDone(started.reply_id, "cancelled"),
    ]


def test_oldest_open_block_is_dropped():
    blocks = Blocks()
    for index in range(17):
        blocks.receive("contentStart", contentId=str(index), type="AUDIO", role="USER")
    blocks.receive("contentEnd", contentId="0")
    assert blocks.blocks.malformed == 1
    blocks.receive("contentEnd", contentId="16")
    assert blocks.blocks.malformed == 1


def test_user_transcripts_come_in_pieces_with_their_own_spaces():
    harness = CodecHarness()
    pieces = [*harness.receive_transcript("so", " far"), *harness.receive_transcript("so good")]
    assert [one.text for one in pieces] == [" so", " so far", " so good"]
    assert pieces[0].item_id == pieces[1].item_id != pieces[2].item_id


def test_echo_of_a_sent_text_is_not_a_user_transcript():
    harness = CodecHarness()
    harness.send(Say("r", "Hello."))
    ((_, written),) = [one for one in harness.sent if one[0] == "textInput"][1:]
    assert not harness.receive_transcript(written["content"])
    assert not harness.receive_transcript("Hello.")
    assert harness.receive_transcript("Hello, you.")
    harness.receive_planned("Hello.")
    assert not harness.receive_transcript(written["content"])
    harness.receive_audio(100)
    assert harness.receive_transcript("Hello.")


def test_person_may_say_the_words_of_an_answered_text():
    harness = CodecHarness()
    harness.send(AddItem(UserItem("u", "Hello.", spoken=False)))
    harness.send(RequestReply("r"))
    assert not harness.receive_transcript("Hello.")
    harness.receive_reply("Hi.")
    assert harness.receive_transcript("Hello.")


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
    (_, call) = CodecHarness().receive_call(content=content)
    assert call.arguments == arguments


def test_usage_is_reported_by_modality():
    harness = CodecHarness()
    tokens = {"speechTokens": 5, "textTokens": 0}
    delta = {"input": tokens, "output": {"speechTokens": 0, "textTokens": 3}}
    outputs = harness.receive_event(
        "usageEvent", details={"delta": delta, "total": {}}, totalTokens=8
    )
    assert outputs == [Usage({"audio": 5}, {"text": 3})]
    nothing = {"input": {"speechTokens": 0}, "output": {}}
    assert not harness.receive_event("usageEvent", details={"delta": nothing})


def test_unknown_and_malformed_events_are_counted_and_ignored():
    harness = CodecHarness()
    for message in (b"", b"[]", b'{"event":3}', b'{"event":{}}', b'{"event":{"textOutput":3}}'):
        assert not harness.receive(message)
    assert not harness.receive_event("textOutput", content="of no block")
    assert not harness.receive_event("audioOutput", contentId="x", content="!!")
    for _ in range(3):
        assert not harness.receive_event("surprise", field=1)
    for index in range(1000):
        harness.receive_event(f"surprise{index}")
    blocks = harness.codec.blocks
    assert blocks.malformed == 7
    assert blocks.unknown["surprise"] == 3
    assert len(blocks.unknown) <= 65
