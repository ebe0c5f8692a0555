"""When a person speaks, pauses and has finished, from voice activity; sans-IO."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from duologue.realtime.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Endpointing:
    """How a turn begins and ends; times in seconds.

    ``speculate_s``: silence after which STT and LLM begin on what may be the end of the turn.
    ``vote_s``: silence after which the turn detector is asked; from ``probability`` on, the turn is
    over. ``timeout_s``: silence that ends a turn without a detector, or without its vote.
    ``max_pause_s``: silence that ends a turn whatever the detector says; the surer it is that the
    person continues, the longer is the wait, between ``timeout_s`` and this. ``start_s`` and
    ``resume_s``: voice activity without a gap that begins a turn, or resumes it after a pause.
    ``preroll_s``: sound from before the first sign of speech that belongs to the turn.
    ``partial_s``: time between partial transcripts. Raises `ConfigError` for times out of order.
    """

    threshold: float = 0.5
    start_s: float = 0.048
    resume_s: float = 0.032
    speculate_s: float = 0.06
    vote_s: float = 0.15
    timeout_s: float = 0.7
    max_pause_s: float = 2.0
    probability: float = 0.5
    preroll_s: float = 0.35
    partial_s: float = 0.25

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1 or not 0 <= self.probability <= 1:
            raise ConfigError("Endpointing takes a threshold and a probability between 0 and 1")
        if not 0 < self.speculate_s <= self.vote_s <= self.timeout_s:
            raise ConfigError("Endpointing takes 0 < speculate_s <= vote_s <= timeout_s")
        if self.max_pause_s <= 0:
            raise ConfigError("Endpointing takes a max_pause_s above 0")

    def longest_pause(self, probability: float | None) -> float:
        """Return the silence that ends a turn, in seconds.

        ``probability`` is the detector's that the turn is over, below that of `Endpointing`; None
        if there is no vote.
        """
        if probability is None:
            return self.timeout_s
        longest = max(self.max_pause_s, self.timeout_s)
        going_on = 1.0 - probability / self.probability if self.probability else 0.0
        return self.timeout_s + min(max(0.0, going_on), 1.0) * (longest - self.timeout_s)


class Step(Enum):
    """What a stretch of sound has led to."""

    STARTED = "started"
    """The person speaks, since `TurnTaking.speech_start`."""
    PARTIAL = "partial"
    """They go on; a partial transcript is due."""
    PAUSED = "paused"
    """They may have finished: begin on an answer."""
    VOTE = "vote"
    """They are still silent: ask the turn detector."""
    RESUMED = "resumed"
    """They go on speaking after all: throw the answer away."""
    TIMEOUT = "timeout"
    """They have been silent for so long that the turn is over."""


class TurnTaking:
    """Follows one stream of voice activity; `push` takes it in order and gives the steps."""

    __slots__ = (
        "_config",
        "_loud",
        "_partial_at",
        "_passed",
        "in_turn",
        "longest_pause",
        "silence",
        "speech_end",
        "speech_start",
    )

    def __init__(self, config: Endpointing) -> None:
        self._config = config
        self._loud = 0.0
        self.silence = 0.0
        """Seconds of audio since the last speech in the turn."""
        self.longest_pause = config.timeout_s
        """Seconds of silence that end the turn."""
        self._partial_at = 0.0
        self._passed: set[Step] = set()
        self.in_turn = False
        self.speech_start = 0.0
        """When the speech began, in clock seconds."""
        self.speech_end = 0.0
        """When it last was heard, in clock seconds."""

    @property
    def speaking(self) -> bool:
        """The person is in a turn, and not in a pause of it."""
        return self.in_turn and Step.PAUSED not in self._passed

    def push(self, probability: float, seconds: float, now: float) -> list[Step]:
        """Take the voice activity of the ``seconds`` of sound that end ``now``."""
        config = self._config
        if probability > config.threshold:
            self._loud += seconds
            return self._speech(now)
        self._loud = 0.0
        if not self.in_turn:
            return []
        self.silence += seconds
        steps = []
        for step, after in (
            (Step.PAUSED, config.speculate_s),
            (Step.VOTE, config.vote_s),
            (Step.TIMEOUT, self.longest_pause),
        ):
            if step not in self._passed and self.silence >= after - 1e-9:
                self._passed.add(step)
                steps.append(step)
        return steps

    def wait(self, seconds: float) -> None:
        """Set the silence of this pause that ends the turn to ``seconds``."""
        self.longest_pause = seconds
        if self.silence < seconds - 1e-9:
            self._passed.discard(Step.TIMEOUT)

    def end(self) -> None:
        """The turn is over; wait for the next."""
        self.in_turn = False
        self._loud = 0.0
        self._speak()

    def _speak(self) -> None:
        self.silence = 0.0
        self.longest_pause = self._config.timeout_s
        self._passed.clear()

    def _speech(self, now: float) -> list[Step]:
        config = self._config
        if not self.in_turn:
            if self._loud < config.start_s - 1e-9:
                return []
            self.in_turn = True
            self.speech_start = now - self._loud
            self._partial_at = now + config.partial_s
            self.silence = 0.0
            self.speech_end = now
            return [Step.STARTED]
        paused = Step.PAUSED in self._passed
        if paused and self._loud < config.resume_s - 1e-9:
            return []
        self.speech_end = now
        self._speak()
        if paused:
            return [Step.RESUMED]
        if now >= self._partial_at:
            self._partial_at = now + config.partial_s
            return [Step.PARTIAL]
        return []
