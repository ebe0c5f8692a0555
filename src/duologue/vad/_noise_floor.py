"""Follows the level of the noise in a stream, to spare a VAD the frames that are nothing else."""

from __future__ import annotations

MARGIN = 2.0
"""Audio whose peak is above this many times that of the noise (6 dB) may be voice."""
RISE_PER_S = 0.4
"""By how much the noise's level rises in a second without a softer frame (3 dB)."""
MIN_PEAK = 16.0
"""The noise's level is never below this; with `MARGIN`, audio below -60 dB is never voice."""


class NoiseFloor:
    """Keeps the level of the softest frames of the last seconds.

    Speech has gaps, so its softest frames are the noise behind it. A VAD needs voice that stands
    out from noise, so it finds nothing in a frame that does not.
    """

    __slots__ = ("_peak",)

    def __init__(self) -> None:
        self._peak = MIN_PEAK

    def is_noise(self, peak: int, seconds: float) -> bool:
        """Return whether the next ``seconds``, whose highest sample is ``peak``, are only noise."""
        floor = self._peak * (1.0 + RISE_PER_S * seconds)
        if peak < floor:
            floor = peak if peak > MIN_PEAK else MIN_PEAK
        self._peak = floor
        return peak <= MARGIN * floor

    def lower(self) -> None:
        """Do what `is_noise` does with audio whose highest sample is at most `MIN_PEAK`."""
        self._peak = MIN_PEAK
