"""`TimeCompressor`: play audio that is late in slightly less time, without a change of pitch."""

# A frame of ``size`` samples is made of more than ``size`` samples of the original, by one splice:
#
#     original   |<- fade ->|<--- skip --->|<- fade ->|                  |
#                 fades out                 fades in
#     output     |<- fade ->|                         |<- size - fade -->|
#
# - In speech, the skip is the lag, within `_MAX_LAG_S`, at which the original resembles itself most
#   (WSOLA: waveform similarity overlap and add). In a voiced sound that is a whole number of
#   pitch periods, so that what fades in continues what fades out. A splice must be earned: each
#   frame adds an eighth of its length (`MAX_SPEED_UP`) to the credit that the next skip is taken
#   from. While the credit is small only a near repetition is skipped; as it grows, less
#   resemblance is enough, because noise such as an "s" never resembles itself.
# - In a pause nothing has to resemble anything, so up to half of each frame is skipped. A pause
#   keeps its first `_KEPT_PAUSE_S`, because words are told apart by short ones ("stop", "it is").
#
# A frame knows which sample of the original each of its own samples stands for (`original`), so
# that what was heard can be told in samples of the original.

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from duologue._numpy import np
from duologue.audio import FRAME_MS, Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray


type _Floats = NDArray[np.float32]

MAX_SPEED_UP = 0.125
"""How much faster speech is played at most."""

_MIN_LAG_S = 0.0025
"""Shortest skip in speech: one period of the highest voices."""

_MAX_LAG_S = 0.015
"""Longest skip in speech: one period of the lowest voices."""

_FADE_S = 0.01
"""Length of a cross-fade, which is also the stretch that is compared."""

_MIN_CREDIT_S = 0.0075
"""Credit that a skip in speech takes; a longer skip leaves a debt, so that the mean is kept."""

_MAX_CREDIT_S = 0.03
"""Credit at which resemblance no longer counts."""

_MIN_LIKENESS = 0.9
"""Correlation that a splice needs while the credit is small; none at `_MAX_CREDIT_S`."""

_KEPT_PAUSE_S = 0.06
"""Length of the beginning of a pause that is never shortened."""

_QUIET = 33.0
"""RMS of int16 samples below which all is silence: -60 dB of full scale."""

_QUIET_RATIO = 0.03
"""RMS, as a part of that of the loudest speech lately, below which it is a pause: -30 dB."""

_LEVEL_DECAY = 0.995
"""Factor by which the level of the loudest speech falls with each frame: 20 dB in 9 seconds."""

_SEARCH_RATE = 8000
"""Samples a second at which lags are searched first, because that costs a ninth or less."""


@dataclass(frozen=True, slots=True, eq=False)
class CompressedFrame:
    """A frame in which ``skipped`` samples of the original were faded over."""

    samples: Samples
    fade: int
    skipped: int

    def original(self, played: int) -> int:
        """Return how much of the original the first ``played`` samples stand for."""
        return played + self.skipped * min(played, self.fade) // self.fade


class TimeCompressor:
    """Makes frames of ``rate * 20 ms`` samples out of a little more than that.

    Attributes:
        size: Samples of a frame that is made.
        reach: Samples of the original that it is made of at most.
    """

    __slots__ = (
        "_credit",
        "_fade",
        "_fade_in",
        "_fade_out",
        "_level",
        "_max_lag",
        "_min_lag",
        "_quiet_frames",
        "_rate",
        "reach",
        "size",
    )

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self.size = rate * FRAME_MS // 1000
        self._fade = int(rate * _FADE_S)
        self._min_lag = int(rate * _MIN_LAG_S)
        self._max_lag = int(rate * _MAX_LAG_S)
        self.reach = self.size + self._max_lag
        turn = np.pi / 2 * (np.arange(self._fade, dtype=np.float32) + 0.5) / self._fade
        self._fade_in = np.square(np.sin(turn))
        self._fade_out = 1 - self._fade_in
        self._level = 0.0
        self._quiet_frames = 0
        self._credit = 0.0

    def compress(self, original: Samples, max_skip: int) -> CompressedFrame | None:
        """Make the next frame; return None to leave it as it is.

        Args:
            original: The next samples, ``reach`` if they are known. The frame has ``size``
                samples, or what is left of the original.
            max_skip: Samples that may be skipped.
        """
        max_skip = min(max_skip, self._max_lag, len(original) - self._fade)
        known = original.astype(np.float32)
        if self._in_pause(known):
            skip = min(max_skip, self.size // 2)
        else:
            earned = self._credit + MAX_SPEED_UP * self.size
            self._credit = min(earned, _MAX_CREDIT_S * self._rate)
            skip = self._find_lag(known, max_skip)
            self._credit -= skip
        if skip < self._min_lag:
            return None
        fade = self._fade
        samples = original[skip : skip + self.size].copy()
        mixed = known[:fade] * self._fade_out + known[skip : skip + fade] * self._fade_in
        samples[:fade] = np.rint(mixed)
        return CompressedFrame(samples, fade, skip)

    def _in_pause(self, known: _Floats) -> bool:
        """Return whether a pause has lasted long enough to be shortened, and goes on."""
        level = float(np.dot(known, known) / len(known)) ** 0.5
        self._level = max(level, self._level * _LEVEL_DECAY)
        if level > max(_QUIET, self._level * _QUIET_RATIO):
            self._quiet_frames = 0
            return False
        self._quiet_frames += 1
        return self._quiet_frames * FRAME_MS > _KEPT_PAUSE_S * 1000

    def _find_lag(self, known: _Floats, max_skip: int) -> int:
        """Return the lag at which the original resembles itself most; 0 if it does not enough."""
        if self._credit < _MIN_CREDIT_S * self._rate or max_skip < self._min_lag:
            return 0
        step = max(1, self._rate // _SEARCH_RATE)
        coarse = known[: len(known) // step * step].reshape(-1, step).sum(axis=1)
        lag, likeness = _best_lag(
            coarse, self._fade // step, -(-self._min_lag // step), max_skip // step
        )
        spent = (self._credit / self._rate - _MIN_CREDIT_S) / (_MAX_CREDIT_S - _MIN_CREDIT_S)
        if likeness < _MIN_LIKENESS * (1 - spent):
            return 0
        if step > 1:
            first = max(self._min_lag, (lag - 1) * step)
            lag, _ = _best_lag(known, self._fade, first, min(max_skip, (lag + 1) * step))
        return lag


def _best_lag(samples: _Floats, width: int, first: int, last: int) -> tuple[int, float]:
    """Return which lag from ``first`` to ``last`` is best, and the correlation there.

    Compares ``width`` samples at the beginning with as many at each lag.
    """
    start = samples[:width]
    there = samples[first : last + width]
    products = np.correlate(there, start)
    sums = np.cumsum(np.square(there), dtype=np.float64)
    energy = sums[width - 1 :].copy()
    energy[1:] -= sums[: len(energy) - 1]
    alike = products / np.sqrt(np.maximum(energy, 1.0))
    best = int(np.argmax(alike))
    return first + best, float(alike[best]) / max(1.0, float(np.dot(start, start)) ** 0.5)
