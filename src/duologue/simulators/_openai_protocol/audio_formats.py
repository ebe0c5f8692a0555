"""Audio on the wire: 16-bit PCM at 24 kHz, or G.711 at 8 kHz, in base64."""

from __future__ import annotations

import binascii
from collections.abc import Mapping

import numpy as np
import pybase64

from duologue import _g711
from duologue.audio import Resampler, Samples
from duologue.json_types import Json
from duologue.simulators._fields import int_at, text_at
from duologue.simulators._openai_protocol.refusals import RefusedError
from duologue.simulators._openai_protocol.schema import RATE

_G711: Mapping[str, _g711.Law] = {"audio/pcmu": "mulaw", "audio/pcma": "alaw"}


def _rate_of(audio_format: Json) -> int:
    """Return the Hz of a format on the wire."""
    if text_at(audio_format, "type") in _G711:
        return _g711.RATE
    return int_at(audio_format, "rate", default=RATE)


def decode_base64(text: str, param: str = "audio") -> bytes:
    """Return the bytes of a base64 field.

    Raises:
        RefusedError: The text is not base64.
    """
    try:
        return bytes(pybase64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise RefusedError(
            "invalid_value", f"Invalid '{param}': it is not valid base64.", param
        ) from None


class AudioDecoder:
    """Decodes a stream of base64 texts of one format to int16 at ``rate`` Hz."""

    def __init__(self, audio_format: Json, rate: int = RATE) -> None:
        self._kind = text_at(audio_format, "type")
        self._resampler = Resampler(_rate_of(audio_format), rate)

    def decode(self, text: str) -> Samples:
        """Return the samples of the next text.

        Raises:
            RefusedError: The text is not audio.
        """
        return self.read(decode_base64(text))

    def read(self, data: bytes) -> Samples:
        """Return the samples of the next bytes.

        Raises:
            RefusedError: The bytes are not audio.
        """
        if self._kind in _G711:
            return self._resampler.push(_g711.decode(data, _G711[self._kind]))
        if len(data) % 2:
            raise RefusedError(
                "invalid_value", "Invalid 'audio': PCM takes an even number of bytes.", "audio"
            )
        return self._resampler.push(np.frombuffer(data, "<i2"))

    def flush(self) -> Samples:
        """Return the samples that are held back; the next text starts a new stream."""
        return self._resampler.flush()


class AudioEncoder:
    """Encodes int16 of one rate as base64 texts of one format."""

    def __init__(self, audio_format: Json, rate: int) -> None:
        self._kind = text_at(audio_format, "type")
        self._resampler = Resampler(rate, _rate_of(audio_format))

    def encode(self, samples: Samples) -> str:
        """Return the next text, which may be empty."""
        return self._text(self._resampler.push(samples))

    def flush(self) -> str:
        """Return the last text, which may be empty."""
        return self._text(self._resampler.flush())

    def _text(self, samples: Samples) -> str:
        if self._kind in _G711:
            data = _g711.encode(samples, _G711[self._kind])
        else:
            data = samples.astype("<i2", copy=False).tobytes()
        return str(pybase64.b64encode_as_string(data))
