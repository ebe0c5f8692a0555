"""The cases of Autobahn's test suite that a client must pass, and websockets as the judge."""

import struct
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from duologue.realtime import _websocket_frames as frames
from duologue.realtime._websocket_frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    BinaryMessage,
    FrameDecoder,
    FrameEncoder,
    decode_close,
    encode_close,
    mask_function,
    mask_slowly,
)

LIMIT = 70_000
CONTINUATION = 0


def frame(opcode, payload=b"", *, final=True, reserved=0, masked=False, length=None):
    """Write a frame as a server would, or as it must not."""
    length = len(payload) if length is None else length
    mask_bit = 0x80 * masked
    head = bytes([0x80 * final | reserved << 4 | opcode])
    if length < 126:
        head += bytes([mask_bit | length])
    elif length < 65536:
        head += bytes([mask_bit | 126]) + struct.pack("!H", length)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", length)
    return head + b"\0\0\0\0" * masked + payload


def feed(decoder, data, *, fast=True):
    """Feed bytes as a connection does: in a buffer that is larger and is used again.

    Without ``fast``, not by the fast way for whole messages.
    """
    buffer = bytearray(b"\xee" * (len(data) + 100))
    buffer[: len(data)] = data
    view = memoryview(buffer)
    message = decoder.whole_message(view, len(data)) if fast else None
    opcode = BINARY if isinstance(message, BinaryMessage) else TEXT
    found = decoder.feed(view, len(data)) if message is None else [(opcode, message)]
    buffer[:] = b"\xee" * len(buffer)
    return found


def decode(*parts, limit=LIMIT, fast=True):
    """Return what comes of the parts, and the code of the error if there is one."""
    decoder = FrameDecoder(limit)
    found = [one for part in parts for one in feed(decoder, part, fast=fast)]
    return found, decoder.error and decoder.error.code


# 1: Framing


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536, LIMIT])
def test_messages_of_all_lengths(opcode, size):
    payload = b"*" * size
    data = frame(opcode, payload)
    assert decode(data) == ([(opcode, payload)], None)
    assert decode(data[:-1], data[-1:]) == ([(opcode, payload)], None)
    if size < 1000:
        assert decode(*(bytes([one]) for one in data)) == ([(opcode, payload)], None)


def whole_message(data, limit=LIMIT, before=b""):
    """Return what the fast way makes of one read."""
    decoder = FrameDecoder(limit)
    feed(decoder, before, fast=False)
    buffer = memoryview(bytearray(data + b"\xee" * 100))
    return decoder.whole_message(buffer, len(data))


@pytest.mark.parametrize("size", [126, 1000, 65535])
def test_one_whole_message_goes_the_fast_way(size):
    text = whole_message(frame(TEXT, b"*" * size))
    assert (type(text), text) == (bytes, b"*" * size)
    binary = whole_message(frame(BINARY, b"\xff" * size))
    assert (type(binary), binary) == (BinaryMessage, b"\xff" * size)


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"*" * 125),
        frame(TEXT, b"*" * 65536),
        frame(BINARY, b"*" * 125),
        frame(BINARY, b"*" * 126, final=False),
        frame(PING, b"*" * 126),
        frame(TEXT, b"*" * 126, final=False),
        frame(TEXT, b"*" * 126, reserved=1),
        frame(TEXT, b"*" * 126, masked=True),
        frame(TEXT, b"*" * 126)[:-1],
        frame(TEXT, b"*" * 126) + b"\x89",
        frame(TEXT, "ä".encode() * 63),
        b"\x81",
        b"",
    ],
)
def test_nothing_else_goes_the_fast_way(data):
    assert whole_message(data) is None


@pytest.mark.parametrize(
    "before",
    [
        b"\x81",  # half a head
        frame(TEXT, b"*" * 300)[:200],
        frame(TEXT, b"*", final=False),
        frame(CLOSE),
        frame(TEXT, b"", reserved=1),
    ],
)
def test_no_message_goes_the_fast_way_within_another_one_or_after_the_end(before):
    assert whole_message(frame(TEXT, b"*" * 126), before=before) is None


def test_a_message_that_is_too_long_does_not_go_the_fast_way():
    assert whole_message(frame(TEXT, b"*" * 1001), limit=1000) is None
    assert whole_message(frame(TEXT, b"*" * 1000), limit=1000) == b"*" * 1000


