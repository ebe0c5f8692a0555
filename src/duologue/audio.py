"""Sound as it travels through the house: frames, a resampler and a framer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

type Samples = NDArray[np.int16]

FRAME_MS = 20
"""Length of one outgoing frame, in ms: the Opus and RTP default (RFC 7587, section 4.2)."""

_EMPTY: Samples = np.zeros(0, np.int16)
_EMPTY.setflags(write=False)


@dataclass(frozen=True, slots=True, eq=False)
class AudioFrame:
    """A stretch of mono sound: ``samples`` is int16 of shape (n,), ``rate`` is in Hz.

    The array is kept as it is, not copied; whoever made it must not write to it afterwards.
    Raises ``ValueError`` for another dtype, another shape or a rate that is not positive.
    """

    samples: Samples
    rate: int

    def __post_init__(self) -> None:
        if self.samples.dtype != np.int16 or self.samples.ndim != 1:
            raise ValueError(
                "AudioFrame takes mono int16 samples of shape (n,), "
                f"not {self.samples.dtype} of shape {self.samples.shape}"
            )
        if self.rate <= 0:
            raise ValueError(f"AudioFrame takes a rate in Hz above 0, not {self.rate}")

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate

    @classmethod
    def from_bytes(cls, pcm: bytes | bytearray | memoryview, rate: int) -> AudioFrame:
        """View little-endian 16-bit PCM as a frame, without a copy; ``rate`` in Hz.

        Raises ``ValueError`` when the bytes are not a whole number of samples.
        """
        return cls(np.frombuffer(pcm, "<i2"), rate)

    @classmethod
    def silence(cls, seconds: float, rate: int) -> AudioFrame:
        """Silence of that many seconds, at ``rate`` Hz."""
        return cls(np.zeros(round(seconds * rate), np.int16), rate)

    def to_bytes(self) -> bytes:
        """The samples as little-endian 16-bit PCM."""
        return self.samples.astype("<i2", copy=False).tobytes()


class Resampler:
    """Changes the rate of one stream, chunk by chunk, band-limited and without seams.

    soxr ``LQ``: above 80 dB of signal to noise, aliases below -80 dB, and at most 7 ms held back
    until `flush` (contract C10). Equal rates pass through untouched.
    """

    __slots__ = ("_stream", "in_rate", "out_rate")

    def __init__(self, in_rate: int, out_rate: int) -> None:
        if in_rate <= 0 or out_rate <= 0:
            raise ValueError(f"Resampler takes rates in Hz above 0, not {in_rate} and {out_rate}")
        self.in_rate = in_rate
        self.out_rate = out_rate
        self._stream: soxr.ResampleStream | None = None
        self._open()

    def _open(self) -> None:
        if self.in_rate != self.out_rate:
            self._stream = soxr.ResampleStream(
                self.in_rate, self.out_rate, 1, dtype="int16", quality="LQ"
            )

    def push(self, samples: Samples) -> Samples:
        """Resample the next int16 samples of the stream; may return fewer, later ones follow."""
        if self._stream is None:
            return samples
        out: Samples = self._stream.resample_chunk(samples)
        return out

    def flush(self) -> Samples:
        """End the stream: the tail that was held back. The next `push` starts a new stream."""
        if self._stream is None:
            return _EMPTY
        out: Samples = self._stream.resample_chunk(_EMPTY, last=True)
        self._open()
        return out


class Framer:
    """Cuts a stream of samples into frames of exactly ``ms`` milliseconds at ``rate`` Hz.

    Raises ``ValueError`` when such a frame is not a whole number of samples.
    """

    __slots__ = ("_held", "rate", "size")

    def __init__(self, rate: int, ms: int = FRAME_MS) -> None:
        size, rest = divmod(rate * ms, 1000)
        if size <= 0 or rest:
            raise ValueError(f"{ms} ms at {rate} Hz is not a whole number of samples")
        self.rate = rate
        self.size = size
        self._held: Samples = _EMPTY

    def __len__(self) -> int:
        """Samples held back, fewer than one frame."""
        return len(self._held)

    def push(self, samples: Samples) -> list[Samples]:
        """Take the next samples; return the frames that are complete, views where possible."""
        if len(self._held):
            samples = np.concatenate((self._held, samples))
        size = self.size
        whole = len(samples) // size * size
        self._held = samples[whole:]
        return [samples[i : i + size] for i in range(0, whole, size)]

    def flush(self) -> Samples:
        """End the stream: the samples that did not fill a frame, possibly none."""
        held, self._held = self._held, _EMPTY
        return held
