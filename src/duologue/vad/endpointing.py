"""Finds out from voice activity when a person speaks, pauses and has finished; sans-IO.

    voice      ####..####.....................######
    silence                 0.06  0.15   0.7      2.0 s
    step       STARTED      PAUSED  VOTE   TIMEOUT
                            RESUMED if the voice returns before the turn is ended

`PAUSED` starts a speculative reply, `VOTE` asks the turn detector, and `TIMEOUT` ends a turn that
no vote has ended. `RESUMED` discards the speculative reply. A detector that expects the person to
continue moves `TIMEOUT` further away, up to ``max_pause_s``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from duologue.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Endpointing:
    """When a turn begins and ends; all times are in seconds.

    Args:
        threshold: Probability above which a frame is voice.
        start_s: Voice without a gap that begins a turn.
        resume_s: Voice without a gap that resumes a turn after a pause.
        speculate_s: Silence after which STT and LLM start on what may be the end of the turn.
        vote_s: Silence after which the turn detector is asked.
        timeout_s: Silence that ends a turn without a detector or without its vote.
        max_pause_s: Silence that ends a turn whatever the detector says. The surer the detector is
            that the person continues, the longer is the wait, between ``timeout_s`` and this.
        probability: The turn is over when the detector's probability reaches this.
        preroll_s: Audio before the first sign of speech that belongs to the turn.
        partial_s: Time between partial transcripts.

    Raises:
        ConfigError: A value is out of range or the times are out of order.
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
            raise ConfigError("threshold and probability must be between 0 and 1")
        if not 0 < self.speculate_s <= self.vote_s <= self.timeout_s:
            raise ConfigError("times must be in order: 0 < speculate_s <= vote_s <= timeout_s")
        if self.max_pause_s <= 0:
            raise ConfigError("max_pause_s must be above 0")

    def pause_limit_s(self, probability: float | None) -> float:
        """Return the silence that ends a turn, in seconds.

        Args:
            probability: The detector's probability that the turn is over, below that of
                `Endpointing`; None without a vote.
        """
        if probability is None:
            return self.timeout_s
        longest = max(self.max_pause_s, self.timeout_s)
        continuing = 1.0 - probability / self.probability if self.probability else 0.0
        return self.timeout_s + min(max(0.0, continuing), 1.0) * (longest - self.timeout_s)


class EndpointingStep(Enum):
    """What happened in a stretch of audio."""

    STARTED = "started"
    """The person has spoken since `Endpointer.speech_start`."""
    PARTIAL = "partial"
    """The person continues to speak, and a partial transcript is due."""
    PAUSED = "paused"
    """The person may have finished: start a reply."""
    VOTE = "vote"
    """The person is still silent: ask the turn detector."""
    RESUMED = "resumed"
    """The person speaks again: discard the reply."""
    TIMEOUT = "timeout"
    """The person has been silent long enough to end the turn."""


class Endpointer:
    """Follows one stream of voice activity: `push` takes it in order and returns the steps."""

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
        """Seconds of silence since the last speech in the turn."""
        self.pause_limit_s = config.timeout_s
        """Seconds of silence that end the turn."""
        self._partial_at = 0.0
        self._passed_steps: set[EndpointingStep] = set()
        self.in_turn = False
        self.speech_start = 0.0
        """When the speech began, in clock seconds."""
        self.speech_end = 0.0
        """When speech was last detected, in clock seconds."""

    @property
    def is_speaking(self) -> bool:
        """Whether the person is in a turn and not pausing."""
        return self.in_turn and EndpointingStep.PAUSED not in self._passed_steps

    def push(self, probability: float, seconds: float, now: float) -> list[EndpointingStep]:
        """Process the voice activity of the ``seconds`` of audio that end at ``now``."""
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
        """Set the silence that ends the turn in this pause to ``seconds``."""
        self.pause_limit_s = seconds
        if self.silence_s < seconds - 1e-9:
            self._passed_steps.discard(EndpointingStep.TIMEOUT)

    def end(self) -> None:
        """End the turn and wait for the next."""
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