_reads = st.lists(
    st.builds(
        frame,
        st.sampled_from([TEXT, TEXT, TEXT, BINARY, CONTINUATION, PING, CLOSE]),
        st.sampled_from(
            [b"", b"*" * 125, b"*" * 126, b"a" * 300, "ä".encode() * 70, b"\xff" * 200]
        ),
        final=st.booleans(),
    )
    | st.binary(max_size=8),
    max_size=8,
)


@given(_reads)
def test_the_fast_way_makes_no_difference(reads):
    assert decode(*reads) == decode(*reads, fast=False)


def test_many_messages_in_one_read():
    data = b"".join(frame(TEXT, b"%d" % number) for number in range(100))
    assert decode(data) == ([(TEXT, b"%d" % number) for number in range(100)], None)


def test_messages_are_copied_out_of_the_buffer():
    found, _ = decode(frame(TEXT, b"*" * 200) * 2, frame(BINARY, b"*")[:2], b"*")
    assert found == [(TEXT, b"*" * 200)] * 2 + [(BINARY, b"*")]
    assert all(type(payload) is bytes for _, payload in found)


# 2: Pings and pongs


@pytest.mark.parametrize("opcode", [PING, PONG])
@pytest.mark.parametrize("payload", [b"", b"hello", b"\xff\xfe\0", b"*" * 125])
def test_control_frames_pass(opcode, payload):
    assert decode(frame(opcode, payload)) == ([(opcode, payload)], None)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_control_frames_are_short(opcode):
    assert decode(frame(opcode, b"*" * 126)) == ([], 1002)
    assert decode(frame(opcode, b"*" * 70_000)[:10]) == ([], 1002)


# 3: Reserved bits


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_reserved_bits_are_errors_after_what_came_before(opcode, reserved):
    data = frame(TEXT, b"before") + frame(opcode, b"", reserved=reserved) + frame(TEXT, b"after")
    assert decode(data) == ([(TEXT, b"before")], 1002)


# 4: Opcodes


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
@pytest.mark.parametrize("payload", [b"", b"reserved opcode payload"])
def test_unknown_opcodes_are_errors(opcode, payload):
    data = frame(TEXT, b"before") + frame(opcode, payload) + frame(PING)
    assert decode(data) == ([(TEXT, b"before")], 1002)


def test_a_server_does_not_mask():
    assert decode(frame(TEXT, b"masked", masked=True)) == ([], 1002)


# 5: Fragmentation


def test_fragments_are_joined():
    parts = (
        frame(TEXT, b"frag", final=False),
        frame(CONTINUATION, b"", final=False),
        frame(CONTINUATION, b"ment"),
        frame(BINARY, b"", final=False),
        frame(CONTINUATION, b""),
    )
    expected = [(TEXT, b"fragment"), (BINARY, b"")]
    assert decode(b"".join(parts)) == (expected, None)
    assert decode(*parts) == (expected, None)


def test_control_frames_between_fragments_pass_at_once():
    parts = (
        frame(TEXT, b"frag", final=False),
        frame(PING, b"1"),
        frame(CONTINUATION, b"-", final=False),
        frame(PONG, b"2"),
        frame(CONTINUATION, b"ment"),
    )
    assert decode(*parts) == ([(PING, b"1"), (PONG, b"2"), (TEXT, b"frag-ment")], None)


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_control_frames_have_no_fragments(opcode):
    data = frame(opcode, b"", final=False) + frame(CONTINUATION, b"")
    assert decode(data) == ([], 1002)


