"""Sound as it is on the wire: 16-bit PCM at 24 kHz, or G.711 at 8 kHz."""

from __future__ import annotations

import binascii
from functools import lru_cache

import numpy as np
import pybase64
from numpy.typing import NDArray

from duologue.audio import Resampler, Samples
from duologue.items import Json
from duologue.simulator.fields import int_at, text_at
from duologue.simulator.openai.schema import RATE
from duologue.simulator.openai.shapes import RefusedError

_G711 = ("audio/pcmu", "audio/pcma")
_G711_RATE = 8000


@lru_cache
def _expanded(kind: str) -> Samples:
    """The 256 values of a G.711 byte (ITU-T G.711), as int16."""
    code = np.arange(256)
    if kind == "audio/pcmu":
        code = ~code & 0xFF
        exponent, mantissa = code >> 4 & 7, code & 15
        value = ((mantissa << 3) + 0x84 << exponent) - 0x84
        return np.where(code & 0x80, -value, value).astype(np.int16)
    code = code ^ 0x55
    exponent, mantissa = code >> 4 & 7, code & 15
    value = np.where(
        exponent == 0, (mantissa << 4) + 8, (mantissa << 4) + 0x108 << np.maximum(exponent - 1, 0)
    )
    return np.where(code & 0x80, value, -value).astype(np.int16)


@lru_cache
def _compressed(kind: str) -> NDArray[np.uint8]:
    """The nearest G.711 byte of each int16, by its value plus 32768."""
    values = _expanded(kind).astype(np.int32)
    order = np.argsort(values, kind="stable")
    middles = (values[order][1:] + values[order][:-1]) / 2
    near = np.searchsorted(middles, np.arange(-32768, 32768))
    return order[near].astype(np.uint8)


def _rate_of(audio_format: Json) -> int:
    """Hz of a format on the wire."""
    if text_at(audio_format, "type") in _G711:
        return _G711_RATE
    return int_at(audio_format, "rate", default=RATE)


def bytes_of(text: str, param: str = "audio") -> bytes:
    """What the base64 text of a field says. Raises `RefusedError` when it says nothing."""
    try:
        return bytes(pybase64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise RefusedError(
            "invalid_value", f"Invalid '{param}': it is not valid base64.", param
        ) from None


class AudioDecoder:
    """Reads a stream of base64 texts of one format as int16 at ``rate`` Hz."""

    def __init__(self, audio_format: Json, rate: int = RATE) -> None:
        self._kind = text_at(audio_format, "type")
        self._resampler = Resampler(_rate_of(audio_format), rate)

    def decode(self, text: str) -> Samples:
        """The samples of the next text. Raises `RefusedError` when it is no audio."""
        return self.read(bytes_of(text))

    def read(self, data: bytes) -> Samples:
        """The samples of the next bytes. Raises `RefusedError` when they are no audio."""
        if self._kind in _G711:
            return self._resampler.push(_expanded(self._kind)[np.frombuffer(data, np.uint8)])
        if len(data) % 2:
            raise RefusedError(
                "invalid_value", "Invalid 'audio': PCM takes an even number of bytes.", "audio"
            )
        return self._resampler.push(np.frombuffer(data, "<i2"))

    def flush(self) -> Samples:
        """What it has held back; the next text begins a new stream."""
        return self._resampler.flush()


class AudioEncoder:
    """Writes int16 of one rate as base64 texts of one format."""

    def __init__(self, audio_format: Json, rate: int) -> None:
        self._kind = text_at(audio_format, "type")
        self._resampler = Resampler(rate, _rate_of(audio_format))

    def encode(self, samples: Samples) -> str:
        """The next text; perhaps an empty one."""
        return self._text(self._resampler.push(samples))

    def flush(self) -> str:
        """The last text; perhaps an empty one."""
        return self._text(self._resampler.flush())

    def _text(self, samples: Samples) -> str:
        if self._kind in _G711:
            data = _compressed(self._kind)[samples.astype(np.int32) + 32768].tobytes()
        else:
            data = samples.astype("<i2", copy=False).tobytes()
        return str(pybase64.b64encode_as_string(data))
