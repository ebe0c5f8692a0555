"""Decide when the person interrupts the agent: hold first, then decide.

The agent's audio is held at the first sign of a voice, which loses nothing. Within
`BargeInPolicy.words_within_s` one of these decides::

    words of it are known       it was speech: interrupt, however short it was
    no words are known (yet)    judge the voice itself, where `VoiceMeter` measures it: if it is
                                long enough and has the properties of speech, interrupt
    neither                     it was a cough, or nothing: resume

Words may come late, after the turn has ended, because many services transcribe a turn only then. So
a turn that overlapped the agent's speech and ended undecided stays *open*: the model's automatic
reply to it is dropped. If words arrive later, they interrupt the agent and the turn is answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from duologue.pipeline.words import has_words
from duologue.realtime.errors import ConfigError

RECENT_S = 1.5
"""A model's own signal refers to a stretch of voice that began at most this many seconds ago."""
_MAX_OPEN = 16
"""Turns that have ended and whose words may still come; beyond it the oldest is dropped."""


@dataclass(frozen=True, slots=True)
class BargeInPolicy:
    """How readily a person interrupts the agent; times in seconds.

    ``min_speech_s``: shorter speech never interrupts. ``without_words_s``: speech of this length
    interrupts although no word of it is known, where the model does not tell words while they are
    spoken. ``words_within_s``: without either, held agent audio resumes after this time (a cough).
    ``enabled=False``: speaking never interrupts. Raises `ConfigError` for negative times.
    """

    min_speech_s: float = 0.1
    without_words_s: float = 0.35
    words_within_s: float = 0.6
    enabled: bool = True

    def __post_init__(self) -> None:
        if min(self.min_speech_s, self.without_words_s, self.words_within_s) < 0:
            raise ConfigError("BargeInPolicy takes times of 0 s or more")


class Decision(Enum):
    """What to do with the agent's audio."""

    NOTHING = "nothing"
    HOLD = "hold"
    RESUME = "resume"
    INTERRUPT = "interrupt"


class Voice(Protocol):
    """A measurement of the person's voice: see `VoiceMeter`."""

    @property
    def count(self) -> int:
        """Stretches that have begun so far."""
        ...

    @property
    def began(self) -> float:
        """When the newest stretch began, in clock seconds."""
        ...

    @property
    def seconds(self) -> float:
        """Seconds of voice in the newest stretch so far."""
        ...

    @property
    def active(self) -> bool:
        """Whether there is voice in it at this moment."""
        ...

    def is_speech(self) -> bool:
        """Return whether the newest stretch has the properties of speech so far."""
        ...


