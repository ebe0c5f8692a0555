"""Pictures for providers that take only so many bytes of each."""

from __future__ import annotations

from duologue.video import VideoFrame, encode_jpeg

_QUALITIES = (80, 60, 40, 20)
_MIN_SIDE = 64
"""Pixels of the longer side below which a picture is not made smaller."""


def fit_jpeg(frame: VideoFrame, *, max_side: int, max_bytes: int | None = None) -> bytes:
    """The picture as JPEG, its longer side at most ``longest`` pixels, in at most ``most`` bytes.

    Of less quality where it would not fit, then smaller. Takes some ms: call it in a thread.
    """
    while True:
        for quality in _QUALITIES:
            jpeg = encode_jpeg(frame, max_side=max_side, quality=quality)
            if max_bytes is None or len(jpeg) <= max_bytes:
                return jpeg
        if max_side <= _MIN_SIDE:
            return jpeg
        max_side = min(max_side, max(frame.width, frame.height)) // 2
