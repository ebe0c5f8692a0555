"""The sound of a full-duplex device: out of a bounded ring, in through the echo canceller.

No device in here: `Duplex.process_block` is what a device's callback calls, from its own thread.
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
"""What the echo canceller takes at a time, in ms."""

type EchoCanceller = Callable[[Samples, Samples], Samples]
"""From 10 ms of microphone and the 10 ms that were played with it to the microphone alone."""


def webrtc_canceller(
    rate: int, *, delay_ms: int = 0, noise_suppression: bool = True
) -> EchoCanceller:
    """WebRTC's echo canceller (AEC3) and noise suppression for one stream at ``rate`` Hz.

    ``delay_ms`` from playing to hearing it again is a hint. Needs the extra ``mic``.
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
    """What goes to a sound device and what comes back, at ``rate`` Hz, mono int16.

    `write` and `clear` are called by the event loop, `block` by the device's thread. The ring
    holds one second; when it is full the newest is refused and counted in ``overflowed``
    (samples). ``starved`` counts samples of silence put in because the ring ran dry within a
    stretch of sound.
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
        """Take the next sound for the person's ear."""
        with self._lock:
            self._written += len(samples)
            if self._buffered + len(samples) > _RING_S * self.rate:
                self.overflowed += len(samples)
                return
            self._ring.append((self._written, samples))
            self._buffered += len(samples)

    def clear(self) -> None:
        """Drop what the device has not taken yet."""
        with self._lock:
            self._ring.clear()
            self._buffered = 0
            self._in_sound = False

    def process_block(
        self, near: Samples, now: float, heard_at: float
    ) -> tuple[Samples, list[AudioFrame], int | None]:
        """One callback of the device: ``near`` was recorded, as many samples are to be played.

        ``now`` and ``dac`` are in s of the device's clock; ``dac`` is when this block will be
        heard. Returns the samples to play, the person's sound without the agent's echo, and how
        many samples of all that was written have been heard by now, where that is news.
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
