"""Images as they pass through an agent, from a camera to a model."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from duologue._numpy import np
from duologue._optional import import_optional

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """One image: ``pixels`` is uint8 RGB of shape (height, width, 3), ``at`` in clock seconds.

    Raises:
        ValueError: another dtype or shape.
    """

    pixels: NDArray[np.uint8]
    at: float

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
            raise ValueError(
                "VideoFrame: pixels must be uint8 RGB of shape (height, width, 3), "
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


def encode_jpeg(frame: VideoFrame, *, max_side: int = 1024, quality: int = 80) -> bytes:
    """Return the image as JPEG, its longer side at most ``max_side`` pixels; never enlarge it.

    Takes some ms: call it in a thread.

    Raises:
        MissingExtraError: Pillow is not installed.
    """
    pillow = import_optional("PIL.Image", "video")
    image = pillow.fromarray(frame.pixels)
    # Reducing by whole numbers first is several times faster, without visible loss. Bicubic would
    # be no
    # better to the eye, at nearly twice the time.
    image.thumbnail((max_side, max_side), pillow.Resampling.BILINEAR, reducing_gap=2.0)
    out = BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


class SceneChangeDetector:
    """Tells whether an image shows something new, by the brightness of 16 by 16 fields.

    Args:
        field: difference (0 to 255) of a single field that makes an image new.
        mean: the same for the mean of all fields.
        key_every_s: seconds after which any image counts as new.
    """

    __slots__ = ("_at", "_field", "_key_every_s", "_last", "_mean")

    def __init__(
        self, *, field: float = 12.0, mean: float = 2.0, key_every_s: float = 10.0
    ) -> None:
        self._field = field
        self._mean = mean
        self._key_every_s = key_every_s
        self._last: NDArray[np.float32] | None = None
        self._at = 0.0

    def reset(self) -> None:
        """Count the next image as new, whatever it shows."""
        self._last = None

    def has_changed(self, frame: VideoFrame, now: float) -> bool:
        """Return whether an image differs from the last new one, at ``now`` seconds."""
        fields = _luma_grid(frame)
        last = self._last
        alike = last is not None and last.shape == fields.shape
        if last is not None and alike and now - self._at < self._key_every_s - 1e-9:
            difference = np.abs(fields - last)
            field, mean = self._field - _ROUNDING, self._mean - _ROUNDING
            if difference.max() < field and difference.mean() < mean:
                return False
        self._last, self._at = fields, now
        return True


_ROUNDING = 1e-3
"""Brightness that sums of float32 may be wrong by, of 255."""

_LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness (ITU-R BT.601)."""


def _luma_grid(frame: VideoFrame) -> NDArray[np.float32]:
    """Return the brightness of 16 by 16 fields, from about 64 by 64 points: a fifth of a ms."""
    steps = [max(1, size // 64) for size in frame.pixels.shape[:2]]
    points = frame.pixels[:: steps[0], :: steps[1]] @ np.array(_LUMA_WEIGHTS, np.float32)
    rows = np.array_split(points, min(16, points.shape[0]), axis=0)
    light = np.stack([row.mean(axis=0) for row in rows])
    columns = np.array_split(light, min(16, points.shape[1]), axis=1)
    return np.stack([column.mean(axis=1) for column in columns], axis=1)


class FrameSampler:
    """Lets through at most ``fps`` images a second, the newest; counts the others as ``skipped``.

    Raises:
        ValueError: ``fps`` is not above 0.
    """

    __slots__ = ("_next", "_period", "passed", "skipped")

    def __init__(self, fps: float) -> None:
        if fps <= 0:
            raise ValueError(f"fps must be above 0, not {fps}")
        self._period = 1.0 / fps
        self._next = float("-inf")
        self.passed = 0
        self.skipped = 0

    def wants(self, now: float) -> bool:
        """Return whether an image taken ``now`` (seconds) is due; count it either way."""
        if now < self._next:
            self.skipped += 1
            return False
        first = self._next == float("-inf")
        self._next = max(self._next + self._period, now + self._period / (1 if first else 2))
        self.passed += 1
        return True
