"""Images from a client: JPEG in base64, with an upper bound on their size."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from duologue.simulators._openai_protocol.audio_formats import decode_base64
from duologue.simulators._openai_protocol.refusals import RefusedError

MAX_CHARS = 256 * 1024
"""Base64 characters of the largest image (Model Studio, "Client events", 2026)."""
MAX_SIDE_PIXELS = 1920
"""Pixels of the longer side of the largest image, which is 1080p."""

_FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of the JPEG segments that hold height and width."""


def parse_jpeg(text: str) -> bytes:
    """Return the JPEG in a base64 text.

    Raises:
        RefusedError: It is too large, or not a JPEG.
    """
    if len(text) > MAX_CHARS:
        raise _invalid("The image is too large: at most 256 KB after base64.")
    data = decode_base64(text, "image")
    if not data.startswith(b"\xff\xd8\xff"):
        raise _invalid("The image format must be JPG or JPEG.")
    # Before it is decoded, because a few bytes may claim gigabytes of pixels.
    if max(_read_size(data)) > MAX_SIDE_PIXELS:
        raise _invalid("The image is larger than 1080p.")
    return data


def decode_pixels(jpeg: bytes) -> NDArray[np.uint8]:
    """Return RGB pixels of shape (height, width, 3).

    Raises:
        RefusedError: The JPEG is damaged.
    """
    decoder = av.CodecContext.create("mjpeg", "r")
    try:
        (frame, *_) = [*decoder.decode(av.Packet(jpeg)), *decoder.decode(None)]
        return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.FFmpegError, ValueError):
        raise _invalid("The image can't be decoded.") from None


def _read_size(jpeg: bytes) -> tuple[int, int]:
    """Return height and width from the header."""
    at = 2
    while at + 9 <= len(jpeg) and jpeg[at] == 0xFF:
        if jpeg[at + 1] in _FRAME_MARKERS:
            return int.from_bytes(jpeg[at + 5 : at + 7]), int.from_bytes(jpeg[at + 7 : at + 9])
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    raise _invalid("The image can't be decoded.")


def _invalid(message: str) -> RefusedError:
    return RefusedError("invalid_value", message, "image")
