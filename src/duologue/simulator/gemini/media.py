"""Media as it comes: base64 in either alphabet, PCM of any rate, pictures."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

import numpy as np
import pybase64

from duologue.audio import Resampler, Samples
from duologue.items import Json
from duologue.simulator.fields import text_at
from duologue.simulator.gemini.schema import IN_RATE
from duologue.simulator.gemini.setup import GENERAL
from duologue.simulator.gemini.shapes import RefusedError

_RATE = re.compile(r"rate=(\d+)")
_LEAST_HZ, _MOST_HZ = 4000, 192_000


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """A picture that the client sent."""

    mime: str
    data: bytes


def decode(text: str, path: str) -> bytes:
    """The bytes of base64, standard or URL-safe, padded or not. Raises `RefusedError`."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return bytes(pybase64.b64decode(standard + "=" * (-len(standard) % 4), validate=True))
    except (binascii.Error, ValueError):
        raise RefusedError(
            f"Invalid value at '{path}' (TYPE_BYTES), Base64 decoding failed"
        ) from None


def image_of(blob: Json) -> Image:
    """The picture of a blob. Raises `RefusedError`."""
    mime = text_at(blob, "mimeType")
    if not mime.startswith("image/"):
        raise RefusedError(GENERAL)
    return Image(mime, decode(text_at(blob, "data"), "realtime_input.video.data"))


class AudioInput:
    """Reads a session's sound as int16 at 16 kHz, whatever its rate."""

    def __init__(self) -> None:
        self._rate = IN_RATE
        self._resampler = Resampler(IN_RATE, IN_RATE)

    def read(self, blob: Json) -> Samples:
        """The samples of the next blob. Raises `RefusedError` when it is no PCM."""
        mime = text_at(blob, "mimeType").lower()
        if not mime.startswith("audio/pcm"):
            raise RefusedError(GENERAL)
        found = _RATE.search(mime)
        rate = int(found[1]) if found else IN_RATE
        if not _LEAST_HZ <= rate <= _MOST_HZ:
            raise RefusedError(GENERAL)
        data = decode(text_at(blob, "data"), "realtime_input.audio.data")
        if len(data) % 2:
            raise RefusedError(GENERAL)
        if rate != self._rate:
            self._rate, self._resampler = rate, Resampler(rate, IN_RATE)
        samples = np.frombuffer(data, "<i2")
        return samples if rate == IN_RATE else self._resampler.push(samples)
