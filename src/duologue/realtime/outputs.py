"""Outputs of a model: one closed union, made by a provider's codec or an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind
from duologue.events.events import RateLimit
from duologue.json_types import Json


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """The connection is live; ``expires_in`` is the provider's limit in seconds, if it has one.

    ``restored``: the provider itself has resumed the session of the connection before.
    ``confirms_updates``: the server confirms changes of a session, and so answers a `Ping` if the
    capabilities have ``answers_pings``.
    """

    config: Mapping[str, Json] = field(default_factory=dict)
    expires_in: float | None = None
    restored: bool = False
    confirms_updates: bool = True


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The person began to speak.

    ``at`` is when, in clock seconds, and ``position`` where in the audio sent on this connection,
    in samples at the model's input rate; None where unknown.
    """

    item_id: str
    at: float | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The person stopped speaking, perhaps for a pause, or there was no speech at all.

    Fields as in `SpeechStarted`.
    """

    item_id: str
    at: float | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class UserTranscript:
    """The transcript of the user turn ``item_id``: the whole text so far, not a delta."""

    item_id: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class UserTurnEnded:
    """The user turn is over, and is now an item of the history.

    ``speech_end`` is when the speech ended, in clock seconds, and ``position`` where, as in
    `SpeechStarted`; None where unknown. ``reply_follows``: the model will reply without a request.
    ``empty``: there was no speech (a cough), and so there is no item. ``silence_s`` seconds of the
    audio before ``position`` lie behind the speech; None where unknown. ``ended_by`` and ``votes``
    are those of `UserTurnEndedEvent`.
    """

    item_id: str
    speech_end: float | None = None
    reply_follows: bool = True
    empty: bool = False
    position: int | None = None
    silence_s: float | None = None
    ended_by: Literal["", "vote", "silence", "program"] = ""
    votes: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """The model began a reply; ``request_id`` names the request for it, if there was one."""

    reply_id: str
    request_id: str | None = None


@dataclass(slots=True, eq=False)
class ReplyAudio:
    """The next audio of a reply, at the model's output rate.

    Not frozen, because that triples the cost of making one, which happens fifty times a second.
    """

    reply_id: str
    item_id: str
    frame: AudioFrame


@dataclass(frozen=True, slots=True)
class ReplyText:
    """The next text of a reply.

    ``start`` is where in the item's audio this text begins to be spoken, in samples at the model's
    output rate, if the engine knows it. ``end`` is where its last word ends, if that is known; else
    it ends where the next text begins. ``planned``: the model intends to say this next, and will
    send what it did say.
    """

    reply_id: str
    item_id: str
    text: str
    start: int | None = None
    planned: bool = False
    end: int | None = None


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """The reply was generated to its end (it may still be playing), was cancelled, or failed."""

    reply_id: str
    status: Literal["completed", "cancelled", "failed"] = "completed"
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyRefused:
    """A request was refused; ``busy``: another reply is running, and it may be requested again.

    ``request_id`` is empty for an automatic reply to a user turn.
    """

    request_id: str
    code: str
    message: str
    busy: bool = False


@dataclass(frozen=True, slots=True)
class ReplyInterrupted:
    """The provider stopped its reply by itself, because of something in the input audio."""

    reply_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model calls a tool; ``arguments`` is the JSON text that it wrote."""

    reply_id: str
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallsCancelled:
    """The provider does not need the results of these calls any more."""

    call_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens (or whatever the provider counts) used since the last report, by modality."""

    input: Mapping[str, int]
    output: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What remains of the provider's limits."""

    limits: Sequence[RateLimit]


@dataclass(frozen=True, slots=True)
class ReplyHeard:
    """The service's own account of what was heard of a reply that was cut; it corrects ours.

    ``text`` is the beginning of the reply's text.
    """

    reply_id: str
    item_id: str
    text: str


@dataclass(frozen=True, slots=True)
class SayMismatch:
    """The model had to say ``wanted`` word for word, and said ``said`` instead."""

    reply_id: str
    wanted: str
    said: str


@dataclass(frozen=True, slots=True)
class GoAway:
    """The provider will end this connection in ``time_left`` seconds."""

    time_left: float


@dataclass(frozen=True, slots=True)
class Resumable:
    """Whether another connection could resume the session as it is now.

    A provider that never sends this can always be resumed.
    """

    now: bool


@dataclass(frozen=True, slots=True)
class Alive:
    """The response to a `Ping`: the service works, although it has nothing to send."""


@dataclass(frozen=True, slots=True)
class ProviderError:
    """Something went wrong; ``kind`` comes from the provider's table of errors."""

    kind: ErrorKind
    code: str
    message: str


type Output = (
    SessionStarted
    | SpeechStarted
    | SpeechStopped
    | UserTranscript
    | UserTurnEnded
    | ReplyStarted
    | ReplyAudio
    | ReplyText
    | ReplyDone
    | ReplyRefused
    | ReplyInterrupted
    | ReplyHeard
    | ToolCall
    | ToolCallsCancelled
    | Usage
    | RateLimits
    | SayMismatch
    | GoAway
    | Resumable
    | Alive
    | ProviderError
)
