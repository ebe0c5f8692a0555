"""The client's sound straight back, in one endless block: for measurements."""

from __future__ import annotations

from duologue.audio import Resampler, Samples
from duologue.simulator.nova.blocks import Blocks


class Loopback:
    """Asks no brain; ``rate`` is Hz of the sound that comes."""

    def __init__(self, blocks: Blocks, rate: int) -> None:
        self._blocks = blocks
        self._resampler = Resampler(rate, blocks.rate)

    def push(self, samples: Samples) -> None:
        """Give it back."""
        back = self._resampler.push(samples)
        if len(back):
            self._blocks.audio(back)
