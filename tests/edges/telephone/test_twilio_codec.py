"""Twilio's messages, as its documentation has them."""

import base64
import json

import numpy as np

from duologue.edges.telephone._stream import (
    AudioArrived,
    DigitPressed,
    MarkReturned,
    StreamStarted,
    StreamStopped,
)
from duologue.edges.telephone._twilio_codec import TwilioCodec

START = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": "MZ1",
    "start": {
        "streamSid": "MZ1",
        "accountSid": "AC1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"lang": "en", "n": 5, "bad": {}},
    },
}


def media(payload, **more):
    fields = {"track": "inbound", "chunk": "3", "timestamp": "40", "payload": payload} | more
    return {"event": "media", "sequenceNumber": "4", "streamSid": "MZ1", "media": fields}


def read(message, codec=None):
    return list((codec or TwilioCodec()).receive(json.dumps(message)))


def test_the_start_of_a_stream():
    codec = TwilioCodec()
    assert read({"event": "connected", "protocol": "Call", "version": "1.0.0"}, codec) == []
    assert read(START, codec) == [
        StreamStarted(call_id="CA1", stream_id="MZ1", parameters={"lang": "en", "n": "5"})
    ]
    assert codec.malformed == 0


def test_audio_digits_marks_and_the_end():
    [audio] = read(media(base64.b64encode(b"\xff\x00" * 80).decode()))
    assert isinstance(audio, AudioArrived)
    assert (audio.rate, audio.chunk, audio.timestamp_ms) == (8000, 3, 40)
    assert audio.samples[:2].tolist() == [0, -32124]
    assert read(media("////", track="outbound")) == []
    assert read({"event": "dtmf", "dtmf": {"track": "inbound_track", "digit": "5"}}) == [
        DigitPressed("5")
    ]
    assert read({"event": "mark", "mark": {"name": "0:800"}}) == [MarkReturned("0:800")]
    assert read({"event": "stop", "stop": {"callSid": "CA1"}}) == [StreamStopped()]


def test_what_is_sent():
    codec = TwilioCodec()
    read(START, codec)
    sent = json.loads(codec.audio(np.zeros(160, np.int16)))
    assert base64.b64decode(sent["media"].pop("payload")) == b"\xff" * 160
    assert sent == {"event": "media", "streamSid": "MZ1", "media": {}}
    assert json.loads(codec.mark("0:800")) == {
        "event": "mark",
        "streamSid": "MZ1",
        "mark": {"name": "0:800"},
    }
    assert json.loads(codec.clear()) == {"event": "clear", "streamSid": "MZ1"}


def test_nothing_malformed_raises():
    codec = TwilioCodec()
    bad = [
        b"\x00\x01",
        "{",
        "[1]",
        "[" * 20000,
        json.dumps(media("*")),
        json.dumps(media(None)),
        json.dumps(media(5)),
        '{"event":"start"}',
        '{"event":"dtmf","dtmf":{"digit":"12"}}',
        '{"event":"dtmf","dtmf":{"digit":null}}',
        '{"event":"mark","mark":{}}',
        '{"event":"surprise"}',
    ]
    for message in bad:
        assert list(codec.receive(message)) == []
    assert codec.malformed == len(bad)
