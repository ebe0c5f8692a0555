"""Media of the client: base64 in either alphabet, PCM of any sample rate, images."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

import numpy as np
import pybase64

from duologue.audio import Resampler, Samples
from duologue.json_types import Json
from duologue.simulators._fields import text_at
from duologue.simulators.gemini._json_shapes import RefusedError
from duologue.simulators.gemini._schema import IN_RATE
from duologue.simulators.gemini._setup import INVALID_ARGUMENT

_RATE = re.compile(r"rate=(\d+)")
_MIN_HZ, _MAX_HZ = 4000, 192_000


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """An image that the client sent."""

    mime: str
    data: bytes


def decode_base64(text: str, path: str) -> bytes:
    """Decode base64, standard or URL-safe, padded or not. Raises `RefusedError`."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return bytes(pybase64.b64decode(standard + "=" * (-len(standard) % 4), validate=True))
    except (binascii.Error, ValueError):
        raise RefusedError(
            f"Invalid value at '{path}' (TYPE_BYTES), Base64 decoding failed"
        ) from None


def decode_image(blob: Json) -> Image:
    """Return the image of a blob. Raises `RefusedError`."""
    mime = text_at(blob, "mimeType")
    if not mime.startswith("image/"):
        raise RefusedError(INVALID_ARGUMENT)
    return Image(mime, decode_base64(text_at(blob, "data"), "realtime_input.video.data"))


class InputAudioDecoder:
    """Decodes a session's input audio, of any sample rate, to int16 at 16 kHz."""

    def __init__(self) -> None:
        self._rate = IN_RATE
        self._resampler = Resampler(IN_RATE, IN_RATE)

    def decode(self, blob: Json) -> Samples:
        """Return the samples of the next blob. Raises `RefusedError` if it is not PCM."""
        mime = text_at(blob, "mimeType").lower()
        if not mime.startswith("audio/pcm"):
            raise RefusedError(INVALID_ARGUMENT)
        match = _RATE.search(mime)
        rate = int(match[1]) if match else IN_RATE
        if not _MIN_HZ <= rate <= _MAX_HZ:
            raise RefusedError(INVALID_ARGUMENT)
        data = decode_base64(text_at(blob, "data"), "realtime_input.audio.data")
        if len(data) % 2:
            raise RefusedError(INVALID_ARGUMENT)
        if rate != self._rate:
            self._rate, self._resampler = rate, Resampler(rate, IN_RATE)
        samples = np.frombuffer(data, "<i2")
        return samples if rate == IN_RATE else self._resampler.push(samples)
