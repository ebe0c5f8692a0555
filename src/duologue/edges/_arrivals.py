"""Put a caller's audio in order, fill what was lost, and pass on bursts at a bearable pace."""

from __future__ import annotations

from collections import deque

from duologue._numpy import np
from duologue.audio import FRAME_MS, AudioFrame, Samples

MAX_GAP_MS = 1000
"""Longest gap in the caller's audio that is filled with silence; a longer one is a pause."""

MAX_BACKLOG_S = 10.0
"""Most seconds of audio that wait to be passed on; the oldest is dropped."""

_SPEED = 4.0
"""How much faster than speech a backlog is passed on, so that no delay stays."""
MIN_COST_S = 0.005
"""What a frame counts at least, in seconds, because each costs time however short it is."""
_BURST_S = 0.03
"""Seconds of passing-on time that may be used at once: six frames of 20 ms at this speed."""


class Arrivals:
    """Restores the order of a stream's chunks, and its length where audio was lost.

    Args:
        reorder: Most chunks that wait for an earlier one; 0 if the carrier keeps the order.
    """

    def __init__(self, reorder: int = 0) -> None:
        self._reorder = reorder
        self._next: int | None = None
        self._waiting: dict[int, tuple[int | None, AudioFrame]] = {}
        self._end_ms: float | None = None
        self.lost = 0
        """Frames of 20 ms that never came."""
        self.late = 0
        """Chunks that came after their place was passed on, or twice."""

    def push(
        self, samples: Samples, rate: int, chunk: int | None, timestamp_ms: int | None
    ) -> list[AudioFrame]:
        """Take a chunk; return what follows now, in order."""
        frame = AudioFrame(samples, rate)
        if chunk is None or not self._reorder:
            return self._pass(timestamp_ms, frame)
        if self._next is None:
            self._next = chunk
        if chunk < self._next or chunk in self._waiting:
            self.late += 1
            return []
        self._waiting[chunk] = (timestamp_ms, frame)
        out: list[AudioFrame] = []
        if len(self._waiting) > self._reorder:
            self._next = min(self._waiting)
        while (ready := self._waiting.pop(self._next, None)) is not None:
            out += self._pass(*ready)
            self._next += 1
        return out

    def _pass(self, timestamp_ms: int | None, frame: AudioFrame) -> list[AudioFrame]:
        if timestamp_ms is None:
            return [frame]
        gap = 0.0 if self._end_ms is None else timestamp_ms - self._end_ms
        self._end_ms = timestamp_ms + frame.duration * 1000
        if not FRAME_MS <= gap <= MAX_GAP_MS:
            return [frame]
        self.lost += round(gap / FRAME_MS)
        return [AudioFrame(np.zeros(round(gap * frame.rate / 1000), np.int16), frame.rate), frame]


class Pacer:
    """Passes on audio as it comes, and a burst after a stall at four times the speed of speech.

    That is 800 frames a second at most, of which 2000 wait.
    """

    def __init__(self) -> None:
        self._waiting: deque[AudioFrame] = deque()
        self._waiting_s = 0.0
        self._free_at = float("-inf")
        self.dropped_s = 0.0
        """Seconds of audio dropped because too much was waiting."""

    def push(self, frame: AudioFrame) -> None:
        """Add audio; drop the oldest if more than `MAX_BACKLOG_S` wait."""
        self._waiting.append(frame)
        self._waiting_s += _cost(frame)
        while self._waiting_s > MAX_BACKLOG_S and len(self._waiting) > 1:
            self.dropped_s += self._pop().duration

    def take(self, now: float) -> list[AudioFrame]:
        """Return the audio that may pass at ``now``, in seconds."""
        out = []
        while self._waiting and self._free_at - _BURST_S <= now:
            frame = self._pop()
            self._free_at = max(self._free_at, now) + _cost(frame) / _SPEED
            out.append(frame)
        return out

    @property
    def next_at(self) -> float | None:
        """When the next audio may pass, in seconds; None if none waits."""
        return self._free_at - _BURST_S if self._waiting else None

    def _pop(self) -> AudioFrame:
        frame = self._waiting.popleft()
        self._waiting_s -= _cost(frame)
        return frame


def _cost(frame: AudioFrame) -> float:
    return max(MIN_COST_S, frame.duration)
