"""Splits the client's audio into turns, by loudness, in frames of 20 ms."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from duologue.audio import Framer, Samples, loudness
from duologue.simulators._fields import new_id

FULL_THRESHOLD_RMS = 600.0
"""Loudness (RMS of int16) that a threshold of 1 stands for."""
START_FRAMES = 2
"""Consecutive loud frames that start a turn, unless configured otherwise."""
MIN_TURN_S = 0.1
"""Seconds of the shortest turn that can be committed."""
MAX_BUFFERED_S = 900.0
"""Seconds of audio that the buffer keeps; beyond it the oldest is dropped."""


@dataclass(slots=True, eq=False)
class DetectedTurn:
    """One stretch of the client's audio. Positions are in samples of the session's audio."""

    item_id: str
    start: int
    frames: deque[Samples] = field(default_factory=deque)
    end: int = 0

    @property
    def samples(self) -> Samples:
        """The audio of the turn."""
        return np.concatenate(self.frames) if self.frames else np.zeros(0, np.int16)


class TurnTooShortError(ValueError):
    """The client ended a turn that is shorter than `MIN_TURN_S`.

    Attributes:
        seconds: Length of the turn.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a turn of {seconds:.3f} s is too short")
        self.seconds = seconds


class DetectionSettings(Protocol):
    """How turns are detected; times in ms."""

    @property
    def threshold(self) -> float:
        """How loud speech is, from 0 to 1."""
        ...

    @property
    def prefix_ms(self) -> int:
        """Audio before the speech that belongs to the turn."""
        ...

    @property
    def silence_ms(self) -> int:
        """Silence that ends a turn."""
        ...


class TurnSink(Protocol):
    """Receives the turns of the detector."""

    def speech_started(self, turn: DetectedTurn, at_ms: int) -> None:
        """Accept the start of a turn, at ``at_ms`` of the audio, padding included."""

    def speech_audio(self, samples: Samples) -> None:
        """Accept the next audio of the open turn."""

    def speech_stopped(self, turn: DetectedTurn, at_ms: int) -> None:
        """Accept the end of a turn; `turn_committed` follows."""

    def turn_committed(self, turn: DetectedTurn, *, streamed: bool) -> None:
        """Accept a complete turn; ``streamed`` if its audio went to `speech_audio`."""