class BargeIn:
    """Takes the signals of one conversation and decides; sans-IO, every call takes the time.

    ``needs_words``: the model transcribes words while they are being spoken, so voice without
    words never interrupts. ``voice`` measures the person's voice; without it lengths are taken
    from the model's signals. ``follows``: where the model stops by itself, because it has heard
    something, the agent does; otherwise that is only one more sign that the person may speak.

    Every method that takes a signal returns a `Decision`; `deadline` says when to call `poll` next.
    """

    __slots__ = (
        "_before",
        "_began",
        "_ended",
        "_follows",
        "_held_at",
        "_longest",
        "_may",
        "_model_stopped",
        "_needs_words",
        "_open",
        "_policy",
        "_polled",
        "_stretch",
        "_turn",
        "_voice",
        "_words",
    )

    def __init__(
        self,
        policy: BargeInPolicy,
        *,
        needs_words: bool,
        voice: Voice | None = None,
        follows: bool = True,
    ) -> None:
        self._policy = policy
        self._needs_words = needs_words
        self._voice = voice
        self._follows = follows
        self._may = False
        """Whether there was something to interrupt at the last measurement."""
        self._began: float | None = None
        self._ended: float | None = None
        self._held_at: float | None = None
        self._words = False
        self._polled = float("-inf")
        self._stretch = 0
        """Number of the newest stretch of voice that was measured."""
        self._before = 0.0
        """Seconds of voice in the newest stretch before there was anything to interrupt."""
        self._longest = 0.0
        """Seconds of voice in the longest stretch of the turn."""
        self._turn: str | None = None
        """The turn that is being spoken into the agent's speech."""
        self._model_stopped = False
        """Whether the model has stopped by itself in this turn."""
        self._open: dict[str, float] = {}
        """Open turns, and how long their speech was, in s."""

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
        if self._began is not None:
            if self._words:
                times.append(self._began + self._policy.min_speech_s)
            elif not self._needs_words and self._voice is None:
                times.append(self._began + self._policy.without_words_s)
        return min((time for time in times if time > self._polled), default=None)

    def listen(self, now: float, *, may_interrupt: bool) -> Decision:
        """Decide by the voice measured up to ``now``; call this while the voice lasts."""
        voice = self._voice
        if voice is None:
            return Decision.NOTHING
        fresh = voice.count != self._stretch
        if fresh:
            self._stretch, self._before = voice.count, 0.0
        if not (may_interrupt and self._policy.enabled):
            # Speech from before there was anything to interrupt is no barge-in.
            self._before, self._may = voice.seconds, False
            return self._decide(now, may_interrupt=may_interrupt)
        first = voice.active and (fresh or not self._may)
        self._may = True
        self._longest = max(self._longest, voice.seconds - self._before)
        if first and self._held_at is None:
            self._held_at = now
            return Decision.HOLD
        return self._decide(now, may_interrupt=may_interrupt)

    def speech_started(
        self, now: float, *, may_interrupt: bool, began: float | None, turn: str = ""
    ) -> Decision:
        """Record the model's signal that the person speaks, since ``began`` if that is known."""
        if self._began is None or self._ended is not None:
            self._began = now if began is None else min(began, now)
            self._words = False
        self._ended = None
        if not (may_interrupt and self._policy.enabled):
            return Decision.NOTHING
        self._turn = turn
        return self._hold(now)

    def model_stopped(self, now: float, *, may_interrupt: bool) -> Decision:
        """Record that the model stopped by itself, because it heard something."""
        if not may_interrupt:
            return Decision.NOTHING
        if self._follows:
            return Decision.INTERRUPT
        self._model_stopped = True
        decision = self._decide(now, may_interrupt=may_interrupt)
        if decision is not Decision.NOTHING or not self._policy.enabled:
            return decision
        return self._hold(now)

    def words(self, text: str, now: float, *, may_interrupt: bool, turn: str = "") -> Decision:
        """Decide by a transcript, partial or final, of the current turn or of an open one."""
        if not has_words(text):
            return Decision.NOTHING
        if turn in self._open:
            long_enough = self._open[turn] >= self._policy.min_speech_s - 1e-9
            interrupts = may_interrupt and self._policy.enabled and long_enough
            return Decision.INTERRUPT if interrupts else Decision.NOTHING
        self._words = True
        return self._decide(now, may_interrupt=may_interrupt)

    def speech_stopped(self, now: float, *, may_interrupt: bool, ended: float | None) -> Decision:
        """Record the model's signal that the person fell silent, at ``ended`` if that is known."""
        if self._began is not None:
            self._ended = now if ended is None else min(ended, now)
        return self._decide(now, may_interrupt=may_interrupt)

    def poll(self, now: float, *, may_interrupt: bool) -> Decision:
        """Some time has passed."""
        return self._decide(now, may_interrupt=may_interrupt)

    def turn_ended(self, *, empty: bool, may_interrupt: bool = False, turn: str = "") -> Decision:
        """Record the end of a turn; resume at once if it was ``empty`` (had no words)."""
        if self._turn == turn and may_interrupt and not (self._words or empty):
            self._open[turn] = self._longest or self._signalled(float("inf")) or 0.0
            if len(self._open) > _MAX_OPEN:
                del self._open[next(iter(self._open))]
        self._began = self._ended = self._turn = None
        self._words = self._model_stopped = False
        self._longest = 0.0
        if self._held_at is not None and empty:
            self._held_at = None
            return Decision.RESUME
        return Decision.NOTHING

    def is_open(self, turn: str) -> bool:
        """Return whether a turn has ended while it is unknown whether it was speech."""
        return turn in self._open

    def close(self, turn: str) -> None:
        """Forget an open turn, because it is known now whether it was speech."""
        self._open.pop(turn, None)

    def interrupted(self) -> None:
        """The agent was interrupted, by whatever; a hold has ended with it."""
        self._held_at = self._turn = None
        self._model_stopped = False

    def _hold(self, now: float) -> Decision:
        """Hold on a signal of the model, unless the voice that caused it was measured here."""
        voice = self._voice
        known = voice is not None and now - voice.began < RECENT_S
        if self._held_at is not None or known:
            return Decision.NOTHING
        self._held_at = now
        return Decision.HOLD

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
        policy, voice = self._policy, self._voice
        if self._words:
            seconds = self._longest or self._signalled(now)
            if seconds is None:
                return self._model_stopped
            return seconds >= policy.min_speech_s - 1e-9
        if self._needs_words:
            return False
        if voice is not None:
            seconds = voice.seconds - self._before if voice.count == self._stretch else 0.0
            return seconds >= policy.without_words_s - 1e-9 and voice.is_speech()
        seconds = self._signalled(now)
        return seconds is not None and seconds >= policy.without_words_s - 1e-9

    def _signalled(self, now: float) -> float | None:
        """Return how long the person has spoken by the model's signals, in s; None without any."""
        if self._began is None:
            return None
        return (now if self._ended is None else self._ended) - self._began
