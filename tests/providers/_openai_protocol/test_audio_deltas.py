"""Deltas that are read by their shape must mean what JSON says; the codec is the judge."""

import base64
import json

import numpy as np
import pytest
from codec_harness import ITEM, CodecHarness
from hypothesis import given
from hypothesis import strategies as st

from duologue.audio import AudioFrame
from duologue.providers._json_fields import MalformedError
from duologue.providers._openai_protocol.audio_deltas import DeltaShape, RecentEvents
from duologue.realtime.commands import SendAudio
from duologue.realtime.outputs import ReplyAudio

KIND = "response.output_audio.delta"
PCM = np.arange(480, dtype="<i2").tobytes()


def event(number=1, pcm=PCM, **more):
    fields = {
        "type": KIND,
        "event_id": f"event_{number}",
        "response_id": "resp",
        "item_id": ITEM,
        "output_index": 0,
        "content_index": 0,
        "delta": base64.b64encode(pcm).decode(),
    }
    return {**fields, **more}


def message(number=1, pcm=PCM, *, separators=(",", ":"), **more):
    return json.dumps(event(number, pcm, **more), separators=separators).encode()


def learned(number=1, **more):
    return DeltaShape.learn(message(number, **more), event(number, **more))


# The shape


def test_messages_of_the_same_shape_are_read():
    shape = learned()
    assert (shape.reply_id, shape.item_id, shape.content_index) == ("resp", ITEM, 0)
    assert shape.read(message(23, PCM[:100])) == (b"event_23", PCM[:100])
    assert shape.read(message("", b"ab")) == (b"event_", b"ab")


def test_whitespace_and_the_order_of_keys_do_not_matter():
    for fields in (("event_id", "type"), ("response_id", "event_id"), ("type", "event_id")):
        first, second = ({key: event(n)[key] for key in fields} | event(n) for n in (1, 2))
        for separators in ((",", ":"), (", ", ": "), (" ,\n", " :\t")):
            texts = [json.dumps(one, separators=separators).encode() for one in (first, second)]
            shape = DeltaShape.learn(texts[0], first)
            assert shape.read(texts[1]) == (b"event_2", PCM)


@pytest.mark.parametrize(
    "other",
    [
        message(2, response_id="other"),
        message(2, item_id="item_2"),
        message(2, content_index=1),
        message(2, more=1),
        message(2, type="response.output_audio_transcript.delta"),
        message(2, separators=(", ", ": ")),
        message(2, b""),
        message(2, b"").replace(b'""', b'"'),
        message(2, event_id="an \\ escape"),
        message(2, event_id='a " quote'),
        message(2, event_id="\x7f"),
        message(2, event_id="ä"),
        message(2, delta="QUI"),
        message(2, delta="QU I"),
        message(2, delta="QUI\\u003d"),
        message(2, delta='QUI=","x":"QUI='),
        message(2)[:-1],
        message(2)[:-2] + b"}",
        message(2) + b"}",
        b'{"type":"response.output_audio.delta","event_id":"event_2',
        b"",
    ],
)
def test_other_messages_are_left_to_json(other):
    assert learned().read(other) is None


@pytest.mark.parametrize(
    "more",
    [
        {"note": "an \\ escape"},
        {"note": "delta"},
        {"note": {"delta": "AAAA"}},
        {"note": {"event_id": "event_1"}},
        {"event_id": None},
        {"event_id": "ä"},
        {"delta": 5},
    ],
)
def test_unclear_messages_are_not_learned(more):
    assert learned(**more) is None


def test_audio_before_the_id_is_not_learned():
    turned = dict(reversed(event().items()))
    assert DeltaShape.learn(json.dumps(turned).encode(), turned) is None


def test_what_is_nested_is_not_taken_for_the_event():
    nested = {"type": KIND, "response_id": "r", "item_id": "i", "x": {"event_id": "e"}}
    assert DeltaShape.learn(json.dumps({**nested, "delta": "AAAA"}).encode(), nested) is None


def test_only_deltas_of_items_have_a_shape():
    with pytest.raises(MalformedError):
        learned(item_id=None)


# Repeated events


def test_an_event_is_new_once():
    recent = RecentEvents()
    assert recent.add(b"e", b"message")
    assert not recent.add(b"e", b"message")
    assert recent.repeated == 0
    assert recent.is_duplicate(b"e", b"message")
    assert recent.repeated == 1


