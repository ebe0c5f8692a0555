"""Voice activity detection by earshot: frames of 16 ms, about 7 us each."""

from __future__ import annotations

from typing import Protocol

from duologue._optional import import_optional
from duologue.audio import Samples


class _Detector(Protocol):
    def predict_i16(self, frame: Samples) -> float: ...


class EarshotVAD:
    """A `VAD` that takes 16 kHz and 256 samples a frame.

    Args:
        extra: The extra that `MissingExtraError` names if earshot is not installed.

    Raises:
        MissingExtraError: earshot is not installed.
    """

    rate = 16000
    frame_samples = 256

    def __init__(self, extra: str = "local") -> None:
        self._detector = import_optional("earshot", extra).Detector

    def stream(self) -> EarshotStream:
        """Return a new stream."""
        return EarshotStream(self._detector())


class EarshotStream:
    """Voice activity detection in one stream."""

    __slots__ = ("_detector",)

    def __init__(self, detector: _Detector) -> None:
        self._detector = detector

    def push(self, samples: Samples) -> float:
        """Return the probability of speech, 0 to 1, in exactly 256 int16 samples at 16 kHz."""
        return float(self._detector.predict_i16(samples))
