"""Plivo's messages, with the extra headers in every form that was seen or guessed."""

import base64
import json

import numpy as np
import pytest

from duologue.edges.telephone._formats import AudioFormat
from duologue.edges.telephone._plivo_codec import PlivoCodec
from duologue.edges.telephone._stream import (
    AudioArrived,
    DigitPressed,
    MarkReturned,
    QueueCleared,
    StreamStarted,
    StreamStopped,
)


def start(extra="{}", encoding="audio/x-mulaw", rate=8000):
    fields = {
        "callId": "c1",
        "streamId": "s1",
        "accountId": "a",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": encoding, "sampleRate": rate},
    }
    return {"event": "start", "sequenceNumber": 0, "start": fields, "extra_headers": extra}


def read(message, codec=None):
    return list((codec or PlivoCodec()).receive(json.dumps(message)))


@pytest.mark.parametrize(
    "extra",
    [
        {"X-PH-lang": "en"},
        '{"X-PH-lang": "en"}',
        "{X-PH-lang: en}",
        "lang=en",
        "X-PH-lang=en;",
    ],
)
def test_the_start_of_a_stream(extra):
    assert read(start(extra)) == [
        StreamStarted(call_id="c1", stream_id="s1", parameters={"lang": "en"})
    ]


def test_a_start_without_headers_or_format():
    message = start()
    del message["extra_headers"], message["start"]["mediaFormat"]
    assert read(message) == [StreamStarted(call_id="c1", stream_id="s1")]


def test_audio_digits_checkpoints_and_the_end():
    codec = PlivoCodec()
    payload = base64.b64encode(b"\xff" * 160).decode()
    media = {"track": "inbound", "timestamp": "1750000000000", "chunk": 7, "payload": payload}
    [audio] = read({"event": "media", "streamId": "s1", "media": media}, codec)
    assert isinstance(audio, AudioArrived)
    assert (audio.rate, audio.chunk, audio.timestamp_ms, len(audio.samples)) == (8000, 7, None, 160)
    assert read({"event": "media", "media": media | {"track": "outbound"}}) == []
    assert read({"event": "dtmf", "dtmf": {"digit": "9"}}) == [DigitPressed("9")]
    played = {"event": "playedStream", "streamId": "s1", "name": "0:8"}
    assert read(played) == [MarkReturned("0:8")]
    assert read({"event": "clearedAudio", "streamId": "s1"}) == [QueueCleared()]
    assert read({"event": "stop"}) == [StreamStopped()]


@pytest.mark.parametrize(
    ("audio_format", "content", "data"),
    [
        (AudioFormat("mulaw", 8000), "audio/x-mulaw", b"\xff\xff"),
        (AudioFormat("l16", 16000), "audio/x-l16", b"\0\0\0\0"),
    ],
)
def test_each_message_of_audio_has_its_content_type(audio_format, content, data):
    codec = PlivoCodec(audio_format)
    read(start(encoding=content, rate=audio_format.rate), codec)
    assert codec.output_rate == audio_format.rate
    sent = json.loads(codec.audio(np.zeros(2, np.int16)))
    assert sent["event"] == "playAudio"
    assert sent["media"] == {
        "contentType": content,
        "sampleRate": audio_format.rate,
        "payload": base64.b64encode(data).decode(),
    }
    checkpoint = {"event": "checkpoint", "streamId": "s1", "name": "0:8"}
    assert json.loads(codec.mark("0:8")) == checkpoint
    assert json.loads(codec.clear()) == {"event": "clearAudio", "streamId": "s1"}


def test_nothing_malformed_raises():
    codec = PlivoCodec()
    bad = [b"", "x", '{"event":"media","media":{"payload":1}}', '{"event":"playedStream"}', "3"]
    for message in bad:
        assert list(codec.receive(message)) == []
    assert codec.malformed == len(bad)
