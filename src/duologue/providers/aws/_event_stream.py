"""Encodes, signs and decodes the messages of an AWS event stream; sans-IO.

A message of ``application/vnd.amazon.eventstream``, with all numbers big-endian:

    length of the message   4 bytes
    length of the headers   4 bytes
    CRC-32 of both          4 bytes
    headers                 each: length of its name, name, type, value
    payload
    CRC-32 of all before    4 bytes

What the client sends is one message in another. Only the outer one is signed, and its signature
covers that of the message before it; the first covers that of the HTTP request:

    outer message    headers :date, :chunk-signature
      inner message    headers :event-type, :content-type, :message-type
        {"bytes": "..."}    the event in base64

The AWS SDK can do all of this, but needs 100 us for every 20 ms of audio, and that in coroutines:
one session would cost half a percent of a core more. The SDK still makes and signs the request,
and the tests compare every byte here with the SDK's encoder, signer and decoder.

Sources: "Amazon Event Stream Specification" (Smithy), "Signing event stream messages" (in AWS'
pages on Signature Version 4).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from zlib import crc32

from duologue._optional import optional

with optional("aws"):
    import pybase64


MAX_MESSAGE_BYTES = 1 << 19
"""Size of the largest accepted message: half of what the service may send unread."""

_PRELUDE = struct.Struct("!III")
_LENGTHS = struct.Struct("!II")
_UINT32 = struct.Struct("!I")
_UINT16 = struct.Struct("!H")
_INT64 = struct.Struct("!q")
_FRAME_BYTES = _PRELUDE.size + _UINT32.size
"""Bytes of a message that are neither headers nor payload."""
_STRING = 7
_WITH_LENGTH = frozenset({6, _STRING})
"""Types of header values that begin with their length: bytes and strings."""
_VALUE_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of header values by type: the booleans, integers of four sizes, timestamps, UUIDs."""
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/[0-9]{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request,"
    r".*Signature=(?P<signature>[0-9a-f]{64})"
)


class FramingError(ValueError):
    """The bytes are not a valid message."""


@dataclass(frozen=True, slots=True)
class EventMessage:
    """One message; ``headers`` has only those whose value is a string."""

    headers: Mapping[str, str]
    payload: bytes


def encode_message(headers: bytes, payload: bytes) -> bytes:
    """Encode a message, whose headers are encoded already."""
    lengths = _LENGTHS.pack(_FRAME_BYTES + len(headers) + len(payload), len(headers))
    head = b"".join((lengths, _UINT32.pack(crc32(lengths)), headers))
    return b"".join((head, payload, _UINT32.pack(crc32(payload, crc32(head)))))


def _string_header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return b"".join((bytes((len(key),)), key, bytes((_STRING,)), _UINT16.pack(len(text)), text))


_EVENT_HEADERS = b"".join(
    (
        _string_header(":message-type", "event"),
        _string_header(":event-type", "chunk"),
        _string_header(":content-type", "application/json"),
    )
)
_DATE_HEADER = b"\x05:date\x08"
_SIGNATURE_HEADER = b"\x10:chunk-signature\x06\x00\x20"
SIGNATURE_BYTES = _FRAME_BYTES + len(_DATE_HEADER) + _INT64.size + len(_SIGNATURE_HEADER) + 32
"""Bytes that `EventSigner.sign` adds."""


def encode_event(event: bytes) -> bytes:
    """Encode one event, as JSON, for the model; it still has to be signed."""
    return encode_message(
        _EVENT_HEADERS, b"".join((b'{"bytes":"', pybase64.b64encode(event), b'"}'))
    )


