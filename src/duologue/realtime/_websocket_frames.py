"""WebSocket frames as a client reads and writes them (RFC 6455, section 5), sans-IO.

    bytes from the socket --> FrameDecoder.feed --> [(TEXT, payload), (PING, payload), ...]
    payload --> FrameEncoder.encode --> bytes for the socket, masked

A message comes out whole: the decoder joins its fragments, and passes on control frames that stand
between them at once. How the bytes were split on their way never makes a difference.

`feed` gets a part of a buffer that all connections share. So it copies what it returns, and keeps
the beginning of a frame whose end has not arrived. In the usual case a read holds one whole frame,
and nothing else is copied.

Nearly all that a server sends is audio: one frame of some hundred bytes, read at once.
`FrameDecoder.whole_message` is the fast way for these. It changes no state, and returns None for
everything else, which `feed` then decodes.

The decoder never raises. When the server breaks the protocol, `FrameDecoder.error` says how, and
with which close code to end the connection (7.1.7), and everything that follows is ignored, as it
is after a close frame (1.4). What came before the error is still returned.

Stricter than needed nowhere, with two exceptions for our own sake: messages have a maximum length,
and text is checked when it is complete, not fragment by fragment (8.1 leaves that open).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, repeat

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_CONTINUATION = 0x0

NORMAL, PROTOCOL_ERROR, INVALID_DATA, MESSAGE_TOO_BIG, INTERNAL_ERROR = 1000, 1002, 1007, 1009, 1011
NO_STATUS, ABNORMAL = 1005, 1006
"""Codes that stand for a close frame without a code, and for no close frame. Neither is sent."""

_FINAL = 0x80
_RESERVED = 0x70
_MASKED = 0x80
_LENGTH_16 = 126
_LENGTH_64 = 127
MAX_CONTROL_BYTES = 125
_WHOLE_TEXT = (_FINAL | TEXT) << 8 | _LENGTH_16
_WHOLE_BINARY = (_FINAL | BINARY) << 8 | _LENGTH_16
"""The first two bytes of an unfragmented message of 126 to 65535 bytes."""
_unpack_head = struct.Struct("!HH").unpack_from
_SENDABLE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
_MASKS_AT_ONCE = 64
"""Masking keys that are read from the system's generator at a time, at a fifth of the cost."""

type Frame = tuple[int, bytes]
"""An opcode and a payload: a whole message or a control frame."""


