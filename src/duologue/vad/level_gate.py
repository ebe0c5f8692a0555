"""Detects silence by loudness, because voice activity detection takes 70 ms to release."""

from __future__ import annotations

from duologue.audio import Samples, loudness

QUIET_RATIO = 0.015
"""Audio this much softer (36 dB) than the speech around it does not belong to it."""
_DECAY = 0.998
"""Share of the speech's loudness kept after each frame: half is left after 5 s of speech."""


class LevelGate:
    """Follows the loudness of the person's speech, to recognise silence beside it.

    In a noisy place the gate never shuts, and voice activity alone decides.
    """

    __slots__ = ("_loudness",)

    def __init__(self) -> None:
        self._loudness = 0.0

    def is_quiet(self, samples: Samples, *, speech: bool) -> bool:
        """Return whether these int16 samples are far softer than the speech before them.

        ``speech`` says whether voice activity was detected in them.
        """
        level = loudness(samples)
        if speech:
            self._loudness = max(self._loudness * _DECAY, level)
        return level < self._loudness * QUIET_RATIO
