"""The client's sound straight back: to measure what lies between."""

from __future__ import annotations

from duologue.audio import Resampler, Samples
from duologue.simulator.gemini.schema import IN_RATE, OUT_RATE


class Loopback:
    """Makes of what is heard what is said, without a model and without turns."""

    def __init__(self) -> None:
        self._resampler = Resampler(IN_RATE, OUT_RATE)

    def push(self, samples: Samples) -> Samples:
        """The same sound, at 24 kHz."""
        return self._resampler.push(samples)
