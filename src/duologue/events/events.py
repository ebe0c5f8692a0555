"""Everything that an agent tells its program: frozen dataclasses, in the order it happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from duologue.json_types import Json
from duologue.quality import Quality


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit of the provider: ``remaining`` of ``limit``, full again in ``reset_s`` seconds."""

    name: str
    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class TimedEvent:
    """What all events have: ``at``, when it was sent, in seconds since 1970 (Unix time).

    0.0 before it was sent. It is counted by the conversation's own clock from the first event on,
    so that differences are exact, also where the wall clock is set meanwhile or time is virtual.
    Two events are equal whenever they were sent.
    """

    at: float = field(default=0.0, compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class RealtimeConnectedEvent(TimedEvent):
    """The session with the model is live."""

    session_id: str
    session_config: Mapping[str, Json] = field(default_factory=dict)
    capabilities: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RealtimeReconnectingEvent(TimedEvent):
    """The connection is gone and the next one is being made."""

    reason: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RealtimeReconnectedEvent(TimedEvent):
    """The session goes on; ``outcome`` says what the model still knows (contract C5)."""

    outcome: Literal["restored", "replayed", "fresh"]
    lost_ms: int = 0
    gap_ms: int = 0


@dataclass(frozen=True, slots=True)
class RealtimeDisconnectedEvent(TimedEvent):
    """The session has ended; comes exactly once. ``clean`` when it was closed on purpose."""

    reason: str
    clean: bool


@dataclass(frozen=True, slots=True)
class UserTurnStartedEvent(TimedEvent):
    """The person began to speak; ``turn_id`` is the id of the turn, and of its `UserItem`."""

    participant: str
    turn_id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class UserTurnEndedEvent(TimedEvent):
    """The person stopped; ``text`` is what they said, None if it is not known yet.

    ``empty``: there were no words, and none will come (a cough). Otherwise words that come later
    are sent as a final `UserTranscriptEvent` with the same ``turn_id``.
    """

    participant: str
    text: str | None
    empty: bool = False
    turn_id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class UserTranscriptEvent(TimedEvent):
    """What the person has said in this turn so far, or, when ``final``, in all of it."""

    text: str
    final: bool
    participant: str
    turn_id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class AgentTurnStartedEvent(TimedEvent):
    """The first sound of a speech is on its way to the person."""

    speech_id: str


@dataclass(frozen=True, slots=True)
class AgentTranscriptEvent(TimedEvent):
    """The next words of a speech, as they are made; when ``final``, all of it that was heard."""

    text: str
    final: bool
    speech_id: str


@dataclass(frozen=True, slots=True)
class AgentHeardEvent(TimedEvent):
    """More of a speech was heard: the words since the last event, at most five times a second."""

    text: str
    speech_id: str


@dataclass(frozen=True, slots=True)
class AgentTurnEndedEvent(TimedEvent):
    """A speech has been played to its end, or was cut (not: has been generated)."""

    speech_id: str
    interrupted: bool


@dataclass(frozen=True, slots=True)
class SpeechHeldEvent(TimedEvent):
    """The agent fell silent because the person may be speaking; not an interruption yet."""

    speech_id: str


@dataclass(frozen=True, slots=True)
class SpeechResumedEvent(TimedEvent):
    """It was nothing; the agent goes on where it stopped, after ``held_ms``."""

    speech_id: str
    held_ms: int


@dataclass(frozen=True, slots=True)
class InterruptionEvent(TimedEvent):
    """A speech was cut; says what was heard of it, and how well that is known (contract C2)."""

    epoch: int
    speech_id: str | None
    played_ms: int
    heard_text: str
    quality: Quality


@dataclass(frozen=True, slots=True)
class ToolStartEvent(TimedEvent):
    """A tool begins to run; ``arguments`` is the JSON text that the model wrote."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolEndEvent(TimedEvent):
    """A tool has ended; every start has exactly one."""

    call_id: str
    name: str
    status: Literal["done", "failed", "timeout", "cancelled"]
    output: str
    seconds: float


USAGE_PARTS = frozenset({"cached", "reasoning"})
"""Kinds of usage that are already counted in others."""


@dataclass(frozen=True, slots=True)
class UsageEvent(TimedEvent):
    """Tokens spent since the last event, by modality.

    ``cached`` and ``reasoning`` (`USAGE_PARTS`) are counted in other kinds already.
    """

    input: Mapping[str, int]
    output: Mapping[str, int]

    @property
    def total_input(self) -> int:
        """Tokens given to the model, each counted once."""
        return _total(self.input)

    @property
    def total_output(self) -> int:
        """Tokens made by the model, each counted once."""
        return _total(self.output)


def _total(counts: Mapping[str, int]) -> int:
    return sum(count for kind, count in counts.items() if kind not in USAGE_PARTS)


@dataclass(frozen=True, slots=True)
class RateLimitsEvent(TimedEvent):
    """What is left of the provider's limits."""

    limits: Sequence[RateLimit]


@dataclass(frozen=True, slots=True)
class SayMismatchEvent(TimedEvent):
    """The model was to say ``wanted`` word for word, and said ``said`` instead."""

    speech_id: str
    wanted: str
    said: str


@dataclass(frozen=True, slots=True)
class TurnMetricsEvent(TimedEvent):
    """Where the time of one turn went, each in ms after the person's speech ended; None: unknown.

    ``endpoint_ms``: the end of the turn was decided. ``first_text_ms``: first word of the model.
    ``first_audio_ms``: first sound made. ``first_played_ms``: first sound on its way to the person.
    """

    speech_id: str
    endpoint_ms: float | None
    transcript_ms: float | None
    first_text_ms: float | None
    first_audio_ms: float | None
    first_played_ms: float | None


@dataclass(frozen=True, slots=True)
class ErrorEvent(TimedEvent):
    """Something failed and the conversation goes on; ``source`` names the part."""

    source: str
    message: str
    code: str = ""


type Event = (
    RealtimeConnectedEvent
    | RealtimeReconnectingEvent
    | RealtimeReconnectedEvent
    | RealtimeDisconnectedEvent
    | UserTurnStartedEvent
    | UserTurnEndedEvent
    | UserTranscriptEvent
    | AgentTurnStartedEvent
    | AgentTranscriptEvent
    | AgentHeardEvent
    | AgentTurnEndedEvent
    | SpeechHeldEvent
    | SpeechResumedEvent
    | InterruptionEvent
    | ToolStartEvent
    | ToolEndEvent
    | UsageEvent
    | RateLimitsEvent
    | SayMismatchEvent
    | TurnMetricsEvent
    | ErrorEvent
)
