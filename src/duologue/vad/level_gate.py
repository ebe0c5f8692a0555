"""Silence told by loudness: sooner than voice activity detection, which takes 70 ms to let go."""

from __future__ import annotations

import numpy as np

from duologue.audio import Samples

QUIET_RATIO = 0.015
"""Sound this much softer (36 dB) than the speech around it is no part of it."""
_DECAY = 0.998
"""How much of the speech's loudness is remembered after each frame: half after 5 s of speech."""


class LevelGate:
    """Follows how loud the person's speech is, to know what is silence beside it.

    Where it is noisy the gate never shuts, and voice activity alone decides.
    """

    __slots__ = ("_loudness",)

    def __init__(self) -> None:
        self._loudness = 0.0

    def is_quiet(self, samples: Samples, *, speech: bool) -> bool:
        """Whether these int16 samples are far softer than the speech before them.

        ``speech`` says whether voice activity was detected in them.
        """
        level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float32))))
        if speech:
            self._loudness = max(self._loudness * _DECAY, level)
        return level < self._loudness * QUIET_RATIO
