"""Buffer the audio of a full-duplex device and remove the agent's echo from its input.

This module opens no device: a device's callback calls `Duplex.process_block` from its own thread.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from duologue._optional import import_optional
from duologue.audio import AudioFrame, Framer, Samples

_RING_S = 1.0
_BLOCK_MS = 10
"""The echo canceller processes blocks of 10 ms."""

type EchoCanceller = Callable[[Samples, Samples], Samples]
"""Removes the echo of 10 ms of played audio (second) from 10 ms of microphone audio (first)."""


def webrtc_canceller(
    rate: int, *, delay_ms: int = 0, noise_suppression: bool = True
) -> EchoCanceller:
    """Create WebRTC's echo canceller (AEC3) and noise suppression for one stream.

    Needs the extra ``mic``.

    Args:
        rate: Sample rate in Hz.
        delay_ms: Expected milliseconds from playing audio to recording its echo; only a hint.
        noise_suppression: Also suppress steady noise.
    """
    processor = import_optional("pywebrtc_audio", "mic").AudioProcessor(
        sample_rate=rate,
        echo_cancellation=True,
        noise_suppression=noise_suppression,
        stream_delay_ms=delay_ms,
    )

    def cancel(near: Samples, far: Samples) -> Samples:
        clean: Samples = processor.process(near, far)
        return clean

    return cancel


class Duplex:
    """The audio on its way to and from a sound device: mono int16 at ``rate`` Hz.

    The event loop calls `write` and `clear`; the device's thread calls `process_block`. The ring
    holds one second: when it is full, new audio is refused and its samples are counted in
    ``overflowed``. ``starved`` counts samples of silence inserted because the ring ran empty
    between two pieces of audio.

    Args:
        rate: Sample rate in Hz.
        cancel_echo: Removes the echo from each 10 ms of input; None leaves it in.
    """

    def __init__(self, rate: int, cancel_echo: EchoCanceller | None = None) -> None:
        self.rate = rate
        self.cancel_echo = cancel_echo
        self.overflowed = 0
        self.starved = 0
        self._lock = threading.Lock()
        self._ring: deque[tuple[int, Samples]] = deque()
        self._buffered = 0
        self._written = 0
        self._in_sound = False
        self._in_flight: deque[tuple[float, int]] = deque()
        self._near = Framer(rate, _BLOCK_MS)
        self._far = Framer(rate, _BLOCK_MS)

    @property
    def buffered(self) -> int:
        """Samples in the ring."""
        return self._buffered

    def write(self, samples: Samples) -> None:
        """Add audio for the loudspeaker to the ring."""
        with self._lock:
            self._written += len(samples)
            if self._buffered + len(samples) > _RING_S * self.rate:
                self.overflowed += len(samples)
                return
            self._ring.append((self._written, samples))
            self._buffered += len(samples)

    def clear(self) -> None:
        """Drop audio that the device has not taken from the ring."""
        with self._lock:
            self._ring.clear()
            self._buffered = 0
            self._in_sound = False

    def process_block(
        self, near: Samples, now: float, heard_at: float
    ) -> tuple[Samples, list[AudioFrame], int | None]:
        """Handle one callback of the device.

        Args:
            near: Recorded samples; the same number of samples is returned for playing.
            now: Current time on the device's clock, in seconds.
            heard_at: Time on the device's clock at which the returned block reaches the ear.

        Returns:
            The samples to play; the person's audio without the agent's echo; and how many of all
            written samples have reached the ear by now, or None if that has not changed.
        """
        far = self._read(len(near), heard_at)
        frames = []
        if self.cancel_echo is None:
            frames.append(AudioFrame(near.copy(), self.rate))
        else:
            for near_part, far_part in zip(
                self._near.push(near.copy()), self._far.push(far), strict=True
            ):
                frames.append(AudioFrame(self.cancel_echo(near_part, far_part), self.rate))
        played = None
        while self._in_flight and self._in_flight[0][0] <= now:
            played = self._in_flight.popleft()[1]
        return far, frames, played

    def _read(self, count: int, dac: float) -> Samples:
        out = np.zeros(count, np.int16)
        filled = 0
        position = None
        with self._lock:
            while self._ring and filled < count:
                end, samples = self._ring.popleft()
                part = samples[: count - filled]
                out[filled : filled + len(part)] = part
                filled += len(part)
                rest = samples[len(part) :]
                position = end - len(rest)
                if len(rest):
                    self._ring.appendleft((end, rest))
            self._buffered -= filled
        if position is not None:
            self._in_flight.append((dac + filled / self.rate, position))
        if filled and self._in_sound and filled < count:
            self.starved += count - filled
        self._in_sound = filled == count
        return out
