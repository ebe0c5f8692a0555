"""Detects user turns in a session's input audio."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from duologue.audio import Samples
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators._turn_detector import DetectedTurn, TurnDetector, TurnTooShortError
from duologue.simulators.nova._input_events import Sensitivity

ENDPOINTING_MS: Mapping[Sensitivity, int] = {"HIGH": 1500, "MEDIUM": 1750, "LOW": 2000}
"""Silence that ends a turn, from AWS' documentation of Nova 2 Sonic."""

MAX_USER_TURNS = 1000
"""Number of newest turns that are kept for inspection."""
MAX_USER_TURN_AUDIO_S = 1800
"""Seconds of their audio, if it is kept; beyond it the oldest are dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class UserTurn:
    """A user turn: its place in the session's audio, in samples at ``rate`` Hz, and its audio.

    ``samples`` is int16, and empty unless the simulator has the option ``keep_audio``.
    """

    start: int
    end: int
    rate: int
    samples: Samples


@dataclass(frozen=True, slots=True)
class TurnDetection:
    """How turns are detected; times in ms."""

    silence_ms: int
    prefix_ms: int = 300
    threshold: float = 0.5


class UserTurnSink(Protocol):
    """Receives the user turns of a session."""

    def user_started(self) -> None:
        """The person has begun to speak."""

    def user_audio(self, samples: Samples) -> None:
        """The next audio of the turn."""

    def user_turn_ended(self, item_id: str, seconds: float) -> None:
        """A turn of ``seconds`` has ended."""


class UserTurns:
    """Detects the user turns of one session; ``rate`` is the sample rate of its audio in Hz."""

    def __init__(
        self, sink: UserTurnSink, detection: TurnDetection, *, rate: int, keep_audio: bool
    ) -> None:
        self._sink = sink
        self._rate = rate
        self._keep_audio = keep_audio
        self._detector = TurnDetector(self, rate=rate)
        self._detector.configure(detection)
        self.recorded: BoundedLog[UserTurn] = BoundedLog(
            MAX_USER_TURNS, MAX_USER_TURN_AUDIO_S * rate
        )

    @property
    def newest(self) -> list[UserTurn]:
        """The newest user turns."""
        return self.recorded.entries

    @property
    def speaking(self) -> bool:
        """Whether a turn has begun and not ended."""
        return self._detector.speaking

    def add_audio(self, samples: Samples) -> None:
        """Accept the next input audio."""
        self._detector.push(samples)

    def close(self) -> None:
        """Stop detecting."""
        self._detector.clear()

    def end_audio(self) -> None:
        """End the open turn, because there is no more audio."""
        if self._detector.speaking:
            with suppress(TurnTooShortError):
                self._detector.commit()

    # TurnSink: called by the turn detector

    def speech_started(self, turn: DetectedTurn, at_ms: int) -> None:
        """Report that the person speaks."""
        del turn, at_ms
        self._sink.user_started()

    def speech_audio(self, samples: Samples) -> None:
        """Pass on the audio of the turn."""
        self._sink.user_audio(samples)

    def speech_stopped(self, turn: DetectedTurn, at_ms: int) -> None:
        """Do nothing: the service sends no event for it."""

    def turn_committed(self, turn: DetectedTurn, *, streamed: bool) -> None:
        """Record the turn and report its end."""
        del streamed
        samples = turn.samples if self._keep_audio else np.zeros(0, np.int16)
        self.recorded.add(UserTurn(turn.start, turn.end, self._rate, samples), len(samples))
        self._sink.user_turn_ended(turn.item_id, (turn.end - turn.start) / self._rate)
