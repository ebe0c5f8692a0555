"""Half a character in a server's JSON loses no message, and is never sent."""

import codec_harness
import gemini_codec_harness
import nova_codec_harness
import orjson
import pytest

from duologue.providers._json_fields import MalformedError
from duologue.providers._json_text import decode_object, encode_object
from duologue.realtime.commands import Say
from duologue.realtime.outputs import ReplyText

HALVES = ["Hello \ud83d", "\ude00 there."]


@pytest.mark.parametrize("message", [b'{"a": "\\ud83d"}', '{"a": "\\uD83D"}'])
def test_split_surrogate_is_decoded(message):
    assert decode_object(message) == {"a": "\ud83d"}


@pytest.mark.parametrize(
    "message",
    [b"", b"[]", b"\xff", b'{"\\ud83d"', b'"\\ud83d"', b'{"\\ud83d": ' + b"[" * 100_000, b"{a}"],
)
def test_non_object_json_is_malformed(message):
    with pytest.raises(MalformedError):
        decode_object(message)


def test_lone_surrogate_is_not_sent():
    assert orjson.loads(encode_object({"a": ["x\ud83d"]})) == {"a": ["x?"]}


def words(outputs):
    return [one.text for one in outputs if isinstance(one, ReplyText)]


def test_openai_and_qwen_join_split_characters():
    harness = codec_harness.CodecHarness()
    harness.start_reply()
    assert words([*harness.receive_text(HALVES[0]), *harness.receive_text(HALVES[1])]) == HALVES
    whole = "".join(HALVES).encode("utf-16", "surrogatepass").decode("utf-16")
    assert harness.codec.malformed == 0
    harness.send(Say("q", whole))
    harness.start_reply("said", "q", "item_2")
    for half in HALVES:
        harness.receive_text(half, "said", "item_2")
    harness.receive_audio([1] * 100, "said", "item_2")
    harness.finish_reply("said")
    assert whole in str(harness.pending())


def test_gemini_joins_split_characters():
    harness = gemini_codec_harness.Harness()
    harness.text(HALVES[0])
    outputs = [*harness.audio([1] * 100), *harness.text(HALVES[1])]
    assert "".join(words(outputs)) == "".join(HALVES)


def test_nova_joins_split_characters():
    harness = nova_codec_harness.CodecHarness()
    assert words(harness.receive_planned(HALVES[0])) == [HALVES[0]]
    assert harness.codec.blocks.malformed == 0