class BinaryMessage(bytes):
    """The payload of a binary frame; messages of plain bytes are text frames.

    ``orjson`` parses no subclass of bytes; give it a ``memoryview`` of the message.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class FrameError:
    """How the server broke the protocol; ``code`` is that of the close frame in response."""

    code: int
    reason: str


class FrameDecoder:
    """Decodes what a server sends.

    Args:
        max_message_bytes: maximum length of a message, over all of its fragments.

    Attributes:
        error: how the server broke the protocol; None as long as it did not.
        closed: whether a close frame or an error has ended the stream.
    """

    __slots__ = (
        "_at_start",
        "_held",
        "_max_bytes",
        "_message",
        "_missing",
        "_opcode",
        "closed",
        "error",
    )

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes
        self._held = bytearray()
        """The beginning of a frame whose end has not arrived."""
        self._missing = 0
        """How many bytes must at least arrive before the held frame can be read any further."""
        self._opcode = 0
        """That of the message whose fragments are arriving; 0 if there is none."""
        self._message = bytearray()
        """The fragments that have arrived."""
        self.error: FrameError | None = None
        self.closed = False
        self._at_start = True
        """Whether the next byte begins a message, and the stream has not ended."""

    def whole_message(self, data: memoryview, size: int) -> bytes | None:
        """Return the message that the first ``size`` bytes are, if they are exactly one frame.

        Of 126 to 65535 bytes of ASCII text, or of a `BinaryMessage`. None, as if it had not been
        called, for all that `feed` has to see. ``data`` has at least four bytes, of which only the
        first ``size`` matter.
        """
        head, length = _unpack_head(data)
        if size == length + 4 and self._at_start and length <= self._max_bytes:
            if head == _WHOLE_TEXT:
                payload = data[4:size].tobytes()
                return payload if payload.isascii() else None
            if head == _WHOLE_BINARY:
                return BinaryMessage(data[4:size])
        return None

    def feed(self, data: memoryview, size: int) -> list[Frame]:
        """Return the frames that the first ``size`` bytes of ``data`` complete."""
        if self.closed:
            return []
        if not self._held:
            frames = self._decode(data, size)
        else:
            self._held += data[:size]
            self._missing -= size
            if self._missing > 0:
                return []
            held, self._held = self._held, bytearray()
            frames = self._decode(memoryview(held), len(held))
        self._at_start = not (self._held or self._opcode or self.closed)
        return frames

    def _decode(self, data: memoryview, size: int) -> list[Frame]:
        """Read frames until one is incomplete, which is kept, or the stream ends."""
        frames: list[Frame] = []
        at = 0
        while not self.closed:
            left = size - at
            needed = 2
            if left >= 2:
                first, second = data[at], data[at + 1]
                length, head = second & 0x7F, 2
                if length == _LENGTH_16:
                    head = 4
                elif length == _LENGTH_64:
                    head = 10
                needed = head
                if left >= head:
                    if head > 2:
                        length = int.from_bytes(data[at + 2 : at + head])
                    if not self._check_head(first, second, length):
                        break
                    needed = head + length
            if left < needed:
                self._held += data[at:size]
                self._missing = needed - left
                break
            at += needed
            self._complete(first, bytes(data[at - length : at]), frames)
        return frames

    def _check_head(self, first: int, second: int, length: int) -> bool:
        opcode = first & 0x0F
        if opcode not in (_CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            return self._fail(PROTOCOL_ERROR, f"unknown opcode {opcode}")
        if first & _RESERVED:
            return self._fail(PROTOCOL_ERROR, "reserved bits are set")
        if second & _MASKED:
            return self._fail(PROTOCOL_ERROR, "a server must not mask its frames")
        if opcode & 0x8:
            if length > MAX_CONTROL_BYTES:
                return self._fail(PROTOCOL_ERROR, "a control frame is too long")
            if not first & _FINAL:
                return self._fail(PROTOCOL_ERROR, "a control frame is fragmented")
            return True
        if opcode and self._opcode:
            return self._fail(PROTOCOL_ERROR, "a message begins inside another one")
        if not opcode and not self._opcode:
            return self._fail(PROTOCOL_ERROR, "a continuation without a message")
        if len(self._message) + length > self._max_bytes:
            return self._fail(MESSAGE_TOO_BIG, f"a message is longer than {self._max_bytes} bytes")
        return True

    def _complete(self, first: int, payload: bytes, frames: list[Frame]) -> None:
        """Take a whole frame, and add to ``frames`` what it completes."""
        opcode = first & 0x0F
        if opcode == CLOSE:
            self.closed = True
            self._release()
            self.error = _check_close(payload)
            if self.error is not None:
                return
        elif opcode < CLOSE:
            if not first & _FINAL:
                self._opcode = opcode or self._opcode
                self._message += payload
                return
            if self._opcode:
                opcode, payload = self._opcode, bytes(self._message + payload)
                self._release()
            if opcode == TEXT and not _is_utf8(payload):
                self._fail(INVALID_DATA, "a text message is not UTF-8")
                return
        frames.append((opcode, payload))

    def _fail(self, code: int, reason: str) -> bool:
        self.closed = True
        self.error = FrameError(code, reason)
        self._release()
        return False

    def _release(self) -> None:
        self._opcode = 0
        self._message = bytearray()


class FrameEncoder:
    """Encodes what a client sends: each frame is masked with an unpredictable key (5.3)."""

    __slots__ = ("_apply_mask", "_masks")

    def __init__(self) -> None:
        self._apply_mask = mask_function()
        self._masks = _fresh_masks()

    def encode(self, opcode: int, payload: bytes) -> bytes:
        """Return a whole frame."""
        (mask,) = next(self._masks)
        length = len(payload)
        masked = self._apply_mask(payload, mask)
        if _LENGTH_16 <= length < 1 << 16:  # Audio, nearly always.
            return _head_16(_FINAL | opcode, _MASKED | _LENGTH_16, length, mask) + masked
        if length < _LENGTH_16:
            return b"%c%c%b%b" % (_FINAL | opcode, _MASKED | length, mask, masked)
        return _head_64(_FINAL | opcode, _MASKED | _LENGTH_64, length, mask) + masked


_head_16 = struct.Struct("!BBH4s").pack
_head_64 = struct.Struct("!BBQ4s").pack


def _fresh_masks() -> Iterator[tuple[bytes]]:
    """Yield masking keys without end."""
    several = (struct.iter_unpack("4s", os.urandom(4 * _MASKS_AT_ONCE)) for _ in repeat(None))
    return chain.from_iterable(several)


@cache
def mask_function() -> Callable[[bytes, bytes], bytes]:
    """Return a function that masks: the one of ``websockets`` in C, if it is installed."""
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        return mask_slowly
    return apply_mask


def mask_slowly(data: bytes, mask: bytes) -> bytes:
    """Return ``data`` with each byte XORed with that of ``mask`` at its place modulo four."""
    size = len(data)
    keys = (mask * (size // 4 + 1))[:size]
    masked = int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")
    return masked.to_bytes(size, "little")


def encode_close(code: int, reason: str = "") -> bytes:
    """Return the payload of a close frame; a reason that is too long is cut."""
    text = reason.encode()[: MAX_CONTROL_BYTES - 2]
    return struct.pack("!H", code) + text.decode(errors="ignore").encode()


def decode_close(payload: bytes) -> tuple[int, str]:
    """Return the code and the reason of a close frame that `FrameDecoder` has let pass."""
    if not payload:
        return NO_STATUS, ""
    return int.from_bytes(payload[:2]), payload[2:].decode()


def _check_close(payload: bytes) -> FrameError | None:
    if not payload:
        return None
    if not _is_utf8(payload[2:]):
        return FrameError(INVALID_DATA, "the reason of a close frame is not UTF-8")
    if len(payload) < 2 or int.from_bytes(payload[:2]) not in _SENDABLE_CODES:
        return FrameError(PROTOCOL_ERROR, "a close frame without a valid code")
    return None


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
