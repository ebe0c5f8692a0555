"""Event-stream messages, compared with the official SDK's codec."""

from __future__ import annotations

import datetime as dt
import io
import struct
import zlib
from uuid import UUID

import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from smithy_aws_event_stream.events import Byte, Event, EventMessage, Long, Short

from duologue.simulators.nova import _eventstream
from duologue.simulators.nova._eventstream import (
    Decoder,
    FramingError,
    Integer,
    Message,
    Timestamp,
    encode,
)

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
WHOLES = st.one_of(
    [
        st.builds(
            Integer, st.integers(-(1 << (8 * size - 1)), (1 << (8 * size - 1)) - 1), st.just(size)
        )
        for size in (1, 2, 4, 8)
    ]
)
VALUES = st.one_of(
    st.booleans(),
    WHOLES,
    st.binary(max_size=300),
    st.text(st.characters(codec="utf-8"), max_size=100),
    st.builds(Timestamp, st.integers(-(1 << 63), (1 << 63) - 1)),
    st.uuids(),
)
MESSAGES = st.builds(Message, st.dictionaries(NAMES, VALUES, max_size=6), st.binary(max_size=500))


@settings(max_examples=50)
@given(st.lists(MESSAGES, max_size=4), st.data())
def test_messages_are_decoded_whatever_the_chunks(messages, data):
    stream = b"".join(encode(message) for message in messages)
    decoder, found = Decoder(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += decoder.push(stream[:size])
        stream = stream[size:]
    assert found == messages
    assert len(decoder) == 0


@given(MESSAGES, st.data())
def test_flipped_bit_is_detected(message, data):
    stream = bytearray(encode(message))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(FramingError, match="checksum"):
        Decoder().push(bytes(stream))


SDK_HEADERS = {
    "yes": True,
    "no": False,
    "byte": Byte(-5),
    "short": Short(-300),
    "int": 70000,
    "long": Long(1 << 40),
    "bytes": b"\x00\xff",
    "text": "Grüße",
    "time": dt.datetime(2026, 1, 2, 3, 4, 5, 678000, dt.UTC),
    "id": UUID("12345678-1234-5678-1234-567812345678"),
}
OUR_HEADERS = {
    "yes": True,
    "no": False,
    "byte": Integer(-5, 1),
    "short": Integer(-300, 2),
    "int": Integer(70000, 4),
    "long": Integer(1 << 40, 8),
    "bytes": b"\x00\xff",
    "text": "Grüße",
    "time": Timestamp(1767323045678),
    "id": UUID("12345678-1234-5678-1234-567812345678"),
}


def test_messages_of_the_sdk_are_decoded():
    sdk = EventMessage(headers=SDK_HEADERS, payload=b"payload").encode()
    assert Decoder().push(sdk) == [Message(OUR_HEADERS, b"payload")]
    assert sdk == encode(Message(OUR_HEADERS, b"payload"))


def test_sdk_decodes_encoded_messages():
    event = Event.decode(io.BytesIO(encode(Message(OUR_HEADERS, b"payload"))))
    assert event.message.payload == b"payload"
    assert dict(event.message.headers) == {
        **SDK_HEADERS,
        "byte": -5,
        "short": -300,
        "long": 1 << 40,
    }


def whole(headers: bytes, payload: bytes = b"", total: int | None = None) -> bytes:
    length = 16 + len(headers) + len(payload) if total is None else total
    prelude = struct.pack("!II", length, len(headers))
    body = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return body + struct.pack("!I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (whole(b"\x01a\x0a"), "an unknown type"),
        (whole(b"\x01a\x07\x00\x05abc"), "broken"),
        (whole(b"\x01a\x08\x00"), "broken"),
        (whole(b"\x01a\x09\x00"), "an unknown type"),
        (whole(b"\x09a"), "broken"),
        (whole(b"\x01a\x07\x00\x01\xff"), "broken"),
        (whole(b"\x01a\x00\x01a\x01"), "is repeated"),
        (whole(b"\x00\x00"), "no name"),
        (whole(b"", total=15), "can't have 15 bytes"),
        (whole(b"", total=17 * 1024 * 1024), "can't have"),
        (whole(b"x" * (129 * 1024)), "can't have"),
    ],
)
def test_invalid_messages_are_refused(stream, text):
    with pytest.raises(FramingError, match=text):
        Decoder().push(stream)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Message({"": True}), "1 to 255 bytes"),
        (Message({"n" * 256: True}), "1 to 255 bytes"),
        (Message({"n": "x" * 70000}), "65535"),
        (Message({str(n): "x" * 60000 for n in range(3)}), "too long"),
        (Message({}, bytes(_eventstream.MAX_MESSAGE_BYTES)), "too long"),
    ],
)
def test_impossible_messages_are_not_encoded(message, text):
    with pytest.raises(FramingError, match=text):
        encode(message)
