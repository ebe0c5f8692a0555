"""The client's audio sent straight back, in one endless block, for measurements."""

from __future__ import annotations

from duologue.audio import Resampler, Samples
from duologue.simulators.nova._blocks import Blocks


class Loopback:
    """Sends back audio without a backend; ``rate`` is the sample rate of the input in Hz."""

    def __init__(self, blocks: Blocks, rate: int) -> None:
        self._blocks = blocks
        self._resampler = Resampler(rate, blocks.rate)

    def push(self, samples: Samples) -> None:
        """Send the audio back."""
        back = self._resampler.push(samples)
        if len(back):
            self._blocks.send_audio(back)
