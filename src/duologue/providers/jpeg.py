"""Pictures for providers that take only so many bytes of each."""

from __future__ import annotations

from duologue.video import VideoFrame, encode_jpeg

_QUALITIES = (80, 60, 40, 20)
_SHORTEST = 64
"""Pixels of the longer side below which a picture is not made smaller."""


def fitting_jpeg(frame: VideoFrame, *, longest: int, most: int | None = None) -> bytes:
    """The picture as JPEG, its longer side at most ``longest`` pixels, in at most ``most`` bytes.

    Of less quality where it would not fit, then smaller. Takes some ms: call it in a thread.
    """
    while True:
        for quality in _QUALITIES:
            jpeg = encode_jpeg(frame, longest=longest, quality=quality)
            if most is None or len(jpeg) <= most:
                return jpeg
        if longest <= _SHORTEST:
            return jpeg
        longest = min(longest, max(frame.width, frame.height)) // 2
