"""One side of a recording: pieces of audio by position, with silence between them."""

from __future__ import annotations

from collections import deque

from duologue._numpy import np
from duologue.audio import Samples


class AudioTrack:
    """Mono audio that is put at positions and taken from the front, all in samples.

    Audio is put in order; `truncate` takes back the newest. Attribute ``end`` is the position
    after the last sample.
    """

    __slots__ = ("_pieces", "end")

    def __init__(self) -> None:
        self.end = 0
        self._pieces: deque[tuple[int, Samples]] = deque()

    def put(self, at: int, samples: Samples) -> None:
        """Put int16 samples at position ``at``, or behind the last sample if that is later."""
        start = max(at, self.end)
        if len(samples):
            self._pieces.append((start, samples))
            self.end = start + len(samples)

    def truncate(self, at: int) -> None:
        """Remove everything from position ``at`` on."""
        while self._pieces and self._pieces[-1][0] >= at:
            self._pieces.pop()
        if self._pieces:
            start, samples = self._pieces[-1]
            self._pieces[-1] = (start, samples[: at - start])
        self.end = min(self.end, at)

    def take(self, start: int, stop: int) -> Samples:
        """Remove and return the audio between two positions; what is missing is silence."""
        out = np.zeros(stop - start, np.int16)
        while self._pieces and self._pieces[0][0] < stop:
            at, samples = self._pieces.popleft()
            part = samples[: stop - at]
            out[at - start : at - start + len(part)] = part
            if len(part) < len(samples):
                self._pieces.appendleft((stop, samples[len(part) :]))
                break
        self.end = max(self.end, stop)
        return out
