"""Compute log-mel features with numpy, as Whisper takes them.

Facts: 400-sample periodic Hann window, hop 160, reflect padding, 80 Slaney mels (area normalised)
up to 8 kHz, log10 floored at 1e-10 and at 8 below the peak, then (x + 4) / 4 (Radford et al. 2022,
section 2.2, and the feature extractor published with the model).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from duologue.providers.local._inference import Floats

RATE = 16000
WINDOW = 400
HOP = 160
MELS = 80

_BLOCK = 200
"""Windows per step: numpy lets other threads run between steps (about 0.5 ms each)."""

# Slaney's mel scale: linear below 1 kHz (3 mels per 200 Hz), then a factor 6.4 per 27 mels.
_KNEE_HZ = 1000.0
_KNEE_MEL = 15.0
_STEP = np.log(6.4) / 27.0


def _to_mel(hertz: float) -> float:
    if hertz < _KNEE_HZ:
        return hertz * _KNEE_MEL / _KNEE_HZ
    return float(_KNEE_MEL + np.log(hertz / _KNEE_HZ) / _STEP)


def _to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    low = mel * _KNEE_HZ / _KNEE_MEL
    high = _KNEE_HZ * np.exp(_STEP * (mel - _KNEE_MEL))
    return np.where(mel < _KNEE_MEL, low, high)


@cache
def mel_filters() -> Floats:
    """Return triangular filters of shape (201, 80): bins of the power spectrum to mels."""
    edges = _to_hertz(np.linspace(0.0, _to_mel(RATE / 2), MELS + 2))
    bins = np.linspace(0.0, RATE / 2, WINDOW // 2 + 1)[:, None]
    left, peak, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins - left) / (peak - left)
    falling = (right - bins) / (right - peak)
    area = 2.0 / (right - left)
    filters: Floats = (np.clip(np.minimum(rising, falling), 0.0, None) * area).astype(np.float32)
    return filters


@cache
def _hann() -> Floats:
    window: Floats = np.hanning(WINDOW + 1)[:-1].astype(np.float32)
    return window


def log_mel(audio: Floats) -> Floats:
    """Return features of shape (80, len(audio) // 160) of float32 audio at 16 kHz.

    The audio is normalised to zero mean and unit variance first.
    """
    audio = (audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)
    padded = np.pad(audio, WINDOW // 2, mode="reflect")
    windows = sliding_window_view(padded, WINDOW)[::HOP][: len(audio) // HOP]
    mels = np.empty((len(windows), MELS), np.float32)
    for at in range(0, len(windows), _BLOCK):
        spectrum = np.fft.rfft(windows[at : at + _BLOCK] * _hann(), axis=1)
        power = spectrum.real**2 + spectrum.imag**2
        mels[at : at + _BLOCK] = power.astype(np.float32) @ mel_filters()
    logs = np.log10(np.maximum(mels, 1e-10))
    features: Floats = ((np.maximum(logs, logs.max() - 8.0) + 4.0) / 4.0).T
    return np.ascontiguousarray(features, np.float32)
