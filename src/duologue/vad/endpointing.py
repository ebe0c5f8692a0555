"""When a person speaks, pauses and has finished, from voice activity; sans-IO."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from duologue.errors import ConfigError


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

    def pause_limit_s(self, probability: float | None) -> float:
        """Return the silence that ends a turn, in seconds.

        ``probability`` is the detector's that the turn is over, below that of `Endpointing`; None
        if there is no vote.
        """
        if probability is None:
            return self.timeout_s
        longest = max(self.max_pause_s, self.timeout_s)
        going_on = 1.0 - probability / self.probability if self.probability else 0.0
        return self.timeout_s + min(max(0.0, going_on), 1.0) * (longest - self.timeout_s)


class EndpointingStep(Enum):
    """What a stretch of sound has led to."""

    STARTED = "started"
    """The person speaks, since `Endpointer.speech_start`."""
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


class Endpointer:
    """Follows one stream of voice activity; `push` takes it in order and gives the steps."""

    __slots__ = (
        "_config",
        "_partial_at",
        "_passed_steps",
        "_voice_s",
        "in_turn",
        "pause_limit_s",
        "silence_s",
        "speech_end",
        "speech_start",
    )

    def __init__(self, config: Endpointing) -> None:
        self._config = config
        self._voice_s = 0.0
        self.silence_s = 0.0
        """Seconds of audio since the last speech in the turn."""
        self.pause_limit_s = config.timeout_s
        """Seconds of silence that end the turn."""
        self._partial_at = 0.0
        self._passed_steps: set[EndpointingStep] = set()
        self.in_turn = False
        self.speech_start = 0.0
        """When the speech began, in clock seconds."""
        self.speech_end = 0.0
        """When it last was heard, in clock seconds."""

    @property
    def is_speaking(self) -> bool:
        """The person is in a turn, and not in a pause of it."""
        return self.in_turn and EndpointingStep.PAUSED not in self._passed_steps

    def push(self, probability: float, seconds: float, now: float) -> list[EndpointingStep]:
        """Take the voice activity of the ``seconds`` of sound that end ``now``."""
        config = self._config
        if probability > config.threshold:
            self._voice_s += seconds
            return self._push_voice(now)
        self._voice_s = 0.0
        if not self.in_turn:
            return []
        self.silence_s += seconds
        steps = []
        for step, after in (
            (EndpointingStep.PAUSED, config.speculate_s),
            (EndpointingStep.VOTE, config.vote_s),
            (EndpointingStep.TIMEOUT, self.pause_limit_s),
        ):
            if step not in self._passed_steps and self.silence_s >= after - 1e-9:
                self._passed_steps.add(step)
                steps.append(step)
        return steps

    def set_pause_limit(self, seconds: float) -> None:
        """Set the silence of this pause that ends the turn to ``seconds``."""
        self.pause_limit_s = seconds
        if self.silence_s < seconds - 1e-9:
            self._passed_steps.discard(EndpointingStep.TIMEOUT)

    def end(self) -> None:
        """The turn is over; wait for the next."""
        self.in_turn = False
        self._voice_s = 0.0
        self._reset_pause()

    def _reset_pause(self) -> None:
        self.silence_s = 0.0
        self.pause_limit_s = self._config.timeout_s
        self._passed_steps.clear()

    def _push_voice(self, now: float) -> list[EndpointingStep]:
        config = self._config
        if not self.in_turn:
            if self._voice_s < config.start_s - 1e-9:
                return []
            self.in_turn = True
            self.speech_start = now - self._voice_s
            self._partial_at = now + config.partial_s
            self.silence_s = 0.0
            self.speech_end = now
            return [EndpointingStep.STARTED]
        paused = EndpointingStep.PAUSED in self._passed_steps
        if paused and self._voice_s < config.resume_s - 1e-9:
            return []
        self.speech_end = now
        self._reset_pause()
        if paused:
            return [EndpointingStep.RESUMED]
        if now >= self._partial_at:
            self._partial_at = now + config.partial_s
            return [EndpointingStep.PARTIAL]
        return []
