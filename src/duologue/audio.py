"""Audio as it passes through an agent: frames, a resampler and a framer."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache, lru_cache
from math import ceil, gcd, sqrt
from operator import index
from typing import TYPE_CHECKING, SupportsIndex

from duologue._numpy import np

if TYPE_CHECKING:
    import soxr
    from numpy.typing import NDArray

type Samples = NDArray[np.int16]

FRAME_MS = 20
"""Length of one outgoing frame, in ms: the Opus and RTP default (RFC 7587, section 4.2)."""

_LITTLE_ENDIAN = sys.byteorder == "little"


@cache
def _pcm() -> np.dtype[np.int16]:
    """Return the type of little-endian PCM; as an object, because parsing its name takes as long as
    the view itself.
    """
    return np.dtype("<i2")


@cache
def _int16() -> np.dtype[np.int16]:
    return np.dtype(np.int16)


@cache
def _empty() -> Samples:
    empty: Samples = np.zeros(0, np.int16)
    empty.setflags(write=False)
    return empty


@dataclass(frozen=True, slots=True, eq=False, init=False)
class AudioFrame:
    """A stretch of mono audio: ``samples`` is int16 of shape (n,), ``rate`` is in Hz.

    The array is not copied; its maker must not write to it afterwards.

    Raises:
        ValueError: another dtype or shape, or a rate that is not a whole number above 0.
    """

    samples: Samples
    rate: int

    # By hand, because the one that `dataclass` makes takes three times as long, with every frame.
    def __init__(self, samples: Samples, rate: int) -> None:
        dtype = samples.dtype
        # Identity is tried first, because comparing two dtypes takes longer than all the rest.
        int16 = _int16()
        if (dtype is not int16 and dtype != int16) or samples.ndim != 1:
            raise ValueError(
                "AudioFrame: samples must be mono int16 of shape (n,), "
                f"not {dtype} of shape {samples.shape}"
            )
        _set_samples(self, samples)
        _set_rate(self, rate if type(rate) is int and rate > 0 else _whole_rate(rate))

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate

    @classmethod
    def from_bytes(cls, pcm: bytes | bytearray | memoryview, rate: int) -> AudioFrame:
        """View little-endian 16-bit PCM as a frame, without a copy; ``rate`` in Hz.

        Raises:
            ValueError: the bytes are not a whole number of samples.
        """
        return cls(np.frombuffer(pcm, _pcm()), rate)

    @classmethod
    def silence(cls, seconds: float, rate: int) -> AudioFrame:
        """Return ``seconds`` of silence at ``rate`` Hz."""
        return cls(np.zeros(round(seconds * rate), np.int16), rate)

    def to_bytes(self) -> bytes:
        """Return the samples as little-endian 16-bit PCM."""
        samples = self.samples if _LITTLE_ENDIAN else self.samples.astype("<i2")
        return samples.tobytes()

    def _repr_html_(self) -> str:
        """Return an HTML player, for notebooks."""
        from duologue._notebook import audio_html

        return audio_html(self)


_set_samples = AudioFrame.__dict__["samples"].__set__
_set_rate = AudioFrame.__dict__["rate"].__set__


def trusted_frame(samples: Samples, rate: int) -> AudioFrame:
    """Return a frame without a check, of mono int16 samples and a rate that are known to be so."""
    frame = object.__new__(AudioFrame)
    _set_samples(frame, samples)
    _set_rate(frame, rate)
    return frame


def _whole_rate(rate: object) -> int:
    """Return the rate as an int; NumPy integers are accepted too."""
    whole = 0
    if isinstance(rate, SupportsIndex) and not isinstance(rate, bool):
        whole = index(rate)
    if whole <= 0:
        raise ValueError(f"AudioFrame: rate must be a whole number of Hz above 0, not {rate!r}")
    return whole


class Resampler:
    """Changes the rate of one stream, chunk by chunk, band-limited and without seams.

    The filter is our own, of linear phase: more than 80 dB of signal to noise, aliases below -80
    dB, and at most 4 ms held back until `flush` (contract C10; soxr works in blocks, and holds back
    up to 20 ms, at 8 kHz 60 ms). Equal rates pass through unchanged. Odd rates, whose ratio has no
    short form, are left to soxr.
    """

    __slots__ = (
        "_down",
        "_held",
        "_kernel",
        "_lookahead",
        "_received",
        "_sent",
        "_soxr",
        "_up",
        "in_rate",
        "out_rate",
    )

    def __init__(self, in_rate: int, out_rate: int) -> None:
        if in_rate <= 0 or out_rate <= 0:
            raise ValueError(f"Resampler: rates must be above 0 Hz, not {in_rate} and {out_rate}")
        self.in_rate = in_rate
        self.out_rate = out_rate
        common = gcd(in_rate, out_rate)
        self._up = out_rate // common
        self._down = in_rate // common
        odd = max(self._up, self._down) > _MAX_RATIO
        plain = in_rate == out_rate or odd
        if not plain and self._up < _MIN_OUTPUTS:
            # This is the same ratio. A window is copied for each row of outputs, so few rows cost
            # less.
            self._up, self._down = self._up * _MIN_OUTPUTS, self._down * _MIN_OUTPUTS
        self._lookahead = _lookahead(self._up, self._down)
        self._kernel = _empty_kernel() if plain else _kernel(self._up, self._down)
        self._soxr: soxr.ResampleStream | None = None
        if odd:
            import soxr  # It imports numpy.

            self._soxr = soxr.ResampleStream(in_rate, out_rate, 1, dtype="int16", quality="LQ")
        self._reset()

    def _reset(self) -> None:
        """Empty the filter; ``_held`` begins where the next multiple of ``up`` does."""
        self._held = np.zeros(self._lookahead, np.float32)
        self._received = 0
        self._sent = 0

    def push(self, samples: Samples) -> Samples:
        """Resample the next int16 samples of the stream; may return fewer, which follow later."""
        if self._up == self._down:
            return samples
        if self._soxr is not None:
            out: Samples = self._soxr.resample_chunk(samples)
            return out
        self._received += len(samples)
        known = self._received - self._lookahead
        return self._filter(samples, known * self._up // self._down)

    def flush(self) -> Samples:
        """End the stream and return the rest of it. The next `push` starts a new stream."""
        if self._up == self._down:
            return _empty()
        if self._soxr is not None:
            tail: Samples = self._soxr.resample_chunk(_empty(), last=True)
            self._soxr.clear()
            return tail
        silence = np.zeros(self._lookahead, np.int16)
        out = self._filter(silence, -(-self._received * self._up // self._down))
        self._reset()
        return out

    def _filter(self, samples: Samples, until: int) -> Samples:
        """Take in samples; return the outputs before ``until`` that were not returned yet."""
        up, down, kernel = self._up, self._down, self._kernel
        count = until - self._sent
        if count <= 0:
            self._held = np.concatenate((self._held, samples), dtype=np.float32)
            return _empty()
        first = self._sent % up
        # A row of windows makes `up` outputs; the last row may be incomplete.
        rows = -(-(first + count) // up)
        width = len(kernel)
        begin = len(self._held)
        end = begin + len(samples)
        held = np.empty(max(end, (rows - 1) * down + width), np.float32)
        held[:begin] = self._held
        held[begin:end] = samples
        if len(held) > end:
            held[end:] = 0
        step = held.itemsize
        # Windows that overlap, at a tenth of the cost of `as_strided`.
        windows = np.ndarray((rows, width), np.float32, held, 0, (down * step, step))
        out = (windows.copy() @ kernel).reshape(-1)[first : first + count]
        self._sent = until
        self._held = held[(first + count) // up * down : end].copy()
        np.rint(out, out=out)
        lowest, highest = _sample_limits()
        np.minimum(out, highest, out=out)
        return np.maximum(out, lowest, out=out).astype(_int16())


_MIN_OUTPUTS = 8
"""Least number of outputs that are made of one window."""
_MAX_RATIO = 1000
"""Largest part of the ratio of two rates for our own filter; 11025 to 48000 Hz is 147 to 640."""
_STOP_DB = 92.0
_TRANSITION = 0.2
"""Width of the filter's slope, centred on the band edge, as a fraction of the band."""


