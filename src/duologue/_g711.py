"""G.711, the audio of telephones: a byte for each sample at 8 kHz, mu-law or A-law.

`encode` is the exact inverse of `decode`: audio of a call that is decoded, looked at and encoded
again leaves as the bytes that came. Each is one look-up in a table.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

from duologue._numpy import np
from duologue.audio import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

type Law = Literal["mulaw", "alaw"]

RATE = 8000
"""Samples, and bytes, in a second."""


def decode(data: bytes | bytearray | memoryview, law: Law) -> Samples:
    """Return the int16 sample of each byte."""
    return decode_table(law).take(np.frombuffer(data, np.uint8))


def encode(samples: Samples, law: Law) -> bytes:
    """Return the nearest byte of each int16 sample."""
    return encode_table(law).take(samples.view(np.uint16)).tobytes()


class G711Decoder:
    """Decodes a stream of G.711, as `duologue.audio.PcmDecoder` does one of PCM."""

    __slots__ = ("_table",)

    def __init__(self, law: Law) -> None:
        self._table = decode_table(law)

    def whole(self, data: bytes) -> Samples | None:
        """Return the samples of ``data``; None if there are none."""
        return self._table.take(np.frombuffer(data, np.uint8)) if data else None

    def push(self, data: bytes) -> Samples:
        """Return the samples of the next bytes."""
        return self._table.take(np.frombuffer(data, np.uint8))


@cache
def decode_table(law: Law) -> Samples:
    """Return the samples that the 256 bytes stand for (ITU-T G.711), each another one."""
    code = np.arange(256)
    if law == "mulaw":
        code = ~code & 0xFF
        exponent, mantissa = code >> 4 & 7, code & 15
        value = ((mantissa << 3) + 0x84 << exponent) - 0x84
        samples: Samples = np.where(code & 0x80, -value, value).astype(np.int16)
        # The standard has two zeros. The negative one keeps its byte as the sample -1.
        samples[0x7F] = -1
        return samples
    code = code ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    value = np.where(
        exponent == 0, (mantissa << 4) + 8, (mantissa << 4) + 0x108 << np.maximum(exponent - 1, 0)
    )
    return np.where(code & 0x80, value, -value).astype(np.int16)


@cache
def encode_table(law: Law) -> NDArray[np.uint8]:
    """Return the nearest byte of each sample, in the order of uint16."""
    values = decode_table(law).astype(np.int32)
    order = np.argsort(values, kind="stable")
    middles = (values[order][1:] + values[order][:-1]) / 2
    samples = np.arange(1 << 16, dtype=np.uint16).view(np.int16)
    table: NDArray[np.uint8] = order[np.searchsorted(middles, samples)].astype(np.uint8)
    return table
