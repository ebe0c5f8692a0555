"""Telnyx's messages: the stream's id is at the top, the call's within ``start``."""

import base64
import json

import numpy as np
import pytest

from duologue.edges.telephone._formats import AudioFormat
from duologue.edges.telephone._stream import (
    AudioArrived,
    DigitPressed,
    MarkReturned,
    StreamFailed,
    StreamStarted,
    StreamStopped,
)
from duologue.edges.telephone._telnyx_codec import TelnyxCodec


def start(encoding="PCMU", rate=8000, **more):
    fields = {
        "user_id": "u",
        "call_control_id": "v3:abc",
        "from": "+1",
        "to": "+2",
        "custom_parameters": {"lang": "en"},
        "media_format": {"encoding": encoding, "sample_rate": rate, "channels": 1},
    } | more
    return {"event": "start", "sequence_number": "1", "stream_id": "s1", "start": fields}


def read(message, codec=None):
    return list((codec or TelnyxCodec()).receive(json.dumps(message)))


def media(data, **more):
    payload = base64.b64encode(data).decode()
    fields = {"track": "inbound", "chunk": "2", "timestamp": "20", "payload": payload} | more
    return {"event": "media", "stream_id": "s1", "media": fields}


def test_the_start_of_a_stream():
    codec = TelnyxCodec()
    assert read({"event": "connected", "version": "1.0.0"}, codec) == []
    assert read(start(), codec) == [
        StreamStarted(
            call_id="v3:abc", stream_id="s1", caller="+1", called="+2", parameters={"lang": "en"}
        )
    ]
    assert read(start(media_format=None), codec)


@pytest.mark.parametrize(
    ("encoding", "rate", "output", "data", "samples"),
    [
        ("PCMU", 8000, AudioFormat("mulaw", 8000), b"\xff\x00", [0, -32124]),
        ("PCMA", "8000", AudioFormat("alaw", 8000), b"\xd5\x55", [8, -8]),
        ("L16", 16000, AudioFormat("l16be", 16000), b"\x01\x02", [0x0102]),
        ("L16", 16000, AudioFormat("l16", 16000), b"\x01\x02", [0x0201]),
    ],
)
def test_the_codec_of_the_call_is_followed(encoding, rate, output, data, samples):
    codec = TelnyxCodec(output)
    assert codec.output_rate == output.rate
    read(start(encoding, rate), codec)
    [audio] = read(media(data), codec)
    assert isinstance(audio, AudioArrived)
    assert (audio.samples.tolist(), audio.chunk, audio.timestamp_ms) == (samples, 2, 20)
    payload = json.loads(codec.audio(np.array(samples, np.int16)))["media"]["payload"]
    assert base64.b64decode(payload) == data


def test_a_codec_that_is_not_ours_ends_the_stream_with_a_sentence():
    [failed] = read(start("AMR-WB", 16000))
    assert failed == StreamFailed(
        "the caller's audio is AMR-WB at 16000 Hz, which is not supported"
    )
    [failed] = read(start("PCMU", True))
    assert "not supported" in failed.message


def test_digits_marks_errors_and_the_end():
    assert read({"event": "dtmf", "dtmf": {"digit": "#"}}) == [DigitPressed("#")]
    assert read({"event": "mark", "mark": {"name": "x"}}) == [MarkReturned("x")]
    error = {"code": 100004, "title": "Invalid media", "detail": "too short"}
    assert read({"event": "error", "payload": error}) == [StreamFailed("Invalid media: too short")]
    assert read({"event": "error", "payload": {"code": 7}}) == [StreamFailed("7")]
    assert read({"event": "stop", "stop": {}}) == [StreamStopped()]
    assert read(media(b"\xff", track="outbound")) == []


def test_what_is_sent_names_no_stream():
    codec = TelnyxCodec()
    assert json.loads(codec.mark("0:8")) == {"event": "mark", "mark": {"name": "0:8"}}
    assert json.loads(codec.clear()) == {"event": "clear"}


def test_nothing_malformed_raises():
    codec = TelnyxCodec(AudioFormat("l16", 16000))
    read(start("L16", 16000), codec)
    bad = [b"\x00", "nothing", json.dumps(media(b"\x01")), '{"event":"start","start":{}}', "{}"]
    for message in bad:
        assert list(codec.receive(message)) == []
    assert codec.malformed == len(bad)
