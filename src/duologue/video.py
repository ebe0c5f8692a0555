"""Pictures as they travel through the house."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from duologue.extras import require


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """One picture: ``pixels`` is uint8 RGB of shape (height, width, 3), ``at`` in clock seconds.

    Raises ``ValueError`` for another dtype or shape.
    """

    pixels: NDArray[np.uint8]
    at: float

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
            raise ValueError(
                "VideoFrame takes uint8 RGB pixels of shape (height, width, 3), "
                f"not {self.pixels.dtype} of shape {shape}"
            )

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])


def encode_jpeg(frame: VideoFrame, *, longest: int = 1024, quality: int = 80) -> bytes:
    """The picture as JPEG, its longer side at most ``longest`` pixels; never made larger.

    Takes some ms: call it in a thread. Raises `MissingExtraError` without Pillow.
    """
    image = require("PIL.Image", "video").fromarray(frame.pixels)
    # Reducing by whole numbers first is several times faster, and not visible.
    image.thumbnail((longest, longest), reducing_gap=2.0)
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


class FrameSampler:
    """Lets through at most ``fps`` pictures a second; the newest wins, the rest are counted.

    Raises ``ValueError`` for a rate that is not above 0.
    """

    __slots__ = ("_next", "_period", "passed", "skipped")

    def __init__(self, fps: float) -> None:
        if fps <= 0:
            raise ValueError(f"fps takes a number above 0, not {fps}")
        self._period = 1.0 / fps
        self._next = float("-inf")
        self.passed = 0
        self.skipped = 0

    def wants(self, now: float) -> bool:
        """Whether a picture taken ``now`` (seconds) is due; counts it either way."""
        if now < self._next:
            self.skipped += 1
            return False
        first = self._next == float("-inf")
        self._next = max(self._next + self._period, now + self._period / (1 if first else 2))
        self.passed += 1
        return True