class TurnDetector:
    """Detects turns in the audio of one session; the result does not depend on its chunks.

    Args:
        sink: Receives the turns.
        rate: Hz of the audio.
    """

    def __init__(self, sink: TurnSink, *, rate: int = 24000) -> None:
        self._sink = sink
        self._rate = rate
        self._detection: DetectionSettings | None = None
        self._framer = Framer(rate)
        self._buffer: deque[Samples] = deque()
        self._buffered_samples = 0
        self._position = 0
        self._turn: DetectedTurn | None = None
        self._start_frames = START_FRAMES
        self._loud_frames = 0
        self._silent_samples = 0
        self.samples_received = 0
        """Samples accepted so far."""
        self.samples_dropped = 0
        """Samples that the buffer has dropped."""

    @property
    def speaking(self) -> bool:
        """Whether a turn is open."""
        return self._turn is not None

    def configure(
        self, detection: DetectionSettings | None, *, start_frames: int = START_FRAMES
    ) -> bool:
        """Set how turns are detected from now on.

        Args:
            detection: The settings; None if the client ends turns.
            start_frames: Consecutive loud frames of 20 ms that start a turn.

        Returns:
            Whether a turn was open. Its audio stays in the buffer and is passed on again as a
            whole.
        """
        was_open = detection is None and self._turn is not None
        if was_open and self._turn is not None:
            self._buffer, self._buffered_samples = self._turn.frames, len(self._turn.samples)
            self._turn = None
        self._loud_frames = self._silent_samples = 0
        self._detection = detection
        self._start_frames = start_frames
        return was_open

    def push(self, samples: Samples) -> None:
        """Process the next audio."""
        self.samples_received += len(samples)
        for frame in self._framer.push(samples):
            self._process_frame(frame)

    def commit(self) -> None:
        """End the turn, because the client says so.

        Raises:
            TurnTooShortError: The turn is shorter than `MIN_TURN_S`.
        """
        rest = self._framer.flush()
        turn, streamed = self._turn, self._turn is not None
        self._position += len(rest)
        if turn is None:
            self._buffer_frame(rest)
            turn = DetectedTurn(
                new_id("item"), self._position - self._buffered_samples, self._buffer
            )
        else:
            turn.frames.append(rest)
            self._sink.speech_audio(rest)
        seconds = (self._position - turn.start) / self._rate
        if seconds < MIN_TURN_S:
            raise TurnTooShortError(seconds)
        self._end_turn(turn, streamed=streamed)

    def take_idle_turn(self, start: int) -> DetectedTurn:
        """Return the audio since ``start``, which has no speech in it, as a turn."""
        audio = np.concatenate(self._buffer) if self._buffer else np.zeros(0, np.int16)
        turn = DetectedTurn(
            new_id("item"), min(start, self._position), deque([audio]), self._position
        )
        self._reset()
        return turn

    def clear(self) -> bool:
        """Drop the audio that is not committed; return whether a turn was open."""
        was_open = self._turn is not None
        self._position += len(self._framer.flush())
        self._reset()
        return was_open

    def _process_frame(self, frame: Samples) -> None:
        self._position += len(frame)
        detection, turn = self._detection, self._turn
        if detection is None:
            self._buffer_frame(frame)
            return
        loud = loudness(frame) > max(1.0, detection.threshold * FULL_THRESHOLD_RMS)
        if turn is not None:
            turn.frames.append(frame)
            if turn.start + MAX_BUFFERED_S * self._rate < self._position:
                # The noise never ends, so this is not speech.
                oldest = len(turn.frames.popleft())
                turn.start += oldest
                self.samples_dropped += oldest
            self._sink.speech_audio(frame)
            self._silent_samples = 0 if loud else self._silent_samples + len(frame)
            if self._silent_samples * 1000 >= max(1, detection.silence_ms) * self._rate:
                self._sink.speech_stopped(turn, self._ms(self._position))
                self._end_turn(turn, streamed=True)
            return
        self._buffer_frame(frame)
        self._loud_frames = self._loud_frames + 1 if loud else 0
        if self._loud_frames == self._start_frames:
            self._start_turn(detection)
        else:
            self._trim(
                detection.prefix_ms * self._rate // 1000 + self._loud_frames * self._framer.size
            )

    def _start_turn(self, detection: DetectionSettings) -> None:
        self._trim(detection.prefix_ms * self._rate // 1000 + self._loud_frames * self._framer.size)
        start = self._position - self._buffered_samples
        turn = self._turn = DetectedTurn(new_id("item"), start, self._buffer)
        self._buffer, self._buffered_samples = deque(), 0
        self._loud_frames = self._silent_samples = 0
        self._sink.speech_started(turn, self._ms(start))
        self._sink.speech_audio(turn.samples)

    def _end_turn(self, turn: DetectedTurn, *, streamed: bool) -> None:
        turn.end = self._position
        self._reset()
        self._sink.turn_committed(turn, streamed=streamed)

    def _ms(self, position: int) -> int:
        return position * 1000 // self._rate

    def _buffer_frame(self, frame: Samples) -> None:
        self._buffer.append(frame)
        self._buffered_samples += len(frame)
        limit = round(MAX_BUFFERED_S * self._rate)
        if self._buffered_samples > limit:
            self.samples_dropped += self._buffered_samples - limit
            self._trim(limit)

    def _trim(self, limit: int) -> None:
        """Keep only the newest ``most`` samples."""
        over = self._buffered_samples - limit
        while over > 0:
            first = self._buffer[0]
            if len(first) <= over:
                self._buffer.popleft()
            else:
                self._buffer[0] = first[over:]
            over -= len(first)
        self._buffered_samples = min(self._buffered_samples, limit)

    def _reset(self) -> None:
        self._turn = None
        self._buffer, self._buffered_samples = deque(), 0
        self._loud_frames = self._silent_samples = 0
