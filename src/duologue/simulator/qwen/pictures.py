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


def jpeg_of(text: str) -> bytes:
    """The JPEG in a base64 text. Raises `RefusedError` when it is too large or none."""
    if len(text) > MOST_CHARACTERS:
        raise RefusedError(
            "invalid_value", "The image is too large: at most 256 KB after base64.", "image"
        )
    data = bytes_of(text, "image")
    if not data.startswith(b"\xff\xd8\xff"):
        raise RefusedError("invalid_value", "The image format must be JPG or JPEG.", "image")
    return data


def pixels_of(jpeg: bytes) -> NDArray[np.uint8]:
    """RGB of shape (height, width, 3). Raises `RefusedError` when it is broken or too large."""
    decoder = av.CodecContext.create("mjpeg", "r")
    try:
        (frame, *_) = [*decoder.decode(av.Packet(jpeg)), *decoder.decode(None)]
        pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.FFmpegError, ValueError):
        raise RefusedError("invalid_value", "The image can't be decoded.", "image") from None
    if max(pixels.shape) > MOST_PIXELS:
        raise RefusedError("invalid_value", "The image is larger than 1080p.", "image")
    return pixels
