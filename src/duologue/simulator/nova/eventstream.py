"""Messages of ``application/vnd.amazon.eventstream``, to bytes and back; no sockets.

A message is its length, the length of its headers, a CRC-32 of these two, the headers, the
payload, and a CRC-32 of all that (all numbers big-endian), as the Smithy specification of Amazon's
event streams has it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

MOST_BYTES = 16 * 1024 * 1024
"""Largest message taken, in bytes."""
MOST_HEADERS = 128 * 1024
"""Largest headers taken, in bytes."""

_PRELUDE = struct.Struct("!III")
_CRC = struct.Struct("!I")
_LEAST = _PRELUDE.size + _CRC.size
_WHOLES = {1: (2, "!b"), 2: (3, "!h"), 4: (4, "!i"), 8: (5, "!q")}
_SIZES = {kind: (size, form) for size, (kind, form) in _WHOLES.items()}


class FramingError(ValueError):
    """The bytes are no messages."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number in ``size`` bytes: 1, 2, 4 or 8."""

    value: int
    size: int = 4


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Milliseconds since 1970."""

    ms: int


type Value = bool | Whole | bytes | str | Timestamp | UUID


@dataclass(frozen=True, slots=True)
class Message:
    """One message; its headers keep their order."""

    headers: Mapping[str, Value] = field(default_factory=dict)
    payload: bytes = b""

    def text(self, name: str) -> str:
        """A header that is a string; empty where it is not."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""


def encode(message: Message) -> bytes:
    """The message as bytes. Raises `FramingError` when it can't be one."""
    headers = encode_headers(message.headers)
    total = _LEAST + len(headers) + len(message.payload)
    if len(headers) > MOST_HEADERS or total > MOST_BYTES:
        raise FramingError(f"a message of {total} bytes is too long")
    lengths = struct.pack("!II", total, len(headers))
    head = lengths + _CRC.pack(zlib.crc32(lengths))
    body = head + headers + message.payload
    return body + _CRC.pack(zlib.crc32(body))


def encode_headers(headers: Mapping[str, Value]) -> bytes:
    """Headers as bytes. Raises `FramingError`."""
    return b"".join(_header(name, value) for name, value in headers.items())


def _header(name: str, value: Value) -> bytes:
    key = name.encode()
    if not 0 < len(key) < 256:
        raise FramingError(f"a header's name has 1 to 255 bytes, not {len(key)}")
    return bytes((len(key),)) + key + _value(value)


def _value(value: Value) -> bytes:
    match value:
        case bool():
            return b"\x00" if value else b"\x01"
        case Whole(number, size):
            kind, form = _WHOLES[size]
            return bytes((kind,)) + struct.pack(form, number)
        case bytes():
            return b"\x06" + _sized(value)
        case str():
            return b"\x07" + _sized(value.encode())
        case Timestamp(ms):
            return b"\x08" + struct.pack("!q", ms)
        case UUID():
            return b"\x09" + value.bytes


def _sized(data: bytes) -> bytes:
    if len(data) > 0xFFFF:
        raise FramingError(f"a header's value has at most 65535 bytes, not {len(data)}")
    return struct.pack("!H", len(data)) + data


class Decoder:
    """Takes bytes as they come, and gives whole messages."""

    def __init__(self) -> None:
        self._held = bytearray()

    def __len__(self) -> int:
        """Bytes of a message that is not whole yet."""
        return len(self._held)

    def push(self, data: bytes) -> list[Message]:
        """Take the next bytes; the messages that are whole now. Raises `FramingError`.

        After an error the stream is of no more use.
        """
        self._held += data
        messages = []
        while len(self._held) >= _PRELUDE.size:
            total, headers, crc = _PRELUDE.unpack_from(self._held)
            if zlib.crc32(self._held[:8]) != crc:
                raise FramingError("the checksum of a message's prelude is wrong")
            if not _LEAST + headers <= total <= MOST_BYTES or headers > MOST_HEADERS:
                raise FramingError(f"a message can't have {total} bytes, {headers} of headers")
            if len(self._held) < total:
                break
            whole = bytes(self._held[:total])
            del self._held[:total]
            if zlib.crc32(whole[:-4]) != _CRC.unpack_from(whole, total - 4)[0]:
                raise FramingError("the checksum of a message is wrong")
            start = _PRELUDE.size
            messages.append(
                Message(_read_headers(whole[start : start + headers]), whole[start + headers : -4])
            )
        return messages


def _read_headers(data: bytes) -> dict[str, Value]:
    found: dict[str, Value] = {}
    at = 0
    try:
        while at < len(data):
            end = at + 1 + data[at]
            name = data[at + 1 : end].decode()
            value, at = _read_value(data, data[end], end + 1)
            if not name or name in found:
                raise FramingError(f"a header is there twice, or has no name: {name!r}")
            found[name] = value
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise FramingError("the headers of a message are broken") from error
    return found


def _read_value(data: bytes, kind: int, at: int) -> tuple[Value, int]:
    match kind:
        case 0 | 1:
            return kind == 0, at
        case 2 | 3 | 4 | 5:
            size, form = _SIZES[kind]
            return Whole(struct.unpack_from(form, data, at)[0], size), at + size
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
            raise FramingError(f"a header is of no known type: {kind}")
