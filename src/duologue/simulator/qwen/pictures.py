"""Pictures as a client sends them: JPEG in base64, and not too large."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from duologue.simulator.openai.formats import bytes_of
from duologue.simulator.openai.shapes import RefusedError

MOST_CHARACTERS = 256 * 1024
"""Base64 characters of a picture (Model Studio, "Client events", 2026)."""
MOST_PIXELS = 1920
"""Pixels of its longer side: 1080p is the largest that is taken."""

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers behind which a JPEG says how large it is."""


def jpeg_of(text: str) -> bytes:
    """The JPEG in a base64 text. Raises `RefusedError` when it is too large or none."""
    if len(text) > MOST_CHARACTERS:
        raise _wrong("The image is too large: at most 256 KB after base64.")
    data = bytes_of(text, "image")
    if not data.startswith(b"\xff\xd8\xff"):
        raise _wrong("The image format must be JPG or JPEG.")
    # Asked first: a few bytes may claim gigabytes of pixels.
    if max(_size_of(data)) > MOST_PIXELS:
        raise _wrong("The image is larger than 1080p.")
    return data


def pixels_of(jpeg: bytes) -> NDArray[np.uint8]:
    """RGB of shape (height, width, 3). Raises `RefusedError` when it is broken."""
    decoder = av.CodecContext.create("mjpeg", "r")
    try:
        (frame, *_) = [*decoder.decode(av.Packet(jpeg)), *decoder.decode(None)]
        return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.FFmpegError, ValueError):
        raise _wrong("The image can't be decoded.") from None


def _size_of(jpeg: bytes) -> tuple[int, int]:
    """Height and width, as the header says."""
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        if jpeg[at + 1] in _FRAMES:
            return int.from_bytes(jpeg[at + 5 : at + 7]), int.from_bytes(jpeg[at + 7 : at + 9])
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    raise _wrong("The image can't be decoded.")


def _wrong(message: str) -> RefusedError:
    return RefusedError("invalid_value", message, "image")
