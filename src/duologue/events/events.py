"""All events that an agent sends to its program: frozen dataclasses, in the order they happened."""

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
    """The base of all events: ``at`` is when it was sent, in seconds since 1970 (Unix time).

    It is 0.0 before that. It is counted by the conversation's own clock from the first event on, so
    differences are exact even if the wall clock is set meanwhile or time is virtual. Events compare
    equal regardless of ``at``.
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
    """The connection is lost, and the next one is being made."""

    reason: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RealtimeReconnectedEvent(TimedEvent):
    """The session continues; ``outcome`` says what the model still knows (contract C5)."""

    outcome: Literal["restored", "replayed", "fresh"]
    lost_ms: int = 0
    gap_ms: int = 0


@dataclass(frozen=True, slots=True)
class RealtimeDisconnectedEvent(TimedEvent):
    """The session has ended; sent exactly once. ``clean``: it was closed on purpose."""

    reason: str
    clean: bool


@dataclass(frozen=True, slots=True)
class UserTurnStartedEvent(TimedEvent):
    """The person began to speak; ``turn_id`` is the id of the turn, and of its `UserItem`.

    ``speech_ms``: how long they had been speaking when it was sent, in ms; None if unknown.
    """

    participant: str
    turn_id: str = field(default="", compare=False)
    speech_ms: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class UserTurnEndedEvent(TimedEvent):
    """The person stopped; ``text`` is what they said, None if it is not known yet.

    ``empty``: there was no speech, and no transcript will come (a cough). Otherwise a transcript
    that comes later is sent as a final `UserTranscriptEvent` with the same ``turn_id``.
    ``silence_ms``: how long they had been silent when it was sent, in ms; None if unknown.
    ``ended_by``: what decided that it was over: the ``vote`` of a turn detector, ``silence``, or
    the ``program``; "" where a service decides. ``votes``: the detector's probabilities that it
    was over, in their order; the newest 16.
    """

    participant: str
    text: str | None
    empty: bool = False
    turn_id: str = field(default="", compare=False)
    silence_ms: float | None = field(default=None, compare=False)
    ended_by: Literal["", "vote", "silence", "program"] = field(default="", compare=False)
    votes: Sequence[float] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class UserTranscriptEvent(TimedEvent):
    """The transcript of a user turn so far or, when ``final``, all of it."""

    text: str
    final: bool
    participant: str
    turn_id: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ReplyStartedEvent(TimedEvent):
    """The model began a reply, which may become speech, tool calls, or both."""

    reply_id: str


@dataclass(frozen=True, slots=True)
class ReplyDoneEvent(TimedEvent):
    """The model has ended a reply, which may still be playing.

    ``speech_id`` is the speech that plays it; None if it was not spoken.
    """

    reply_id: str
    status: Literal["completed", "cancelled", "failed"]
    speech_id: str | None = None


@dataclass(frozen=True, slots=True)
class DigitEvent(TimedEvent):
    """The person pressed a key of their telephone: 0 to 9, ``*``, ``#``, or A to D."""

    digit: str
    participant: str


@dataclass(frozen=True, slots=True)
class AgentTurnStartedEvent(TimedEvent):
    """The first audio of a speech is on its way to the person."""

    speech_id: str


@dataclass(frozen=True, slots=True)
class AgentTranscriptEvent(TimedEvent):
    """The next text of a speech, as it is made; when ``final``, all of it that was heard."""

    text: str
    final: bool
    speech_id: str


@dataclass(frozen=True, slots=True)
class AgentHeardEvent(TimedEvent):
    """More of a speech was heard: the text since the last event, at most five times a second."""

    text: str
    speech_id: str


@dataclass(frozen=True, slots=True)
class AgentTurnEndedEvent(TimedEvent):
    """A speech has been played to its end, or was interrupted (not: has been generated)."""

    speech_id: str
    interrupted: bool


@dataclass(frozen=True, slots=True)
class SpeechHeldEvent(TimedEvent):
    """The agent stopped because the person may be speaking; not an interruption yet.

    ``reason``: a ``voice`` was heard here, a ``signal`` of the model said that the person speaks,
    or the ``model`` has stopped its reply.
    """

    speech_id: str
    reason: Literal["", "voice", "signal", "model"] = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class SpeechResumedEvent(TimedEvent):
    """The person did not speak; the agent continues where it stopped, after ``held_ms``.

    ``reason``: the turn was ``empty``, or nothing that interrupts came in ``time``.
    """

    speech_id: str
    held_ms: int
    reason: Literal["", "empty", "time"] = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class InterruptionEvent(TimedEvent):
    """A speech was interrupted: what was heard of it, and how well that is known (contract C2).

    ``cause``: ``words`` of the person, their ``voice``, the ``model``, which stopped by itself, or
    the ``program``.
    """

    epoch: int
    speech_id: str | None
    played_ms: int
    heard_text: str
    quality: Quality
    cause: Literal["words", "voice", "model", "program"] = field(default="program", compare=False)


@dataclass(frozen=True, slots=True)
class ToolStartEvent(TimedEvent):
    """A tool starts to run; ``arguments`` is the JSON text that the model wrote."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolEndEvent(TimedEvent):
    """A tool has ended; sent exactly once for every start."""

    call_id: str
    name: str
    status: Literal["done", "failed", "timeout", "cancelled"]
    output: str
    seconds: float


USAGE_PARTS = frozenset({"cached", "reasoning"})
"""Kinds of usage that are already counted in others."""


@dataclass(frozen=True, slots=True)
class UsageEvent(TimedEvent):
    """Tokens used since the last event, by modality.

    ``cached`` and ``reasoning`` (`USAGE_PARTS`) are already counted in other kinds.
    """

    input: Mapping[str, int]
    output: Mapping[str, int]

    @property
    def total_input(self) -> int:
        """Tokens sent to the model, each counted once."""
        return _total(self.input)

    @property
    def total_output(self) -> int:
        """Tokens made by the model, each counted once."""
        return _total(self.output)


def _total(counts: Mapping[str, int]) -> int:
    return sum(count for kind, count in counts.items() if kind not in USAGE_PARTS)


@dataclass(frozen=True, slots=True)
class RateLimitsEvent(TimedEvent):
    """What remains of the provider's limits."""

    limits: Sequence[RateLimit]


@dataclass(frozen=True, slots=True)
class SayMismatchEvent(TimedEvent):
    """The model had to say ``wanted`` word for word, and said ``said`` instead."""

    speech_id: str
    wanted: str
    said: str


@dataclass(frozen=True, slots=True)
class TurnMetricsEvent(TimedEvent):
    """Where the time of one turn went, in ms after the end of the person's speech; None: unknown.

    ``endpoint_ms``: the end of the turn was decided. ``transcript_ms``: the transcript arrived.
    ``first_text_ms``: first text of the model. ``first_audio_ms``: first audio was made.
    ``first_played_ms``: first audio was on its way to the person.
    """

    speech_id: str
    endpoint_ms: float | None
    transcript_ms: float | None
    first_text_ms: float | None
    first_audio_ms: float | None
    first_played_ms: float | None


@dataclass(frozen=True, slots=True)
class ErrorEvent(TimedEvent):
    """Something failed, and the conversation continues; ``source`` names the part.

    The source ``request`` is a request for a reply that the model has refused. The code ``ended``
    of the source ``edge`` says that the connection to the person has failed, which ends the
    conversation.
    """

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
    | ReplyStartedEvent
    | ReplyDoneEvent
    | DigitEvent
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
