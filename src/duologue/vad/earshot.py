"""Voice activity by earshot: 16 ms frames, about 7 us each."""

from __future__ import annotations

from typing import Protocol

from duologue._optional import import_optional
from duologue.audio import Samples


class _Detector(Protocol):
    def predict_i16(self, frame: Samples) -> float: ...


class EarshotVAD:
    """Voice activity detection; a `VAD` of 16 kHz and 256 samples a frame.

    Raises `MissingExtraError`, naming ``extra``, when earshot is not installed.
    """

    rate = 16000
    frame_samples = 256

    def __init__(self, extra: str = "local") -> None:
        self._detector = import_optional("earshot", extra).Detector

    def stream(self) -> EarshotStream:
        """Start on a new stream."""
        return EarshotStream(self._detector())


class EarshotStream:
    """Voice activity of one stream."""

    __slots__ = ("_detector",)

    def __init__(self, detector: _Detector) -> None:
        self._detector = detector

    def push(self, samples: Samples) -> float:
        """Probability of speech, 0 to 1, in exactly 256 int16 samples at 16 kHz."""
        return float(self._detector.predict_i16(samples))
