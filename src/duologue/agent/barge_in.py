"""Decide when the person interrupts the agent: hold first, then decide.

The agent's audio is held at the first sign of a voice, which loses nothing. Within
`BargeInPolicy.words_within_s` one of these decides::

    a transcript has words      it was speech: interrupt, however short it was
    no transcript (yet)         judge the voice itself, where `VoiceMeter` measures it: if it is
                                long enough and has the properties of speech, interrupt
    neither                     it was a cough, or nothing: resume

Transcripts may come late, after the turn has ended, because many services transcribe a turn only
then. So a turn that overlapped the agent's speech and ended undecided stays *open*: the model's
automatic reply to it is dropped. If a transcript with words arrives later, it interrupts the agent,
and the model replies to the turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from duologue._bounded_dict import BoundedDict
from duologue.errors import ConfigError

MAX_SIGNAL_DELAY_S = 1.5
"""A model's signal refers to voice that started at most this many seconds earlier."""
_MAX_OPEN_TURNS = 16
"""Ended turns whose transcript may still come; beyond it the oldest is dropped."""


@dataclass(frozen=True, slots=True)
class BargeInPolicy:
    """How readily a person interrupts the agent.

    Attributes:
        min_speech_s: Shorter speech never interrupts, in seconds.
        without_words_s: Speech of this many seconds interrupts even if no transcript of it is
            known, where the model does not transcribe while the person speaks.
        words_within_s: Seconds after which held agent audio resumes if neither interrupted (a
            cough).
        enabled: If False, speaking never interrupts.

    Raises:
        ConfigError: If a time is negative.
    """

    min_speech_s: float = 0.1
    without_words_s: float = 0.35
    words_within_s: float = 0.6
    enabled: bool = True

    def __post_init__(self) -> None:
        if min(self.min_speech_s, self.without_words_s, self.words_within_s) < 0:
            raise ConfigError("BargeInPolicy times must be 0 s or more")


class Decision(Enum):
    """What to do with the agent's audio."""

    NOTHING = "nothing"
    HOLD = "hold"
    RESUME = "resume"
    INTERRUPT = "interrupt"


type Reason = Literal["voice", "signal", "model", "empty", "time", "words"]


class VoiceMeasurement(Protocol):
    """A measurement of the person's voice; `VoiceMeter` implements it."""

    @property
    def stretch_count(self) -> int:
        """Stretches of voice that have started so far."""
        ...

    @property
    def started_at(self) -> float:
        """When the newest stretch started, in clock seconds."""
        ...

    @property
    def seconds(self) -> float:
        """Seconds of voice in the newest stretch so far."""
        ...

    @property
    def active(self) -> bool:
        """Whether there is voice in the newest stretch at this moment."""
        ...

    def is_speech(self) -> bool:
        """Return whether the newest stretch has the properties of speech so far."""
        ...


