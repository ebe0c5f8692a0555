"""Keeps the audio from before a turn, to begin the turn at an exact sample."""

from __future__ import annotations

from collections import deque

from duologue.audio import AudioFrame


class Preroll:
    """Keeps at least the newest ``seconds`` of audio, and no frame more than they need."""

    __slots__ = ("_frames", "_samples", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._frames: deque[AudioFrame] = deque()
        self._samples = 0

    def push(self, frame: AudioFrame) -> None:
        """Add audio; all frames must have the same rate."""
        self._frames.append(frame)
        self._samples += len(frame)
        needed = self._seconds * frame.rate
        while self._frames and self._samples - len(self._frames[0]) >= needed:
            self._samples -= len(self._frames.popleft())

    def take(self, seconds: float) -> list[AudioFrame]:
        """Return the newest ``seconds``, or less if there is less, and drop everything.

        The result is cut to the sample, so that a recogniser gets the same audio whatever the frame
        size was.
        """
        frames, spare = list(self._frames), 0
        if frames:
            spare = self._samples - round(seconds * frames[0].rate)
        self._frames.clear()
        self._samples = 0
        taken = []
        for frame in frames:
            if spare < len(frame):
                taken.append(AudioFrame(frame.samples[spare:], frame.rate) if spare > 0 else frame)
            spare -= len(frame)
        return taken
