"""The client's audio sent straight back, to measure everything but a model."""

from __future__ import annotations

from duologue.audio import Resampler, Samples
from duologue.simulators.gemini._schema import IN_RATE, OUT_RATE


class Loopback:
    """Turns input audio into output audio, without a model and without turns."""

    def __init__(self) -> None:
        self._resampler = Resampler(IN_RATE, OUT_RATE)

    def push(self, samples: Samples) -> Samples:
        """Return the same audio at 24 kHz."""
        return self._resampler.push(samples)
