"""Keep a sample in a byte, as telephones do (mu-law, as in G.711)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from duologue._numpy import np
from duologue.audio import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray


type Companded = NDArray[np.uint8]

_MU = 255.0
_STEPS = 127
"""Levels besides 0, for each sign."""
_PEAK = 32767


def compress(samples: Samples) -> Companded:
    """Return a byte for each sample. The noise that this adds is 35 to 38 dB below speech."""
    return _bytes().take(samples.view(np.uint16))


def expand(companded: Companded) -> Samples:
    """Return the samples that the bytes stand for."""
    return _samples().take(companded)


@cache
def _samples() -> Samples:
    """Return the sample of each byte; those of 128 and above are negative."""
    level = np.arange(_STEPS + 1) / _STEPS
    positive = np.rint(_PEAK * np.expm1(level * np.log1p(_MU)) / _MU).astype(np.int16)
    return np.concatenate((positive, -positive))


@cache
def _bytes() -> Companded:
    """Return the byte of each sample, in the order of uint16."""
    samples = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.float64)
    size = np.minimum(np.abs(samples), _PEAK) / _PEAK
    level = np.rint(_STEPS * np.log1p(_MU * size) / np.log1p(_MU))
    packed: Companded = (level + (_STEPS + 1) * (samples < 0)).astype(np.uint8)
    return packed
