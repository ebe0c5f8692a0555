"""One HTTP/2 request on a connection of its own, both bodies flowing at once; sans-IO.

The state machines of ``h2`` take 26 us for a DATA frame out and one in, which is every 20 ms of
audio. So the body passes them by, and h2 handles everything else:

    send_data ------------> DATA -----------\\
    acknowledge ----------> WINDOW_UPDATE ----> data_to_send
    open, send_headers, ... --> h2 ---------/

                  /-- DATA of the response ---> bytes
    receive -- frames -- WINDOW_UPDATE -------> `room`
                  \\-- all others --> h2 ------> its events

Flow control is therefore kept here, for both directions: h2 sees neither the data nor the windows.
It has to see that the response has ended, so the end of its last DATA frame is passed on as an
empty one. A response with a status other than 200 or with a ``content-length``, which h2 checks, is
left to h2 altogether: that is a refusal, and short.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import cast

from duologue._optional import optional

with optional("aws"):
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.errors import ErrorCodes
    from h2.events import (
        ConnectionTerminated,
        DataReceived,
        Event,
        RemoteSettingsChanged,
        ResponseReceived,
        StreamEnded,
        StreamReset,
    )
    from h2.exceptions import ProtocolError
    from h2.settings import SettingCodes


type Headers = Sequence[tuple[str, str]]

WINDOW_BYTES = 1 << 20
"""Bytes that the server may send before they are acknowledged: 16 s of audio at 24 kHz."""
_ACKNOWLEDGE_BYTES = WINDOW_BYTES // 4
"""Bytes that are acknowledged together."""
_INITIAL_WINDOW_BYTES = 65535
"""The window that a connection starts with (RFC 9113, 6.9.2)."""
_MAX_WINDOW_BYTES = 2**31 - 1
_MAX_FRAME_BYTES = 16384
"""Bytes of the largest frame that a server may send, as long as we do not ask for more (4.2)."""

_FRAME_HEADER = struct.Struct("!HBBBL")
"""The length in two parts, the type, the flags, and the stream."""
_UINT32 = struct.Struct("!L")
_DATA = 0
_WINDOW_UPDATE = 8
_END_STREAM = 0x1
_PADDED = 0x8


class H2Request:
    """The request and its response, as bytes to send and to receive.

    After each call, send `data_to_send`. Methods that h2's rules forbid raise its `ProtocolError`.
    """

    def __init__(self) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._stream_id = 0
        self._out = bytearray()
        self._received = bytearray()
        self._takes_data = False
        """Whether the response's DATA frames are handled here."""
        self._connection_room = _INITIAL_WINDOW_BYTES
        self._stream_room = 0
        self._receivable = WINDOW_BYTES
        """Bytes that the server may still send."""
        self._acknowledged = 0
        """Bytes for which it has not been given new room yet."""

    def open(self) -> None:
        """Start the connection."""
        self._h2.initiate_connection()
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES})
        self._h2.increment_flow_control_window(WINDOW_BYTES - _INITIAL_WINDOW_BYTES)
        self._take_output()

    def send_headers(self, headers: Headers) -> None:
        """Send the headers of the request."""
        self._stream_id = self._h2.get_next_available_stream_id()
        self._stream_room = self._h2.remote_settings.initial_window_size
        self._h2.send_headers(self._stream_id, headers)
        self._take_output()

    @property
    def room(self) -> int:
        """Bytes of the body that the server's flow control allows; it may be negative."""
        return min(self._connection_room, self._stream_room)

    def send_data(self, data: bytes) -> None:
        """Send bytes of the request's body, no more than `room`."""
        size = self._h2.max_outbound_frame_size
        for at in range(0, len(data), size):
            part = data[at : at + size]
            self._out += _frame_header(_DATA, self._stream_id, len(part))
            self._out += part
        self._connection_room -= len(data)
        self._stream_room -= len(data)

    def end(self) -> None:
        """End the request's body."""
        self._h2.end_stream(self._stream_id)
        self._take_output()

    def cancel(self) -> None:
        """Cancel the request."""
        self._h2.reset_stream(self._stream_id, ErrorCodes.CANCEL)
        self._take_output()

    def ping(self) -> None:
        """Ask the server for a sign of life."""
        self._h2.ping(b"duologue")
        self._take_output()

    def data_to_send(self) -> bytes:
        """Return what has to be sent since the last call."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def acknowledge(self, size: int) -> None:
        """Give the server room for as many bytes of the response as have been read."""
        self._acknowledged += size
        if self._acknowledged < _ACKNOWLEDGE_BYTES:
            return
        more, self._acknowledged = self._acknowledged, 0
        self._receivable += more
        for stream in (0, self._stream_id):
            self._out += _frame_header(_WINDOW_UPDATE, stream, _UINT32.size) + _UINT32.pack(more)

    def receive(self, data: bytes | memoryview) -> Sequence[Event | bytes]:
        """Process received bytes; return h2's events, and the response's body as bytes.

        Raises:
            ProtocolError: The server broke the protocol; what is to be sent tells it so.
        """
        buffer = self._received
        buffer += data
        found: list[Event | bytes] = []
        at = 0
        try:
            while len(buffer) - at >= _FRAME_HEADER.size:
                high, low, kind, flags, stream = _FRAME_HEADER.unpack_from(buffer, at)
                end = at + _FRAME_HEADER.size + (high << 8 | low)
                if end - at > _FRAME_HEADER.size + _MAX_FRAME_BYTES:
                    raise self._violation(ErrorCodes.FRAME_SIZE_ERROR, "a frame is too long")
                if end > len(buffer):
                    break
                frame = bytes(buffer[at:end])
                at = end
                if kind == _DATA and stream == self._stream_id and self._takes_data:
                    found += self._data_received(frame, flags)
                elif kind == _WINDOW_UPDATE and stream in (0, self._stream_id):
                    self._window_updated(frame, stream)
                else:
                    found += self._other_received(frame)
        finally:
            del buffer[:at]
            self._take_output()
        return found

    def _data_received(self, frame: bytes, flags: int) -> Sequence[Event | bytes]:
        size = len(frame) - _FRAME_HEADER.size
        self._receivable -= size
        if self._receivable < 0:
            raise self._violation(ErrorCodes.FLOW_CONTROL_ERROR, "more data than the window takes")
        data = frame[_FRAME_HEADER.size :]
        if flags & _PADDED:
            if not data or data[0] >= size:
                raise self._violation(ErrorCodes.PROTOCOL_ERROR, "a frame of padding only")
            data = data[1 : size - data[0]]
            self.acknowledge(size - len(data))
        if not flags & _END_STREAM:
            return (data,)
        self._takes_data = False
        end = _FRAME_HEADER.pack(0, 0, _DATA, _END_STREAM, self._stream_id)
        return (data, *self._other_received(end))

    def _window_updated(self, frame: bytes, stream: int) -> None:
        if len(frame) != _FRAME_HEADER.size + _UINT32.size:
            raise self._violation(ErrorCodes.FRAME_SIZE_ERROR, "a WINDOW_UPDATE of another length")
        more = _UINT32.unpack_from(frame, _FRAME_HEADER.size)[0] & _MAX_WINDOW_BYTES
        if more == 0:
            raise self._violation(ErrorCodes.PROTOCOL_ERROR, "a WINDOW_UPDATE of nothing")
        if stream:
            self._stream_room += more
        else:
            self._connection_room += more
        if max(self._stream_room, self._connection_room) > _MAX_WINDOW_BYTES:
            raise self._violation(ErrorCodes.FLOW_CONTROL_ERROR, "a window is too large")

    def _other_received(self, frame: bytes) -> Sequence[Event | bytes]:
        found: list[Event | bytes] = []
        for event in self._h2.receive_data(frame):
            match event:
                case DataReceived(data=bytes(data), flow_controlled_length=int(size)):
                    self.acknowledge(size - len(data))
                    found.append(data)
                    continue
                case ResponseReceived(headers=headers):
                    # They are text because the configuration names an encoding.
                    fields = dict(cast("Headers", headers))
                    is_stream = "content-length" not in fields
                    self._takes_data = is_stream and fields[":status"] == "200"
                case RemoteSettingsChanged(changed_settings=changed):
                    window = changed.get(SettingCodes.INITIAL_WINDOW_SIZE)
                    if window is not None and self._stream_id:
                        self._stream_room += window.new_value - (window.original_value or 0)
                case StreamEnded() | StreamReset() | ConnectionTerminated():
                    self._takes_data = False
                case _:
                    pass
            found.append(event)
        return found

    def _violation(self, code: ErrorCodes, what: str) -> ProtocolError:
        self._h2.close_connection(code)
        return ProtocolError(what)

    def _take_output(self) -> None:
        self._out += self._h2.data_to_send()


def _frame_header(kind: int, stream: int, size: int) -> bytes:
    return _FRAME_HEADER.pack(size >> 8, size & 0xFF, kind, 0, stream)
