"""Encode images for providers that limit their size in bytes."""

from __future__ import annotations

from duologue.video import VideoFrame, encode_jpeg

_QUALITIES = (80, 60, 40, 20)
_MIN_SIDE = 64
"""Longer side in pixels below which an image is not scaled down further."""


def fit_jpeg(frame: VideoFrame, *, max_side: int, max_bytes: int | None = None) -> bytes:
    """Encode a frame as JPEG whose longer side has at most ``max_side`` pixels.

    If the result has more than ``max_bytes`` bytes, reduce the quality first, then the size. This
    takes several ms, so call it in a thread.
    """
    while True:
        for quality in _QUALITIES:
            jpeg = encode_jpeg(frame, max_side=max_side, quality=quality)
            if max_bytes is None or len(jpeg) <= max_bytes:
                return jpeg
        if max_side <= _MIN_SIDE:
            return jpeg
        max_side = min(max_side, max(frame.width, frame.height)) // 2
