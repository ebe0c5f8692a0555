"""From the client's sound to turns, by loudness, in 20 ms frames."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from duologue.audio import Framer, Samples
from duologue.simulator.fields import new_id

LEVEL = 600.0
"""Loudness (RMS of int16) that a threshold of 1 stands for."""
START_FRAMES = 2
"""Loud frames in a row that begin a turn, where nothing else is said."""
LEAST_S = 0.1
"""The shortest turn that can be committed, in seconds."""
MOST_S = 900.0
"""Sound that the buffer keeps, in seconds; of more the oldest is dropped."""


@dataclass(slots=True, eq=False)
class Turn:
    """One stretch of the client's sound; positions in samples of the session's sound."""

    item_id: str
    start: int
    frames: deque[Samples] = field(default_factory=deque)
    end: int = 0

    @property
    def samples(self) -> Samples:
        """Its sound."""
        return np.concatenate(self.frames) if self.frames else np.zeros(0, np.int16)


class TurnTooShortError(ValueError):
    """The client ended a turn of so few ``seconds`` that it is none."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a turn of {seconds:.3f} s is too short")
        self.seconds = seconds


class Detection(Protocol):
    """How turns are found; times in ms, ``threshold`` from 0 to 1."""

    @property
    def threshold(self) -> float:
        """How loud speech is."""
        ...

    @property
    def prefix_ms(self) -> int:
        """Sound before the speech that belongs to the turn."""
        ...

    @property
    def silence_ms(self) -> int:
        """Silence that ends a turn."""
        ...


class TurnSink(Protocol):
    """Who is told about turns."""

    def speech_started(self, turn: Turn, at_ms: int) -> None:
        """A turn has begun, ``at_ms`` in the sound, padding included."""

    def speech_heard(self, samples: Samples) -> None:
        """The next sound of the turn that has begun."""

    def speech_stopped(self, turn: Turn, at_ms: int) -> None:
        """The turn is over; `turn_committed` follows."""

    def turn_committed(self, turn: Turn, *, streamed: bool) -> None:
        """The turn is an item now; ``streamed`` when its sound was told by `speech_heard`."""


class Hearing:
    """Takes the sound of one session at ``rate`` Hz; what follows does not depend on its chunks."""

    def __init__(self, sink: TurnSink, *, rate: int = 24000) -> None:
        self._sink = sink
        self._rate = rate
        self._detection: Detection | None = None
        self._framer = Framer(rate)
        self._kept: deque[Samples] = deque()
        self._kept_samples = 0
        self._position = 0
        self._turn: Turn | None = None
        self._start_frames = START_FRAMES
        self._loud = 0
        self._silence = 0
        self.written = 0
        """Samples taken so far."""
        self.dropped = 0
        """Samples that fell out of the buffer."""

    @property
    def speaking(self) -> bool:
        """A turn has begun and is not over."""
        return self._turn is not None

    def configure(self, detection: Detection | None, *, start_frames: int = START_FRAMES) -> bool:
        """Find turns like this from now on; None when the client ends them.

        So many loud frames of 20 ms in a row begin one.
        True when a turn had begun: its sound stays in the buffer, and is told again as a whole.
        """
        begun = detection is None and self._turn is not None
        if begun and self._turn is not None:
            self._kept, self._kept_samples = self._turn.frames, len(self._turn.samples)
            self._turn = None
        self._loud = self._silence = 0
        self._detection = detection
        self._start_frames = start_frames
        return begun

    def push(self, samples: Samples) -> None:
        """Take the next sound."""
        self.written += len(samples)
        for frame in self._framer.push(samples):
            self._take(frame)

    def commit(self) -> None:
        """The client ends the turn. Raises `TurnTooShortError`."""
        rest = self._framer.flush()
        turn, streamed = self._turn, self._turn is not None
        self._position += len(rest)
        if turn is None:
            self._keep(rest)
            turn = Turn(new_id("item"), self._position - self._kept_samples, self._kept)
        else:
            turn.frames.append(rest)
            self._sink.speech_heard(rest)
        seconds = (self._position - turn.start) / self._rate
        if seconds < LEAST_S:
            raise TurnTooShortError(seconds)
        self._end(turn, streamed=streamed)

    def take_idle(self, start: int) -> Turn:
        """What was heard since ``start`` without a word in it, as a turn."""
        kept = np.concatenate(self._kept) if self._kept else np.zeros(0, np.int16)
        turn = Turn(new_id("item"), min(start, self._position), deque([kept]), self._position)
        self._forget()
        return turn

    def clear(self) -> bool:
        """Forget what is not committed; True when that was a turn that had begun."""
        begun = self._turn is not None
        self._position += len(self._framer.flush())
        self._forget()
        return begun

    def _take(self, frame: Samples) -> None:
        self._position += len(frame)
        detection, turn = self._detection, self._turn
        if detection is None:
            self._keep(frame)
            return
        loudness = float(np.sqrt(np.mean(np.square(frame, dtype=np.float32))))
        loud = loudness > max(1.0, detection.threshold * LEVEL)
        if turn is not None:
            turn.frames.append(frame)
            if turn.start + MOST_S * self._rate < self._position:
                # The noise never ends, so this is no turn.
                oldest = len(turn.frames.popleft())
                turn.start += oldest
                self.dropped += oldest
            self._sink.speech_heard(frame)
            self._silence = 0 if loud else self._silence + len(frame)
            if self._silence * 1000 >= max(1, detection.silence_ms) * self._rate:
                self._sink.speech_stopped(turn, self._ms(self._position))
                self._end(turn, streamed=True)
            return
        self._keep(frame)
        self._loud = self._loud + 1 if loud else 0
        if self._loud == self._start_frames:
            self._begin(detection)
        else:
            self._trim(detection.prefix_ms * self._rate // 1000 + self._loud * self._framer.size)

    def _begin(self, detection: Detection) -> None:
        self._trim(detection.prefix_ms * self._rate // 1000 + self._loud * self._framer.size)
        start = self._position - self._kept_samples
        turn = self._turn = Turn(new_id("item"), start, self._kept)
        self._kept, self._kept_samples = deque(), 0
        self._loud = self._silence = 0
        self._sink.speech_started(turn, self._ms(start))
        self._sink.speech_heard(turn.samples)

    def _end(self, turn: Turn, *, streamed: bool) -> None:
        turn.end = self._position
        self._forget()
        self._sink.turn_committed(turn, streamed=streamed)

    def _ms(self, position: int) -> int:
        return position * 1000 // self._rate

    def _keep(self, frame: Samples) -> None:
        self._kept.append(frame)
        self._kept_samples += len(frame)
        most = round(MOST_S * self._rate)
        if self._kept_samples > most:
            self.dropped += self._kept_samples - most
            self._trim(most)

    def _trim(self, most: int) -> None:
        """Keep the newest ``most`` samples."""
        over = self._kept_samples - most
        while over > 0:
            first = self._kept[0]
            if len(first) <= over:
                self._kept.popleft()
            else:
                self._kept[0] = first[over:]
            over -= len(first)
        self._kept_samples = min(self._kept_samples, most)

    def _forget(self) -> None:
        self._turn = None
        self._kept, self._kept_samples = deque(), 0
        self._loud = self._silence = 0
