"""Voice activity detection by loudness alone: needs nothing, and is only right in quiet places."""

from __future__ import annotations

from duologue.audio import Samples, loudness
from duologue.errors import ConfigError
from duologue.vad.vad import VADStream


class _Stream:
    __slots__ = ("_level",)

    def __init__(self, level: float) -> None:
        self._level = level

    def push(self, samples: Samples) -> float:
        """Return 1.0 if the frame is louder than the level, else 0.0."""
        return 1.0 if loudness(samples) > self._level else 0.0


class EnergyVAD:
    """A `VAD` that takes everything louder than ``level`` for speech; for tests and scripts.

    Args:
        rate: Hz of the audio.
        level: RMS of int16 samples, 0 to 32767.

    Raises:
        ConfigError: ``level`` is not above 0.
    """

    def __init__(self, *, rate: int = 16000, level: float = 300.0) -> None:
        if level <= 0:
            raise ConfigError(f"level must be above 0, not {level}")
        self.rate = rate
        self.frame_samples = rate * 16 // 1000
        self._level = level

    def stream(self) -> VADStream:
        """Return a new stream."""
        return _Stream(self._level)
