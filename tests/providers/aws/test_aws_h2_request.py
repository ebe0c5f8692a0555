import struct

import pytest

pytest.importorskip("h2", reason="the aws extra is not installed")

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from duologue.providers.aws._h2_request import WINDOW_BYTES, H2Request

HEADERS = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/")]
STREAM = 1
HEADER_BYTES = 9


class Exchange:
    """A request and h2 as its server, whose events are in ``at_server``."""

    def __init__(self, *, settings=None, status="200", fields=(), responds=True):
        self.request = H2Request()
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.at_server = []
        self.request.open()
        self.server.initiate_connection()
        if settings:
            self.server.update_settings(settings)
        self.exchange()
        self.request.send_headers(HEADERS)
        self.exchange()
        if responds:
            self.server.send_headers(STREAM, [(":status", status), *fields])
            self.events = self.exchange()

    def exchange(self):
        """Pass all bytes on, until both sides are silent; return what the client received."""
        found = []
        while True:
            up, down = self.request.data_to_send(), self.server.data_to_send()
            if not up and not down:
                return found
            self.at_server += self.server.receive_data(up)
            found += self.request.receive(down)

    def server_sends(self, data, size=16384, **options):
        for at in range(0, len(data), size):
            self.server.send_data(STREAM, data[at : at + size], **options)
        return self.exchange()

    def violate(self, frame):
        """Pass a frame to the client that it must refuse; return the error it sends."""
        with pytest.raises(ProtocolError) as caught:
            self.request.receive(frame)
        self.at_server += self.server.receive_data(self.request.data_to_send())
        ends = [one for one in self.at_server if isinstance(one, ConnectionTerminated)]
        return str(caught.value), ends[-1].error_code

    @property
    def body(self):
        return b"".join(one.data for one in self.at_server if isinstance(one, DataReceived))

    def acknowledge_body(self):
        for one in self.at_server:
            if isinstance(one, DataReceived):
                self.server.acknowledge_received_data(one.flow_controlled_length, STREAM)
        self.at_server.clear()


def frame(kind, flags, stream, payload):
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def body_of(found):
    return b"".join(one for one in found if isinstance(one, bytes))


def names_of(events):
    return [type(one) for one in events if not isinstance(one, bytes)]


def test_both_bodies_flow_at_the_same_time():
    ours = Exchange()
    assert ResponseReceived in names_of(ours.events)
    for turn in range(20):
        ours.request.send_data(b"up%d" % turn)
        assert ours.server_sends(b"down%d" % turn) == [b"down%d" % turn]
    assert ours.body == b"".join(b"up%d" % turn for turn in range(20))
    ours.request.end()
    ours.exchange()
    assert isinstance(ours.at_server[-1], StreamEnded)
    ours.server.end_stream(STREAM)
    found = ours.exchange()
    assert body_of(found) == b""
    assert names_of(found) == [StreamEnded]


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=20), st.integers(1, 500))
def test_response_is_received_however_it_is_split(parts, size):
    ours = Exchange()
    for part in parts:
        ours.server.send_data(STREAM, part)
        ours.server.ping(b"12345678")
    data = ours.server.data_to_send()
    found = []
    for at in range(0, len(data), size):
        found += ours.request.receive(memoryview(data)[at : at + size])
    assert body_of(found) == b"".join(parts)
    ours.exchange()
    assert names_of(ours.at_server).count(PingAckReceived) == len(parts)


def test_ping_is_answered_by_the_server():
    ours = Exchange()
    ours.request.ping()
    assert names_of(ours.exchange()) == [PingAckReceived]


def test_room_is_what_the_server_grants():
    ours = Exchange()
    assert ours.request.room == 65535
    ours.request.send_data(b"x" * 65535)
    assert ours.request.room == 0
    ours.exchange()
    assert len(ours.body) == 65535
    ours.acknowledge_body()
    ours.exchange()
    assert ours.request.room == ours.server.remote_flow_control_window(STREAM) > 0
    ours.server.increment_flow_control_window(1000)
    ours.exchange()
    before = ours.request.room
    ours.server.increment_flow_control_window(1000, STREAM)
    ours.exchange()
    assert ours.request.room - before in (0, 1000)
    assert ours.request.room == ours.server.remote_flow_control_window(STREAM)


def test_room_follows_the_servers_settings_before_and_after_the_request():
    window = SettingCodes.INITIAL_WINDOW_SIZE
    ours = Exchange(settings={window: 1000})
    assert ours.request.room == 1000
    ours.request.send_data(b"x" * 600)
    ours.exchange()
    ours.server.update_settings({window: 5000})
    ours.exchange()
    assert ours.request.room == 4400
    ours.server.update_settings({window: 100})
    ours.exchange()
    assert ours.request.room == -500
    ours.server.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 7})
    ours.exchange()
    assert ours.request.room == -500


def test_frames_are_as_large_as_the_server_takes():
    ours = Exchange(settings={SettingCodes.MAX_FRAME_SIZE: 20000})
    ours.request.send_data(b"x" * 50000)
    ours.exchange()
    sizes = [len(one.data) for one in ours.at_server if isinstance(one, DataReceived)]
    assert sizes == [20000, 20000, 10000]


