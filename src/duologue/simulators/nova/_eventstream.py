"""Encoding and decoding of ``application/vnd.amazon.eventstream`` messages, without I/O.

A message has its length, the length of its headers, a CRC-32 of these two, the headers, the
payload, and a CRC-32 of everything before. All numbers are big-endian.

Source: the Smithy specification of Amazon's event streams.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Size of the largest accepted message."""
MAX_HEADER_BYTES = 128 * 1024
"""Size of the largest accepted headers."""

_PRELUDE = struct.Struct("!III")
_CRC = struct.Struct("!I")
_MIN_MESSAGE_BYTES = _PRELUDE.size + _CRC.size
_INTEGERS = {1: (2, "!b"), 2: (3, "!h"), 4: (4, "!i"), 8: (5, "!q")}
_INTEGER_TYPES = {kind: (size, form) for size, (kind, form) in _INTEGERS.items()}


class FramingError(ValueError):
    """The bytes are not a valid message."""


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer in ``size`` bytes: 1, 2, 4 or 8."""

    value: int
    size: int = 4


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A time in milliseconds since 1970."""

    ms: int


type Value = bool | Integer | bytes | str | Timestamp | UUID


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Its headers keep their order."""

    headers: Mapping[str, Value] = field(default_factory=dict)
    payload: bytes = b""

    def text(self, name: str) -> str:
        """Return a string header; empty if it is missing or of another type."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""


def encode(message: Message) -> bytes:
    """Encode a message. Raises `FramingError` if it is too large."""
    headers = encode_headers(message.headers)
    total = _MIN_MESSAGE_BYTES + len(headers) + len(message.payload)
    if len(headers) > MAX_HEADER_BYTES or total > MAX_MESSAGE_BYTES:
        raise FramingError(f"a message of {total} bytes is too long")
    lengths = struct.pack("!II", total, len(headers))
    head = lengths + _CRC.pack(zlib.crc32(lengths))
    body = head + headers + message.payload
    return body + _CRC.pack(zlib.crc32(body))


def encode_headers(headers: Mapping[str, Value]) -> bytes:
    """Encode headers. Raises `FramingError`."""
    return b"".join(_header(name, value) for name, value in headers.items())


def _header(name: str, value: Value) -> bytes:
    key = name.encode()
    if not 0 < len(key) < 256:
        raise FramingError(f"a header's name must have 1 to 255 bytes, not {len(key)}")
    return bytes((len(key),)) + key + _value(value)


def _value(value: Value) -> bytes:
    match value:
        case bool():
            return b"\x00" if value else b"\x01"
        case Integer(number, size):
            kind, form = _INTEGERS[size]
            return bytes((kind,)) + struct.pack(form, number)
        case bytes():
            return b"\x06" + _with_length(value)
        case str():
            return b"\x07" + _with_length(value.encode())
        case Timestamp(ms):
            return b"\x08" + struct.pack("!q", ms)
        case UUID():
            return b"\x09" + value.bytes


def _with_length(data: bytes) -> bytes:
    if len(data) > 0xFFFF:
        raise FramingError(f"a header's value must have at most 65535 bytes, not {len(data)}")
    return struct.pack("!H", len(data)) + data


class Decoder:
    """Decodes messages from a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        """Return the number of bytes of the incomplete message."""
        return len(self._buffer)

    def push(self, data: bytes) -> list[Message]:
        """Accept the next bytes; return the complete messages. Raises `FramingError`.

        After an error the stream cannot be decoded any further.
        """
        self._buffer += data
        messages = []
        while len(self._buffer) >= _PRELUDE.size:
            total, headers, crc = _PRELUDE.unpack_from(self._buffer)
            if zlib.crc32(self._buffer[:8]) != crc:
                raise FramingError("the checksum of a message's prelude is wrong")
            if (
                not _MIN_MESSAGE_BYTES + headers <= total <= MAX_MESSAGE_BYTES
                or headers > MAX_HEADER_BYTES
            ):
                raise FramingError(f"a message can't have {total} bytes, {headers} of headers")
            if len(self._buffer) < total:
                break
            message = bytes(self._buffer[:total])
            del self._buffer[:total]
            if zlib.crc32(message[:-4]) != _CRC.unpack_from(message, total - 4)[0]:
                raise FramingError("the checksum of a message is wrong")
            start = _PRELUDE.size
            messages.append(
                Message(
                    _read_headers(message[start : start + headers]), message[start + headers : -4]
                )
            )
        return messages


def _read_headers(data: bytes) -> dict[str, Value]:
    headers: dict[str, Value] = {}
    at = 0
    try:
        while at < len(data):
            end = at + 1 + data[at]
            name = data[at + 1 : end].decode()
            value, at = _read_value(data, data[end], end + 1)
            if not name or name in headers:
                raise FramingError(f"a header is repeated, or has no name: {name!r}")
            headers[name] = value
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise FramingError("the headers of a message are broken") from error
    return headers


def _read_value(data: bytes, kind: int, at: int) -> tuple[Value, int]:
    match kind:
        case 0 | 1:
            return kind == 0, at
        case 2 | 3 | 4 | 5:
            size, form = _INTEGER_TYPES[kind]
            return Integer(struct.unpack_from(form, data, at)[0], size), at + size
        case 6 | 7:
            start = at + 2
            end = start + struct.unpack_from("!H", data, at)[0]
            if end > len(data):
                raise FramingError("the headers of a message are broken")
            value = data[start:end]
            return (value if kind == 6 else value.decode()), end
        case 8:
            return Timestamp(struct.unpack_from("!q", data, at)[0]), at + 8
        case 9 if at + 16 <= len(data):
            return UUID(bytes=data[at : at + 16]), at + 16
        case _:
            raise FramingError(f"a header has an unknown type: {kind}")