def test_the_newest_sixteen_events_are_known():
    recent = RecentEvents()
    for number in range(100):
        assert not recent.is_duplicate(b"%d" % number, b"")
    assert all(not recent.add(b"%d" % number, b"") for number in range(84, 100))
    assert recent.add(b"60", b"")


def test_nothing_of_a_server_whose_ids_repeat_is_a_duplicate():
    recent = RecentEvents()
    assert [recent.is_duplicate(b"e", text) for text in (b"a", b"a", b"b", b"a")] == [
        False,
        True,
        False,
        False,
    ]
    assert recent.repeated == 3


def test_events_that_differ_in_length_only_are_different():
    recent = RecentEvents()
    assert not recent.is_duplicate(b"e", b"A" * 100)
    assert not recent.is_duplicate(b"e", b"A" * 101)


# The codec takes both ways alike


def outputs(codec, text, *, fast):
    """Decode a message as a connection does."""
    audio = codec.decode_audio(text) if fast else None
    found = codec.decode(text) if audio is None else (audio,)
    return [
        (one.reply_id, one.item_id, one.frame.samples.tolist(), one.frame.rate)
        if isinstance(one, ReplyAudio)
        else one
        for one in found
    ]


def state(codec):
    return codec.malformed, codec.unknown, codec.repeated, codec.pending()


_pcm = st.binary(max_size=12)
_ids = st.sampled_from(["event_1", "event_2", "event_3", "", "\\", '"', "ä", "\ud800"])
_texts = st.one_of(
    st.builds(message, st.integers(0, 40), _pcm),
    st.builds(message, st.just(0), _pcm, event_id=_ids),
    st.builds(message, st.integers(0, 40), _pcm, response_id=st.sampled_from(["resp", "other"])),
    st.builds(message, st.integers(0, 40), delta=st.text('AQ=+/ \\"', max_size=8)),
    st.builds(message, st.integers(0, 40), content_index=st.sampled_from([0, 1, True, "x"])),
    st.builds(message, st.integers(0, 40), separators=st.just((", ", ": "))),
    st.builds(
        lambda at, junk: message(7)[:at] + junk + message(7)[at:],
        st.integers(0, len(message(7))),
        st.binary(max_size=2),
    ),
    st.just(json.dumps({"type": "response.done", "response": {"id": "resp"}}).encode()),
    st.just(json.dumps({"type": "response.created", "response": {"id": "resp"}}).encode()),
)


@given(st.lists(_texts, max_size=12))
def test_the_fast_way_makes_no_difference(texts):
    fast, slow = CodecHarness().codec, CodecHarness().codec
    for text in (message(100), *texts):
        assert outputs(fast, text, fast=True) == outputs(slow, text, fast=False)
    assert state(fast) == state(slow)


def test_most_audio_goes_the_fast_way():
    harness = CodecHarness()
    harness.start_reply()
    codec = harness.codec
    assert codec.decode_audio(message(0)) is None
    codec.decode(message(0))
    for number in range(1, 50):
        audio = codec.decode_audio(message(number))
        assert audio.frame.to_bytes() == PCM
    assert codec.decode_audio(message(49)) is None  # a duplicate
    assert codec.decode(message(49)) == ()
    assert codec.repeated == 1


def test_half_a_sample_goes_the_slow_way():
    harness = CodecHarness()
    harness.start_reply()
    codec = harness.codec
    codec.decode(message(0))
    assert codec.decode_audio(message(1, PCM[:3])) is None
    assert len(codec.decode(message(1, PCM[:3]))[0].frame) == 1
    assert codec.decode_audio(message(2, PCM[3:6])) is None
    assert codec.decode(message(2, PCM[3:6]))[0].frame.to_bytes() == PCM[2:6]


def test_audio_is_counted_for_a_truncation_on_the_fast_way_too():
    sent = []
    for fast in (False, True):
        harness = CodecHarness()
        harness.start_reply()
        for number in range(10):
            outputs(harness.codec, message(number), fast=fast)
        sent.append(harness.codec._conversation._audio[ITEM].samples)
    assert sent == [4800, 4800]


def test_what_is_no_json_text_is_no_delta():
    codec = CodecHarness("webrtc").codec
    frame = AudioFrame(np.zeros(480, np.int16), 24000)
    assert codec.decode_audio(frame) is None
    assert codec.encode_audio(frame) is frame


def test_audio_is_encoded_as_by_a_command():
    frame = AudioFrame(np.arange(480, dtype=np.int16), 24000)
    one, other = CodecHarness().codec, CodecHarness().codec
    assert [one.encode_audio(frame)] == list(other.encode(SendAudio(frame)))
