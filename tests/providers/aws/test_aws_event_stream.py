import asyncio
import io
import struct
from datetime import UTC, datetime
from types import SimpleNamespace
from zlib import crc32

import pytest

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")

from aws_sdk_bedrock_runtime.models import (
    BidirectionalInputPayloadPart,
    InvokeModelWithBidirectionalStreamInputChunk,
)
from aws_sdk_signers import AsyncEventSigner, AWSCredentialIdentity, SigV4SigningProperties
from hypothesis import given
from hypothesis import strategies as st
from smithy_aws_event_stream._private.serializers import EventSerializer
from smithy_aws_event_stream.events import (
    Byte,
    Event,
    EventHeaderEncoder,
    EventMessage,
    Long,
    Short,
)
from smithy_json import JSONCodec

from duologue.providers.aws._event_stream import (
    MAX_MESSAGE_BYTES,
    SIGNATURE_BYTES,
    EventSigner,
    FramingError,
    MessageDecoder,
    encode_event,
    encode_message,
)

KEY = "made up"
SEED = "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"
AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=AKIDTEST/20261130/eu-north-1/bedrock/aws4_request, "
    f"SignedHeaders=host;x-amz-date, Signature={SEED}"
)
BEFORE_MIDNIGHT = datetime(2026, 11, 30, 23, 59, 58, 500000, UTC).timestamp()


def sdk_event(event):
    """Return what the SDK sends for an event, unsigned."""
    serializer = EventSerializer(payload_codec=JSONCodec(), is_client_mode=True)
    part = BidirectionalInputPayloadPart(bytes_=event)
    InvokeModelWithBidirectionalStreamInputChunk(value=part).serialize(serializer)
    return serializer.get_result()


async def sdk_signed(events, times, monkeypatch):
    """Return what the SDK sends for these events at these times, and then to end the stream."""
    signer = AsyncEventSigner(initial_signature=SEED.encode(), event_encoder_cls=EventHeaderEncoder)
    identity = AWSCredentialIdentity(access_key_id="AKIDTEST", secret_access_key=KEY)
    properties = SigV4SigningProperties(region="eu-north-1", service="bedrock")
    dates = iter(times)

    class Dates:
        @staticmethod
        def now(zone):
            return datetime.fromtimestamp(next(dates), zone)

    namespace = SimpleNamespace(datetime=Dates, UTC=UTC)
    monkeypatch.setattr("aws_sdk_signers.signers.datetime", namespace)
    sent = []
    for event in [*events, None]:
        sign = signer.sign if event is not None else signer.sign_empty
        message = EventMessage() if event is None else sdk_event(event)
        sent.append(await sign(event=message, identity=identity, properties=properties))
    monkeypatch.undo()
    return [message.encode() for message in sent]


def signer_at(times):
    clock = iter(times)
    return EventSigner.following(AUTHORIZATION, KEY, lambda: next(clock))


@given(st.binary(max_size=3000))
def test_event_is_encoded_as_by_the_sdk(event):
    assert encode_event(event) == sdk_event(event).encode()


def test_signatures_are_those_of_the_sdk_also_over_midnight(monkeypatch):
    events = [b'{"event":{"audioInput":{"content":"%d"}}}' % n for n in range(200)]
    times = [BEFORE_MIDNIGHT + n * 0.02 for n in range(len(events) + 1)]
    ours = signer_at(times)
    sent = [*(ours.sign(encode_event(event)) for event in events), ours.sign(b"")]
    assert sent == asyncio.run(sdk_signed(events, times, monkeypatch))
    assert all(
        len(one) == len(encode_event(e)) + SIGNATURE_BYTES
        for e, one in zip(events, sent, strict=False)
    )


def test_clock_that_is_set_back_a_day_changes_the_key_again(monkeypatch):
    events = [b"a", b"b", b"c"]
    times = [BEFORE_MIDNIGHT, BEFORE_MIDNIGHT + 10, BEFORE_MIDNIGHT, BEFORE_MIDNIGHT + 20]
    ours = signer_at(times)
    sent = [*(ours.sign(encode_event(event)) for event in events), ours.sign(b"")]
    assert sent == asyncio.run(sdk_signed(events, times, monkeypatch))