@pytest.mark.parametrize("final", [True, False])
def test_a_continuation_needs_a_message(final):
    assert decode(frame(CONTINUATION, b"x", final=final)) == ([], 1002)
    whole = frame(TEXT, b"whole") + frame(CONTINUATION, b"x", final=final)
    assert decode(whole) == ([(TEXT, b"whole")], 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize("size", [1, 300])
def test_a_message_does_not_begin_inside_another(opcode, final, size):
    data = frame(TEXT, b"one", final=False) + frame(opcode, b"2" * size, final=final)
    assert decode(data) == ([], 1002)


# 6: UTF-8


@pytest.mark.parametrize(
    "text", ["", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\0", "\U00010000", "\U0010ffff", "\uffff"]
)
def test_valid_text(text):
    data = text.encode()
    assert decode(frame(TEXT, data)) == ([(TEXT, data)], None)
    assert decode(frame(TEXT, data * 200)) == ([(TEXT, data * 200)], None)
    fragments = [frame(TEXT, b"", final=False)]
    fragments += [frame(CONTINUATION, bytes([one]), final=False) for one in data]
    assert decode(*fragments, frame(CONTINUATION)) == ([(TEXT, data)], None)


INVALID = [
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\x80",
    b"\xce",
    b"\xff" + b"*" * 200,
]


@pytest.mark.parametrize("data", INVALID)
def test_invalid_text_is_an_error_and_binary_is_not(data):
    assert decode(frame(TEXT, b"before") + frame(TEXT, data) + frame(PING)) == (
        [(TEXT, b"before")],
        1007,
    )
    assert decode(frame(TEXT, data[:1], final=False), frame(CONTINUATION, data[1:])) == ([], 1007)
    assert decode(frame(BINARY, data)) == ([(BINARY, data)], None)


# 7: Close


@pytest.mark.parametrize(
    "payload", [b"", b"\x03\xe8", b"\x03\xe8Hello", b"\x03\xe8" + "é".encode() * 61]
)
def test_nothing_follows_a_close_frame(payload):
    decoder = FrameDecoder(LIMIT)
    assert feed(decoder, frame(CLOSE, payload) + frame(TEXT, b"after")) == [(CLOSE, payload)]
    assert decoder.closed
    assert feed(decoder, frame(PING)) == []
    assert decoder.error is None


def test_a_close_frame_between_fragments_is_a_clean_close():
    parts = frame(TEXT, b"a", final=False), frame(CLOSE, b"\x03\xe8"), frame(CONTINUATION, b"b")
    assert decode(*parts) == ([(CLOSE, b"\x03\xe8")], None)


VALID_CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]


@pytest.mark.parametrize("code", VALID_CODES)
def test_valid_close_codes(code):
    payload = encode_close(code, "why")
    assert decode(frame(CLOSE, payload)) == ([(CLOSE, payload)], None)
    assert decode_close(payload) == (code, "why")
    assert payload == Close(code, "why").serialize()


@pytest.mark.parametrize(
    "code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
)
def test_invalid_close_codes(code):
    assert decode(frame(CLOSE, encode_close(code))) == ([], 1002)


def test_malformed_close_frames():
    assert decode(frame(CLOSE, b"\x03")) == ([], 1002)
    assert decode(frame(CLOSE, b"\x03\xe8\xce\xba\xe1\xbd\xb9\xed\xa0\x80")) == ([], 1007)


def test_a_close_frame_without_a_code_has_the_code_of_none():
    assert decode_close(b"") == (1005, "")


def test_a_reason_that_is_too_long_is_cut_between_characters():
    payload = encode_close(1000, "é" * 100)
    assert len(payload) == 124
    assert decode_close(payload) == (1000, "é" * 61)


# 9: Limits


def test_a_message_that_is_too_long_is_an_error_before_it_arrives():
    assert decode(frame(TEXT, b"", length=LIMIT + 1)) == ([], 1009)
    assert decode(frame(BINARY, b"", length=2**63)) == ([], 1009)
    assert decode(frame(TEXT, b"*" * 200), limit=199) == ([], 1009)
    assert decode(frame(TEXT, b"*" * 200), limit=200) == ([(TEXT, b"*" * 200)], None)


def test_the_limit_is_that_of_all_fragments_together():
    decoder = FrameDecoder(LIMIT)
    assert feed(decoder, frame(TEXT, b"*" * (LIMIT - 1), final=False)) == []
    assert feed(decoder, frame(PING, b"*" * 100)) == [(PING, b"*" * 100)]
    assert feed(decoder, frame(CONTINUATION, b"*", final=False)) == []
    assert feed(decoder, frame(CONTINUATION, b"", final=False)) == []
    assert feed(decoder, frame(CONTINUATION, b"*")) == []
    assert decoder.error.code == 1009


def test_the_next_message_may_be_as_long_again():
    one = frame(TEXT, b"*" * LIMIT, final=False) + frame(CONTINUATION)
    assert decode(one, one) == ([(TEXT, b"*" * LIMIT)] * 2, None)


# Any stream

OPCODES = st.sampled_from([CONTINUATION, TEXT, BINARY, PING, PONG])
TEXTS = st.text(max_size=60).map(str.encode)
PAYLOADS = TEXTS | st.binary(max_size=130) | st.integers(0, 300).map(lambda size: b"*" * size)
CLOSES = st.builds(
    lambda code, reason: frame(CLOSE, code + reason),
    st.sampled_from([b"", b"\x03\xe8", b"\x0f\xa0", b"\x03\xee", b"\x03"]),
    st.sampled_from([b"", b"why", b"\xff"]),
)
GOOD = st.builds(frame, OPCODES, PAYLOADS, final=st.booleans())
ODD = st.builds(
    frame,
    st.integers(0, 15),
    PAYLOADS,
    final=st.booleans(),
    reserved=st.sampled_from([0, 0, 0, 1, 4]),
    masked=st.sampled_from([False, False, True]),
)
STREAMS = st.lists(GOOD | GOOD | GOOD | CLOSES | ODD, max_size=12).map(b"".join)


def split(data, places):
    cuts = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(cuts)]


