"""When a person's sound interrupts the agent: hold first, then decide."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from duologue.pipeline.words import has_words
from duologue.realtime.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BargeInPolicy:
    """How readily a person interrupts the agent.

    ``min_speech_s``: shorter speech never interrupts. ``words_within_s``: after so long without a
    word, held agent sound goes on (a cough). ``enabled=False``: nobody interrupts by speaking.
    Raises `ConfigError` for negative times.
    """

    min_speech_s: float = 0.2
    words_within_s: float = 0.6
    enabled: bool = True

    def __post_init__(self) -> None:
        if self.min_speech_s < 0 or self.words_within_s < 0:
            raise ConfigError("BargeInPolicy takes times of 0 s or more")


class Decision(Enum):
    """What to do with the agent's sound."""

    NOTHING = "nothing"
    HOLD = "hold"
    RESUME = "resume"
    INTERRUPT = "interrupt"


class BargeIn:
    """Takes the signals of one conversation and decides; sans-IO, every call takes the time.

    ``needs_words``: the model tells words while they are being spoken, so that a cough can be told
    from a sentence; without that, speech of ``min_speech_s`` interrupts by itself.

    Every method returns a `Decision`; `deadline` says when to call `poll` next.
    """

    __slots__ = ("_began", "_ended", "_held_at", "_needs_words", "_policy", "_polled", "_words")

    def __init__(self, policy: BargeInPolicy, *, needs_words: bool) -> None:
        self._policy = policy
        self._needs_words = needs_words
        self._began: float | None = None
        self._ended: float | None = None
        self._held_at: float | None = None
        self._words = False
        self._polled = float("-inf")

    @property
    def held(self) -> bool:
        """It decided to hold, and neither to resume nor to interrupt since."""
        return self._held_at is not None

    @property
    def deadline(self) -> float | None:
        """When `poll` is due, in clock seconds; None while nothing is to be decided."""
        if self._held_at is None:
            return None
        times = [self._held_at + self._policy.words_within_s]
        if self._began is not None and (self._words or not self._needs_words):
            times.append(self._began + self._policy.min_speech_s)
        return min((time for time in times if time > self._polled), default=None)

    def speech_started(self, now: float, *, may_interrupt: bool, began: float | None) -> Decision:
        """The person seems to speak, since ``began`` where that is known."""
        if self._began is None or self._ended is not None:
            self._began = now if began is None else min(began, now)
            self._words = False
        self._ended = None
        if not (may_interrupt and self._policy.enabled) or self._held_at is not None:
            return Decision.NOTHING
        self._held_at = now
        return Decision.HOLD

    def words(self, text: str, now: float, *, may_interrupt: bool) -> Decision:
        """A transcript of what is being said, partial or final."""
        if not has_words(text):
            return Decision.NOTHING
        self._words = True
        return self._decide(now, may_interrupt=may_interrupt)

    def speech_stopped(self, now: float, *, may_interrupt: bool, ended: float | None) -> Decision:
        """The person fell silent, at ``ended`` where that is known."""
        if self._began is not None:
            self._ended = now if ended is None else min(ended, now)
        return self._decide(now, may_interrupt=may_interrupt)

    def poll(self, now: float, *, may_interrupt: bool) -> Decision:
        """Some time has passed."""
        return self._decide(now, may_interrupt=may_interrupt)

    def turn_ended(self, *, empty: bool) -> Decision:
        """The turn is over; ``empty`` when it had no words, and the sound goes on at once."""
        self._began = self._ended = None
        self._words = False
        if self._held_at is not None and empty:
            self._held_at = None
            return Decision.RESUME
        return Decision.NOTHING

    def interrupted(self) -> None:
        """The agent was interrupted, by whatever; a hold has ended with it."""
        self._held_at = None

    def _decide(self, now: float, *, may_interrupt: bool) -> Decision:
        self._polled = now
        if not self._policy.enabled:
            return Decision.NOTHING
        if may_interrupt and self._is_speech(now):
            self._held_at = None
            return Decision.INTERRUPT
        if self._held_at is not None and now - self._held_at >= self._policy.words_within_s - 1e-9:
            self._held_at = None
            return Decision.RESUME
        return Decision.NOTHING

    def _is_speech(self, now: float) -> bool:
        if self._began is None:
            return False
        seconds = (now if self._ended is None else self._ended) - self._began
        if seconds < self._policy.min_speech_s - 1e-9:
            return False
        return self._words or not self._needs_words