@pytest.mark.parametrize(
    "header", ["", "Bearer abc", AUTHORIZATION[:-1], AUTHORIZATION.replace("20261130", "today")]
)
def test_unknown_kind_of_authorization_is_refused(header):
    with pytest.raises(ValueError, match="in an unknown way"):
        EventSigner.following(header, KEY)


HEADER_VALUES = st.one_of(
    st.text(max_size=300),
    st.binary(max_size=300),
    st.booleans(),
    st.integers(-128, 127).map(Byte),
    st.integers(-(2**15), 2**15 - 1).map(Short),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-(2**63), 2**63 - 1).map(Long),
    st.uuids(),
    st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC)),
)
MESSAGES = st.tuples(
    st.dictionaries(st.text(min_size=1, max_size=60), HEADER_VALUES, max_size=6),
    st.binary(max_size=300),
)


@given(st.lists(MESSAGES, max_size=6), st.integers(1, 400))
def test_messages_of_the_sdk_are_decoded_however_they_are_split(messages, size):
    data = b"".join(EventMessage(headers=h, payload=p).encode() for h, p in messages)
    decoder = MessageDecoder()
    found = []
    for begin in range(0, len(data), size):
        decoder.push(data[begin : begin + size])
        while (message := decoder.next_message()) is not None:
            found.append((message.headers, message.payload))
    texts = [({n: v for n, v in h.items() if type(v) is str}, p) for h, p in messages]
    assert found == texts
    assert len(decoder) == 0


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_sdk_decodes_our_messages(payload, text):
    headers = b"\x01a\x06" + struct.pack("!H", len(text)) + text
    event = Event.decode(io.BytesIO(encode_message(headers, payload)))
    assert (event.message.headers, event.message.payload) == ({"a": text}, payload)


def test_part_of_a_message_is_kept_until_the_rest_comes():
    decoder = MessageDecoder()
    message = encode_message(b"", b"x" * 50)
    decoder.push(message[:5])
    assert decoder.next_message() is None
    decoder.push(message[5:40])
    assert decoder.next_message() is None
    assert len(decoder) == 40
    decoder.push(message[40:] + message[:3])
    assert decoder.next_message().payload == b"x" * 50
    assert decoder.next_message() is None
    assert len(decoder) == 3


def prelude(total, headers):
    lengths = struct.pack("!II", total, headers)
    return lengths + struct.pack("!I", crc32(lengths))


def test_every_damaged_byte_is_noticed():
    message = encode_message(b"\x01a\x07\x00\x01b", b"payload")
    for at in range(len(message)):
        decoder = MessageDecoder()
        decoder.push(message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :])
        with pytest.raises(FramingError, match="checksum"):
            decoder.next_message()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (prelude(MAX_MESSAGE_BYTES + 1, 0), "is too long"),
        (prelude(15, 0), "15 bytes can't have 0 of headers"),
        (prelude(100, 85), "100 bytes can't have 85 of headers"),
    ],
)
def test_impossible_lengths_are_refused_before_the_message_has_come(data, words):
    decoder = MessageDecoder()
    decoder.push(data)
    with pytest.raises(FramingError, match=words):
        decoder.next_message()


@pytest.mark.parametrize(
    "headers",
    [
        b"\x05ab",  # a name that is cut off
        b"\x01a",  # no type
        b"\x01a\x0a",  # an unknown type
        b"\x01a\x07\x00",  # half a length
        b"\x01a\x07\x00\x02b",  # a text that is cut off
        b"\x01a\x04\x00\x00\x00",  # an integer that is cut off
        b"\x01a\x07\x00\x01\xff",  # no UTF-8
        b"\x01\xff\x00",  # nor here
        b"\x00\x00",  # no name
        b"\x01a\x00\x01a\x01",  # twice
    ],
)
def test_broken_headers_are_refused(headers):
    decoder = MessageDecoder()
    decoder.push(encode_message(headers, b""))
    with pytest.raises(FramingError, match="header"):
        decoder.next_message()
