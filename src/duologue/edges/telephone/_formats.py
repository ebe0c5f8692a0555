"""Audio as carriers encode it: G.711, or 16-bit PCM in either byte order."""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import Literal

from duologue import _g711
from duologue._numpy import np
from duologue.audio import Samples

type Encoding = Literal["mulaw", "alaw", "l16", "l16be"]


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """An encoding and its rate in Hz; ``l16`` is little-endian, ``l16be`` big-endian."""

    encoding: Encoding
    rate: int

    def decode(self, data: bytes) -> Samples | None:
        """Return the samples of a payload; None if it has half a sample."""
        match self.encoding:
            case "mulaw" | "alaw":
                return _g711.decode(data, self.encoding)
            case "l16" | "l16be":
                if len(data) % 2:
                    return None
                order = "<i2" if self.encoding == "l16" else ">i2"
                return np.frombuffer(data, order).astype(np.int16, copy=False)

    def encode(self, samples: Samples) -> bytes:
        """Return the payload of int16 samples."""
        match self.encoding:
            case "mulaw" | "alaw":
                return _g711.encode(samples, self.encoding)
            case "l16":
                return samples.astype("<i2", copy=False).tobytes()
            case "l16be":
                return samples.astype(">i2").tobytes()

    def decode_base64(self, text: object) -> Samples | None:
        """Return the samples of a payload in base64; None if it is not one."""
        if not isinstance(text, str):
            return None
        try:
            return self.decode(binascii.a2b_base64(text, strict_mode=True))
        except (binascii.Error, ValueError):
            return None

    def encode_base64(self, samples: Samples) -> str:
        """Return the payload of int16 samples in base64."""
        return binascii.b2a_base64(self.encode(samples), newline=False).decode("ascii")


MULAW = AudioFormat("mulaw", 8000)


def format_of(encoding: object, rate: object, *, l16: Encoding = "l16") -> AudioFormat | None:
    """Return the format that a carrier names; None if it is not one of ours.

    Args:
        encoding: Such as ``audio/x-mulaw``, ``PCMU`` or ``L16``.
        rate: Hz, as a number or as its text.
        l16: What 16-bit PCM means for this carrier.
    """
    hz = whole_number(rate)
    if not isinstance(encoding, str) or hz is None or not 8000 <= hz <= 48000:
        return None
    name = encoding.lower().removeprefix("audio/").removeprefix("x-")
    match name:
        case "mulaw" | "pcmu":
            return AudioFormat("mulaw", hz)
        case "alaw" | "pcma":
            return AudioFormat("alaw", hz)
        case "l16" | "raw":
            return AudioFormat(l16, hz)
        case _:
            return None


def whole_number(value: object) -> int | None:
    """Return a number that carriers write as a number or as a text; None if it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return None
