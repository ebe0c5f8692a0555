"""The protocols of voice activity detection."""

from __future__ import annotations

from typing import Protocol

from duologue.audio import Samples


class VADStream(Protocol):
    """Voice activity detection in one stream."""

    def push(self, samples: Samples) -> float:
        """Return the probability of speech, 0 to 1, in exactly ``frame_samples`` int16 samples.

        Must not block.
        """
        ...


class VAD(Protocol):
    """Voice activity detection, cheap enough for the event loop (under 0.1 ms a frame)."""

    rate: int
    """Hz of the audio that streams take."""
    frame_samples: int
    """Samples that each `VADStream.push` takes."""

    def stream(self) -> VADStream:
        """Return a new stream."""
        ...
