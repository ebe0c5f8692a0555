"""Half a character in a server's JSON costs no message, and none is ever sent."""

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
def test_half_a_character_is_read(message):
    assert decode_object(message) == {"a": "\ud83d"}


@pytest.mark.parametrize(
    "message",
    [b"", b"[]", b"\xff", b'{"\\ud83d"', b'"\\ud83d"', b'{"\\ud83d": ' + b"[" * 100_000, b"{a}"],
)
def test_what_is_no_object_is_malformed(message):
    with pytest.raises(MalformedError):
        decode_object(message)


def test_half_a_character_is_not_sent():
    assert orjson.loads(encode_object({"a": ["x\ud83d"]})) == {"a": ["x?"]}


def words(outputs):
    return [one.text for one in outputs if isinstance(one, ReplyText)]


def test_openai_and_qwen_read_halves():
    line = codec_harness.Line()
    line.began()
    assert words([*line.words(HALVES[0]), *line.words(HALVES[1])]) == HALVES
    whole = "".join(HALVES).encode("utf-16", "surrogatepass").decode("utf-16")
    assert line.codec.malformed == 0
    line.send(Say("q", whole))
    line.began("said", "q", "item_2")
    for half in HALVES:
        line.words(half, "said", "item_2")
    line.sound([1] * 100, "said", "item_2")
    line.done("said")
    assert whole in str(line.pending())


def test_gemini_reads_halves():
    line = gemini_codec_harness.Harness()
    line.text(HALVES[0])
    outputs = [*line.audio([1] * 100), *line.text(HALVES[1])]
    assert "".join(words(outputs)) == "".join(HALVES)


def test_nova_reads_halves():
    line = nova_codec_harness.CodecHarness()
    assert words(line.receive_planned(HALVES[0])) == [HALVES[0]]
    assert line.codec.blocks.malformed == 0