class BargeIn:
    """Decide from the signals of one conversation; sans-IO, every call gets the time.

    Every method that takes a signal returns a `Decision`; `deadline` says when to call `poll` next.

    Args:
        policy: How readily the person interrupts.
        needs_words: The model transcribes while the person speaks, so voice without a transcript
            never interrupts.
        voice: Measures the person's voice. Without it, lengths come from the model's signals.
        follows_model: If the model stops by itself, because it detected speech, interrupt the
            agent. Otherwise that is only one more sign that the person may be speaking.
    """

    __slots__ = (
        "_could_interrupt",
        "_earlier_voice_s",
        "_follows_model",
        "_has_words",
        "_held_at",
        "_last_poll",
        "_longest_voice_s",
        "_model_stopped",
        "_needs_words",
        "_open_turns",
        "_policy",
        "_reason",
        "_speech_end",
        "_speech_start",
        "_stretch",
        "_turn_id",
        "_voice",
    )

    def __init__(
        self,
        policy: BargeInPolicy,
        *,
        needs_words: bool,
        voice: VoiceMeasurement | None = None,
        follows_model: bool = True,
    ) -> None:
        self._policy = policy
        self._needs_words = needs_words
        self._voice = voice
        self._follows_model = follows_model
        self._could_interrupt = False
        """Whether there was something to interrupt at the last measurement."""
        self._speech_start: float | None = None
        self._speech_end: float | None = None
        self._held_at: float | None = None
        self._has_words = False
        self._last_poll = float("-inf")
        self._stretch = 0
        """Number of the newest measured stretch of voice."""
        self._earlier_voice_s = 0.0
        """Seconds of voice in the newest stretch before there was anything to interrupt."""
        self._longest_voice_s = 0.0
        """Seconds of voice in the longest stretch of the turn."""
        self._turn_id: str | None = None
        """The turn that overlaps the agent's speech."""
        self._model_stopped = False
        """Whether the model has stopped by itself in this turn."""
        self._reason: Reason = "time"
        self._open_turns: BoundedDict[str, float] = BoundedDict(_MAX_OPEN_TURNS)
        """Seconds of speech in each open turn."""

    @property
    def reason(self) -> Reason:
        """Why it took its last decision, if that was one to do something.

        A hold: a ``voice`` was measured, the model's ``signal`` said that the person speaks, or the
        ``model`` stopped by itself. A resumption: the turn was ``empty``, or the ``time`` was over.
        An interruption: by ``words``, by a ``voice``, or by the ``model``.
        """
        return self._reason

    @property
    def held(self) -> bool:
        """Whether it has decided to hold, and neither to resume nor to interrupt since."""
        return self._held_at is not None

    @property
    def deadline(self) -> float | None:
        """When `poll` is due, in clock seconds; None while no decision is pending."""
        if self._held_at is None:
            return None
        times = [self._held_at + self._policy.words_within_s]
        if self._speech_start is not None:
            if self._has_words:
                times.append(self._speech_start + self._policy.min_speech_s)
            elif not self._needs_words and self._voice is None:
                times.append(self._speech_start + self._policy.without_words_s)
        return min((time for time in times if time > self._last_poll), default=None)

    def voice_measured(self, now: float, *, may_interrupt: bool) -> Decision:
        """Decide by the voice measured up to ``now``; call this while the voice lasts."""
        voice = self._voice
        if voice is None:
            return Decision.NOTHING
        fresh = voice.stretch_count != self._stretch
        if fresh:
            self._stretch, self._earlier_voice_s = voice.stretch_count, 0.0
        if not (may_interrupt and self._policy.enabled):
            # Voice from before there was anything to interrupt is no barge-in.
            self._earlier_voice_s, self._could_interrupt = voice.seconds, False
            return self._decide(now, may_interrupt=may_interrupt)
        first = voice.active and (fresh or not self._could_interrupt)
        self._could_interrupt = True
        self._longest_voice_s = max(self._longest_voice_s, voice.seconds - self._earlier_voice_s)
        if first and self._held_at is None:
            self._held_at, self._reason = now, "voice"
            return Decision.HOLD
        return self._decide(now, may_interrupt=may_interrupt)

    def speech_started(
        self, now: float, *, may_interrupt: bool, started_at: float | None, turn_id: str = ""
    ) -> Decision:
        """Record the model's signal that the person speaks, if known since ``started_at``."""
        if self._speech_start is None or self._speech_end is not None:
            self._speech_start = now if started_at is None else min(started_at, now)
            self._has_words = False
        self._speech_end = None
        if not (may_interrupt and self._policy.enabled):
            return Decision.NOTHING
        self._turn_id = turn_id
        return self._hold(now, "signal")

    def model_stopped(self, now: float, *, may_interrupt: bool) -> Decision:
        """Record that the model stopped by itself, because it detected speech."""
        if not may_interrupt:
            return Decision.NOTHING
        if self._follows_model:
            self._reason = "model"
            return Decision.INTERRUPT
        self._model_stopped = True
        decision = self._decide(now, may_interrupt=may_interrupt)
        if decision is not Decision.NOTHING or not self._policy.enabled:
            return decision
        return self._hold(now, "model")

    def transcript_received(
        self, text: str, now: float, *, may_interrupt: bool, turn_id: str = ""
    ) -> Decision:
        """Decide by a transcript, partial or final, of the current turn or of an open one."""
        from duologue.vad.words import has_words  # takes 15 ms to import

        if not has_words(text):
            return Decision.NOTHING
        if turn_id in self._open_turns:
            long_enough = self._open_turns[turn_id] >= self._policy.min_speech_s - 1e-9
            if may_interrupt and self._policy.enabled and long_enough:
                self._reason = "words"
                return Decision.INTERRUPT
            return Decision.NOTHING
        self._has_words = True
        return self._decide(now, may_interrupt=may_interrupt)

    def speech_stopped(
        self, now: float, *, may_interrupt: bool, ended_at: float | None
    ) -> Decision:
        """Record the model's signal that the person fell silent, if known at ``ended_at``."""
        if self._speech_start is not None:
            self._speech_end = now if ended_at is None else min(ended_at, now)
        return self._decide(now, may_interrupt=may_interrupt)

    def poll(self, now: float, *, may_interrupt: bool) -> Decision:
        """Decide by the time that has passed."""
        return self._decide(now, may_interrupt=may_interrupt)

    def turn_ended(
        self, *, empty: bool, may_interrupt: bool = False, turn_id: str = ""
    ) -> Decision:
        """Record the end of a turn; resume at once if it was ``empty`` (had no words)."""
        if self._turn_id == turn_id and may_interrupt and not (self._has_words or empty):
            self._open_turns[turn_id] = (
                self._longest_voice_s or self._signalled_s(float("inf")) or 0.0
            )
        self._speech_start = self._speech_end = self._turn_id = None
        self._has_words = self._model_stopped = False
        self._longest_voice_s = 0.0
        if self._held_at is not None and empty:
            self._held_at, self._reason = None, "empty"
            return Decision.RESUME
        return Decision.NOTHING

    def is_turn_open(self, turn_id: str) -> bool:
        """Return whether a turn has ended while it is unknown whether it was speech."""
        return turn_id in self._open_turns

    def close_turn(self, turn_id: str) -> None:
        """Forget an open turn, because it is known now whether it was speech."""
        self._open_turns.pop(turn_id, None)

    def agent_interrupted(self) -> None:
        """Record that the agent was interrupted, whatever the cause; this ends a hold."""
        self._held_at = self._turn_id = None
        self._model_stopped = False

    def _hold(self, now: float, reason: Literal["signal", "model"]) -> Decision:
        """Hold on a signal of the model, unless the voice that caused it was measured here."""
        voice = self._voice
        known = voice is not None and now - voice.started_at < MAX_SIGNAL_DELAY_S
        if self._held_at is not None or known:
            return Decision.NOTHING
        self._held_at, self._reason = now, reason
        return Decision.HOLD

    def _decide(self, now: float, *, may_interrupt: bool) -> Decision:
        self._last_poll = now
        if not self._policy.enabled:
            return Decision.NOTHING
        if may_interrupt and self._is_speech(now):
            self._held_at, self._reason = None, "words" if self._has_words else "voice"
            return Decision.INTERRUPT
        if self._held_at is not None and now - self._held_at >= self._policy.words_within_s - 1e-9:
            self._held_at, self._reason = None, "time"
            return Decision.RESUME
        return Decision.NOTHING

    def _is_speech(self, now: float) -> bool:
        policy, voice = self._policy, self._voice
        if self._has_words:
            seconds = self._longest_voice_s or self._signalled_s(now)
            if seconds is None:
                return self._model_stopped
            return seconds >= policy.min_speech_s - 1e-9
        if self._needs_words:
            return False
        if voice is not None:
            seconds = (
                voice.seconds - self._earlier_voice_s
                if voice.stretch_count == self._stretch
                else 0.0
            )
            return seconds >= policy.without_words_s - 1e-9 and voice.is_speech()
        seconds = self._signalled_s(now)
        return seconds is not None and seconds >= policy.without_words_s - 1e-9

    def _signalled_s(self, now: float) -> float | None:
        """Return the seconds of the person's speech by the model's signals; None without any."""
        if self._speech_start is None:
            return None
        return (now if self._speech_end is None else self._speech_end) - self._speech_start