@cache
def _sample_limits() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the lowest and the highest sample; as arrays, because NumPy would convert numbers each
    time.
    """
    return np.array(-32768, np.float32), np.array(32767, np.float32)


@cache
def _empty_kernel() -> NDArray[np.float32]:
    return np.zeros((0, 0), np.float32)


def _lookahead(up: int, down: int) -> int:
    """Return the input samples that the filter looks ahead: half its length (Kaiser's formula)."""
    width = np.pi * _TRANSITION * min(1.0, up / down)
    return ceil((_STOP_DB - 7.95) / (2.285 * width) / 2) + 1


@lru_cache(maxsize=32)
def _kernel(up: int, down: int) -> NDArray[np.float32]:
    """Return factors of shape (window, up); a window of samples times them is ``up`` outputs."""
    reach = _lookahead(up, down)
    band = min(1.0, up / down)
    at = np.arange(up) * down / up + reach
    time = np.arange(2 * reach + 1 + (up - 1) * down // up)[:, None] - at
    inside = np.abs(time) < reach
    beta = 0.1102 * (_STOP_DB - 8.7)
    near = time[inside]
    factors = np.zeros(time.shape)
    factors[inside] = np.sinc(band * near) * np.i0(beta * np.sqrt(1 - (near / reach) ** 2))
    kernel: NDArray[np.float32] = (factors / factors.sum(axis=0)).astype(np.float32)
    kernel.setflags(write=False)
    return kernel


def loudness(samples: Samples) -> float:
    """Return the RMS of int16 samples, 0 to 32767; 0 without samples."""
    if not len(samples):
        return 0.0
    values = samples.astype(np.float32)
    return sqrt(float(values.dot(values)) / len(values))  # A third of the cost of `np.mean`.


class PcmDecoder:
    """Decodes a stream of little-endian int16 PCM; a sample may be split between two pieces."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def whole(self, pcm: bytes) -> Samples | None:
        """Return the samples of ``pcm`` if they are whole; else None, without adding them."""
        if self._rest or not pcm or len(pcm) % 2:
            return None
        return np.frombuffer(pcm, _pcm())

    def push(self, pcm: bytes) -> Samples:
        """Add bytes; return the samples that are complete."""
        if not self._rest and not len(pcm) % 2:
            return np.frombuffer(pcm, _pcm())
        pcm = self._rest + pcm
        even = len(pcm) & ~1
        self._rest = pcm[even:]
        return np.frombuffer(pcm[:even], _pcm())


class Framer:
    """Cuts a stream of samples into frames of exactly ``ms`` milliseconds at ``rate`` Hz.

    Raises:
        ValueError: such a frame is not a whole number of samples.
    """

    __slots__ = ("_held", "rate", "size")

    def __init__(self, rate: int, ms: int = FRAME_MS) -> None:
        size, rest = divmod(rate * ms, 1000)
        if size <= 0 or rest:
            raise ValueError(f"{ms} ms at {rate} Hz is not a whole number of samples")
        self.rate = rate
        self.size = size
        self._held: Samples = _empty()

    def __len__(self) -> int:
        """Return the number of samples held back, which is less than one frame."""
        return len(self._held)

    def push(self, samples: Samples) -> list[Samples]:
        """Take the next samples; return the frames that are complete, as views where possible."""
        size = self.size
        if len(self._held):
            samples = np.concatenate((self._held, samples))
        elif len(samples) == size:
            return [samples]
        whole = len(samples) // size * size
        self._held = samples[whole:]
        return [samples[i : i + size] for i in range(0, whole, size)]

    def flush(self) -> Samples:
        """End the stream; return the samples that did not fill a frame, possibly none."""
        held, self._held = self._held, _empty()
        return held