@settings(max_examples=400)
@given(STREAMS | st.binary(max_size=400), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_split_of_the_stream_gives_the_same(data, places):
    whole = decode(data, limit=250)
    assert decode(*split(data, places), limit=250) == whole


@settings(max_examples=400)
@given(st.lists(st.binary(max_size=300), max_size=6))
def test_random_bytes_raise_nothing(parts):
    found, code = decode(*parts, limit=1000)
    assert code in (None, 1002, 1007, 1009)
    assert all(isinstance(payload, bytes) for _, payload in found)


def judge(data):
    """Return what a client of websockets makes of a stream: messages, and its close code."""
    client = Protocol(CLIENT, max_size=None)
    client.receive_data(data)
    found, opcode, message = [], None, b""
    for event in client.events_received():
        if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            opcode = event.opcode if event.opcode is not Opcode.CONT else opcode
            message += event.data
            if event.fin:
                found.append((int(opcode), bytes(message)))
                opcode, message = None, b""
        else:
            found.append((int(event.opcode), bytes(event.data)))
    sent = client.close_sent
    has_failed = client.parser_exc is not None
    return found, sent.code if has_failed and sent else None


@settings(max_examples=1000)
@given(STREAMS)
def test_websockets_reads_random_streams_alike(data):
    found, code = decode(data, limit=2**40)
    expected, expected_code = judge(data)
    # It leaves the text to its caller, who decodes each message.
    for place, (opcode, payload) in enumerate(expected):
        if opcode == TEXT and not is_utf8(payload):
            expected, expected_code = expected[:place], 1007
            break
    if (CLOSE, found[-1][1] if found else b"") in found[-1:] and expected_code == 1002:
        # It takes a close frame between fragments for an error (RFC 6455, 5.4, allows it).
        found, code = found[:-1], 1002
    assert (found, code) == (expected, expected_code)


def is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# Sending


@pytest.mark.parametrize("masks_in_c", [True, False])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 125, 126, 127, 1400, 65535, 65536, 100_000])
def test_a_server_reads_what_is_sent(monkeypatch, masks_in_c, size):
    if not masks_in_c:
        monkeypatch.setattr(frames, "mask_function", lambda: mask_slowly)
    encode = FrameEncoder().encode
    payload = bytes(number * 7 % 256 for number in range(size))
    server = Protocol(SERVER, max_size=None)
    server.receive_data(encode(BINARY, payload) + encode(TEXT, b"text"))
    one, two = server.events_received()
    assert (one.opcode, one.data, one.fin) == (Opcode.BINARY, payload, True)
    assert (two.opcode, two.data) == (Opcode.TEXT, b"text")


def test_each_frame_has_a_key_of_its_own():
    encode = FrameEncoder().encode
    keys = {encode(PING, b"")[2:6] for _ in range(1000)}
    assert len(keys) > 990


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_both_ways_of_masking_agree(data, mask):
    masked = mask_slowly(data, mask)
    assert masked == bytes(one ^ mask[place % 4] for place, one in enumerate(data))
    assert masked == mask_function()(data, mask)


def test_masking_does_without_websockets(monkeypatch):
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    assert mask_function.__wrapped__() is mask_slowly
