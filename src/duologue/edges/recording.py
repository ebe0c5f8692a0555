"""A stereo recording of a conversation on one timeline: left the person, right the agent."""

from __future__ import annotations

import os
import tempfile
import wave
from collections import deque
from os import PathLike
from pathlib import Path

import numpy as np

from duologue.audio import Samples
from duologue.realtime.errors import ConfigError


def check_writable(path: str | PathLike[str]) -> None:
    """Raise `ConfigError` when there can be no file at ``path``."""
    target = Path(path)
    if target.is_dir():
        raise ConfigError(f"can't write {target}: it is a folder")
    if not target.parent.is_dir():
        raise ConfigError(f"can't write {target}: there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise ConfigError(f"can't write {target}: {target.parent} is not writable")


class _Track:
    """One side: pieces of sound by position; everything else is silence."""

    def __init__(self) -> None:
        self.end = 0
        self._pieces: deque[tuple[int, Samples]] = deque()

    def put(self, at: int, samples: Samples) -> None:
        start = max(at, self.end)
        if len(samples):
            self._pieces.append((start, samples))
            self.end = start + len(samples)

    def cut(self, at: int) -> None:
        while self._pieces and self._pieces[-1][0] >= at:
            self._pieces.pop()
        if self._pieces:
            start, samples = self._pieces[-1]
            self._pieces[-1] = (start, samples[: at - start])
        self.end = min(self.end, at)

    def take(self, start: int, stop: int) -> Samples:
        """Copy what lies between two positions, and forget it."""
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


class RecordingTimeline:
    """Writes a 16 bit stereo WAV as the conversation goes on, in bounded memory.

    Positions are in samples at ``rate`` Hz since the recording began. The file appears at
    ``path``, whole, when `close` is called. Raises `ConfigError` when it can't be written.
    """

    def __init__(self, path: str | PathLike[str], rate: int) -> None:
        self.path = Path(path)
        self.rate = rate
        self._left = _Track()
        self._right = _Track()
        self._written = 0
        check_writable(path)
        try:
            descriptor, self._part = tempfile.mkstemp(
                dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".part"
            )
        except OSError as error:
            reason = (error.strerror or "not possible").lower()
            raise ConfigError(f"can't write {self.path}: {reason}") from error
        os.fchmod(descriptor, 0o644)
        self._file = os.fdopen(descriptor, "wb")
        self._wave = wave.Wave_write(self._file)
        self._wave.setnchannels(2)
        self._wave.setsampwidth(2)
        self._wave.setframerate(rate)
        self._open = True

    @property
    def person_end(self) -> int:
        """Where the person's side ends so far."""
        return self._left.end

    @property
    def agent_end(self) -> int:
        """Where the agent's side ends so far."""
        return self._right.end

    def person(self, samples: Samples) -> None:
        """Append to the person's side."""
        self._left.put(self._left.end, samples)

    def agent(self, at: int, samples: Samples) -> None:
        """Put on the agent's side: at ``at``, or behind what is there already if that is later."""
        self._right.put(max(at, self._written), samples)

    def clear_agent(self, at: int) -> None:
        """Drop the agent's side from ``at`` on: it was not played."""
        self._right.cut(max(at, self._written))

    def commit(self, upto: int) -> None:
        """Write everything before ``upto``; it can't be changed any more."""
        if self._open and upto > self._written:
            self._write(upto)

    def close(self) -> None:
        """Write the rest, and move the file into place; harmless the second time."""
        if not self._open:
            return
        self._open = False
        try:
            self._write(max(self._left.end, self._right.end, self._written))
            self._wave.close()
            self._file.close()
            os.replace(self._part, self.path)
        except OSError as error:
            self._remove()
            reason = (error.strerror or "not possible").lower()
            raise ConfigError(f"can't write {self.path}: {reason}") from error

    def discard(self) -> None:
        """Leave no file."""
        if self._open:
            self._open = False
            self._wave.close()
            self._file.close()
            self._remove()

    def _remove(self) -> None:
        Path(self._part).unlink(missing_ok=True)

    def _write(self, upto: int) -> None:
        start = self._written
        both = np.stack((self._left.take(start, upto), self._right.take(start, upto)), axis=1)
        self._wave.writeframesraw(both.astype("<i2", copy=False).tobytes())
        self._written = upto