class EventSigner:
    """Signs the messages that follow one request, each on top of the one before.

    ``now`` returns the time in seconds since 1970.
    """

    def __init__(
        self,
        secret_access_key: str,
        *,
        region: str,
        service: str,
        signature: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._secret = f"AWS4{secret_access_key}".encode()
        self._region = region
        self._service = service
        self._signature = signature
        self._now = now
        self._second = self._day = -1
        self._key = self._intro = b""

    @classmethod
    def following(
        cls, authorization: str, secret_access_key: str, now: Callable[[], float] = time.time
    ) -> EventSigner:
        """Return the signer for the request with this ``authorization`` header.

        Raises:
            ValueError: The header is not one of Signature Version 4.
        """
        found = _AUTHORIZATION.fullmatch(authorization)
        if found is None:
            raise ValueError("the request is signed in an unknown way")
        return cls(
            secret_access_key,
            region=found["region"],
            service=found["service"],
            signature=found["signature"],
            now=now,
        )

    def sign(self, payload: bytes) -> bytes:
        """Return the signed message around ``payload``; an empty one ends the stream."""
        ms = int(self._now() * 1000)
        if ms // 1000 != self._second:
            self._start_second(ms // 1000)
        date = _DATE_HEADER + _INT64.pack(ms)
        date_hash, payload_hash = hashlib.sha256(date), hashlib.sha256(payload)
        text = f"{self._signature}\n{date_hash.hexdigest()}\n{payload_hash.hexdigest()}"
        signature = hmac.digest(self._key, self._intro + text.encode(), "sha256")
        self._signature = signature.hex()
        return encode_message(b"".join((date, _SIGNATURE_HEADER, signature)), payload)

    def _start_second(self, second: int) -> None:
        """Renew what is signed only with whole seconds, and each day the key."""
        self._second = second
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        scope = (stamp[:8], self._region, self._service, "aws4_request")
        self._intro = f"AWS4-HMAC-SHA256-PAYLOAD\n{stamp}\n{'/'.join(scope)}\n".encode()
        if second // 86400 != self._day:
            self._day = second // 86400
            self._key = self._secret
            for part in scope:
                self._key = hmac.digest(self._key, part.encode(), "sha256")


class MessageDecoder:
    """Decodes messages from bytes that come in pieces; ``len`` is how many are left over.

    After an error the stream can't be decoded any further.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._raw_headers = b""
        self._headers: Mapping[str, str] = {}

    def __len__(self) -> int:
        return len(self._buffer)

    def push(self, data: bytes) -> None:
        """Add received bytes."""
        self._buffer += data

    def next_message(self) -> EventMessage | None:
        """Return the next message, or None if it is not complete.

        Raises:
            FramingError: The bytes are not a valid message.
        """
        buffer = self._buffer
        if len(buffer) < _PRELUDE.size:
            return None
        total, header_bytes, crc = _PRELUDE.unpack_from(buffer)
        if crc32(buffer[: _LENGTHS.size]) != crc:
            raise FramingError("the checksum of a message's prelude is wrong")
        if total > MAX_MESSAGE_BYTES:
            raise FramingError(f"a message of {total} bytes is too long")
        if total < _FRAME_BYTES + header_bytes:
            raise FramingError(f"a message of {total} bytes can't have {header_bytes} of headers")
        if len(buffer) < total:
            return None
        message = bytes(buffer[:total])
        del buffer[:total]
        if crc32(message[: -_UINT32.size]) != _UINT32.unpack_from(message, total - 4)[0]:
            raise FramingError("the checksum of a message is wrong")
        end = _PRELUDE.size + header_bytes
        headers = message[_PRELUDE.size : end]
        if headers != self._raw_headers:  # They are nearly always those of the message before.
            self._headers = _decode_headers(headers)
            self._raw_headers = headers
        return EventMessage(self._headers, message[end : -_UINT32.size])


def _decode_headers(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    names = set()
    at = 0
    try:
        while at < len(data):
            start = at + 1 + data[at]
            name, kind = data[at + 1 : start].decode(), data[start]
            at = start + 1
            if kind in _WITH_LENGTH:
                start = at + _UINT16.size
                at = start + _UINT16.unpack_from(data, at)[0]
            else:
                at += _VALUE_BYTES[kind]
            if at > len(data) or not name or name in names:
                raise FramingError(f"the header {name!r} is cut off or repeated, or has no name")
            names.add(name)
            if kind == _STRING:
                headers[name] = data[start:at].decode()
    except (IndexError, KeyError, struct.error, UnicodeDecodeError) as error:
        raise FramingError("the headers of a message can't be read") from error
    return headers
