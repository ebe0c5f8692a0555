"""The protocols of voice activity detection."""

from __future__ import annotations

from typing import Protocol

from duologue.audio import Samples


class VADStream(Protocol):
    """Voice activity of one stream."""

    def push(self, samples: Samples) -> float:
        """Probability of speech, 0 to 1, in exactly ``frame_samples`` int16 samples; no waiting."""
        ...


class VAD(Protocol):
    """Voice activity detection, cheap enough for the event loop (under 0.1 ms a frame)."""

    rate: int
    """Hz that streams take."""
    frame_samples: int
    """Samples that one `VADStream.push` takes."""

    def stream(self) -> VADStream:
        """Start on a new stream."""
        ...