def test_server_gets_room_only_for_what_has_been_acknowledged():
    ours = Exchange()
    assert ours.server.local_flow_control_window(STREAM) == WINDOW_BYTES
    assert len(body_of(ours.server_sends(b"x" * WINDOW_BYTES))) == WINDOW_BYTES
    assert ours.server.local_flow_control_window(STREAM) == 0
    ours.request.acknowledge(1000)
    ours.exchange()
    assert ours.server.local_flow_control_window(STREAM) == 0  # Too little for a frame.
    ours.request.acknowledge(WINDOW_BYTES - 1000)
    ours.exchange()
    assert ours.server.local_flow_control_window(STREAM) == WINDOW_BYTES
    assert len(body_of(ours.server_sends(b"x" * WINDOW_BYTES))) == WINDOW_BYTES


def test_padding_is_dropped_and_acknowledged():
    ours = Exchange()
    for _ in range(2 * WINDOW_BYTES // 4096):
        found = ours.server_sends(b"x" * 4000, pad_length=95)
        assert found == [b"x" * 4000]
        ours.request.acknowledge(4000)
        ours.exchange()
    assert ours.server.local_flow_control_window(STREAM) > WINDOW_BYTES // 2


def test_end_may_come_with_the_last_data():
    ours = Exchange()
    ours.server.send_data(STREAM, b"last", end_stream=True)
    found = ours.exchange()
    assert body_of(found) == b"last"
    assert names_of(found) == [StreamEnded]
    # What follows is h2's business, which knows that there must not be more.
    assert body_of(ours.request.receive(frame(0, 0, STREAM, b"more"))) == b""
    ours.exchange()
    assert isinstance(ours.at_server[-1], StreamReset)


def test_trailers_end_the_response():
    ours = Exchange()
    ours.server_sends(b"data")
    ours.server.send_headers(STREAM, [("x-amzn-note", "1")], end_stream=True)
    assert names_of(ours.exchange()) == [TrailersReceived, StreamEnded]


def test_reset_and_goaway_are_reported():
    ours = Exchange()
    ours.server.reset_stream(STREAM, ErrorCodes.INTERNAL_ERROR)
    (event,) = ours.exchange()
    assert isinstance(event, StreamReset)
    assert event.error_code == ErrorCodes.INTERNAL_ERROR
    ours = Exchange()
    ours.server.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
    (event,) = ours.exchange()
    assert isinstance(event, ConnectionTerminated)


def test_cancelled_request_is_reset():
    ours = Exchange()
    ours.request.send_data(b"x")
    ours.request.cancel()
    ours.exchange()
    assert names_of(ours.at_server)[-2:] == [DataReceived, StreamReset]


@pytest.mark.parametrize(
    ("status", "fields"), [("403", ()), ("200", [("content-length", "40000")])]
)
def test_other_responses_are_left_to_h2(status, fields):
    ours = Exchange(status=status, fields=fields)
    found = ours.server_sends(b"x" * 40000, size=16000, pad_length=10)
    ours.server.end_stream(STREAM)
    found += ours.exchange()
    assert body_of(found) == b"x" * 40000
    assert names_of(found) == [StreamEnded]


def test_wrong_content_length_is_refused():
    ours = Exchange(fields=[("content-length", "10")])
    data = frame(0, 1, STREAM, b"only this")
    with pytest.raises(ProtocolError):
        ours.request.receive(data)


def test_data_before_the_response_is_refused():
    ours = Exchange(responds=False)
    with pytest.raises(ProtocolError):
        ours.request.receive(frame(0, 0, STREAM, b"early"))


WINDOW_UPDATE = 8


@pytest.mark.parametrize(
    ("data", "words", "code"),
    [
        (frame(9, 0, STREAM, b"x" * 16385), "too long", ErrorCodes.FRAME_SIZE_ERROR),
        (frame(0, 8, STREAM, b""), "padding only", ErrorCodes.PROTOCOL_ERROR),
        (frame(0, 8, STREAM, b"\x03xyz"), None, None),
        (frame(0, 8, STREAM, b"\x04xyz"), "padding only", ErrorCodes.PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, b"\0\0\0"), "another length", ErrorCodes.FRAME_SIZE_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0"), "of nothing", ErrorCodes.PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, STREAM, b"\x80\0\0\0"), "of nothing", ErrorCodes.PROTOCOL_ERROR),
        (
            frame(WINDOW_UPDATE, 0, STREAM, b"\x7f\xff\xff\xff"),
            "too large",
            ErrorCodes.FLOW_CONTROL_ERROR,
        ),
        (
            frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"),
            "too large",
            ErrorCodes.FLOW_CONTROL_ERROR,
        ),
    ],
)
def test_violations_end_the_connection_with_their_code(data, words, code):
    ours = Exchange()
    if words is None:
        assert body_of(ours.request.receive(data)) == b""
    else:
        text, found = ours.violate(data)
        assert words in text
        assert found == code


def test_data_beyond_the_window_is_refused():
    ours = Exchange()
    ours.server_sends(b"x" * (WINDOW_BYTES - 10))
    text, code = ours.violate(frame(0, 0, STREAM, b"x" * 11))
    assert "more data than the window takes" in text
    assert code == ErrorCodes.FLOW_CONTROL_ERROR


def test_too_long_frame_is_refused_before_all_of_it_has_come():
    ours = Exchange()
    assert ours.violate(frame(0, 0, STREAM, b"x" * 16385)[: HEADER_BYTES + 5])[1]


def test_frame_of_an_unknown_type_or_stream_is_h2s_business():
    ours = Exchange()
    ours.request.receive(frame(200, 0, STREAM, b"extension"))
    with pytest.raises(ProtocolError):
        ours.request.receive(frame(WINDOW_UPDATE, 0, 5, b"\0\0\0\1"))
