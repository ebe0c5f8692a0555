"""Vonage's messages: binary frames of exactly 20 ms, and JSON."""

import json

import numpy as np
import pytest

from duologue.edges.telephone._stream import (
    AudioArrived,
    DigitPressed,
    MarkReturned,
    QueueCleared,
    StreamFailed,
    StreamStarted,
    StreamStopped,
)
from duologue.edges.telephone._vonage_codec import VonageCodec


def read(message, codec=None):
    if not isinstance(message, bytes):
        message = json.dumps(message)
    return list((codec or VonageCodec()).receive(message))


def test_the_start_of_a_stream():
    connected = {
        "event": "websocket:connected",
        "content-type": "audio/l16;rate=16000",
        "duologue": "T",
        "uuid": "u1",
    }
    assert read(connected) == [
        StreamStarted(call_id="u1", parameters={"duologue": "T", "uuid": "u1"})
    ]


@pytest.mark.parametrize("content", ["audio/l16;rate=8000", "audio/opus", "", "audio/l16;rate=x"])
def test_another_content_type_ends_the_stream_with_a_sentence(content):
    [failed] = read({"event": "websocket:connected", "content-type": content})
    assert isinstance(failed, StreamFailed)
    assert "audio/l16;rate=16000 was asked for" in failed.message


def test_audio_digits_notifications_and_the_end():
    [audio] = read(b"\x01\x02" * 320)
    assert isinstance(audio, AudioArrived)
    assert (audio.rate, audio.samples[0], len(audio.samples)) == (16000, 0x0201, 320)
    digit = {"event": "websocket:dtmf", "digit": "5", "duration": 260}
    assert read(digit) == [DigitPressed("5")]
    notify = {"event": "websocket:notify", "payload": {"mark": "0:8"}}
    assert read(notify) == [MarkReturned("0:8")]
    assert read({"event": "websocket:cleared"}) == [QueueCleared()]
    assert read({"event": "websocket:disconnected"}) == [StreamStopped()]


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_a_message_of_audio_is_exactly_one_frame(rate):
    codec = VonageCodec(rate)
    assert len(codec.audio(np.zeros(rate // 50, np.int16))) == rate // 25
    with pytest.raises(ValueError, match="samples"):
        codec.audio(np.zeros(rate // 50 - 1, np.int16))
    assert json.loads(codec.mark("m")) == {"action": "notify", "payload": {"mark": "m"}}
    assert json.loads(codec.clear()) == {"action": "clear"}


def test_nothing_malformed_raises():
    codec = VonageCodec()
    bad = [b"\x01", "x", '{"event":"websocket:connected"}', '{"event":"websocket:dtmf"}', "null"]
    for message in bad:
        assert list(codec.receive(message)) == []
    assert codec.malformed == len(bad)
