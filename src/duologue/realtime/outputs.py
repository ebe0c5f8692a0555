"""What a model tells back: one closed union, made by a provider's codec or an engine."""

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
    """The connection is live; ``expires_in`` is the provider's limit in seconds, where it has one.

    ``restored``: the provider itself has resumed the session of the connection before.
    ``confirms``: the server confirms changes of a session, and so answers a `Ping` if the profile
    says so.
    """

    config: Mapping[str, Json] = field(default_factory=dict)
    expires_in: float | None = None
    restored: bool = False
    confirms_updates: bool = True


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The person began to speak; ``at`` is when, in clock seconds, where the source knows.

    ``position`` is where in the sound sent on this connection, in samples at the profile's input
    rate, where the source knows.
    """

    item_id: str
    at: float | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The person stopped; a pause perhaps, or no words at all. Fields as in `SpeechStarted`."""

    item_id: str
    at: float | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class UserTranscript:
    """What the person said in the turn ``item_id``: the whole text so far, not a delta."""

    item_id: str
    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class UserTurnEnded:
    """The person's turn is over and is now an item of the history.

    ``speech_end`` is when the sound ended, in clock seconds, and ``position`` where, as in
    `SpeechStarted`, where the source knows;
    ``reply_follows`` when the model will reply without being asked; ``empty`` when there were no
    words (a cough), and so there is no item. ``silence_s`` of ``position`` lie behind the speech;
    None where that is not known.
    """

    item_id: str
    speech_end: float | None = None
    reply_follows: bool = True
    empty: bool = False
    position: int | None = None
    silence_s: float | None = None


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """The model began a reply; ``request_id`` names the request that it answers, if one."""

    reply_id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReplyAudio:
    """The next sound of a reply, at the profile's output rate."""

    reply_id: str
    item_id: str
    frame: AudioFrame


@dataclass(frozen=True, slots=True)
class ReplyText:
    """The next words of a reply.

    ``start`` is where in the item's audio, in samples at the profile's output rate, these words
    begin to be spoken, where the engine knows it; they end where the next ones begin.
    ``planned``: what the model means to say next, before it tells what it did say.
    """

    reply_id: str
    item_id: str
    text: str
    start: int | None = None
    planned: bool = False


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """The reply was generated to its end (it may still be playing), cancelled, or has failed."""

    reply_id: str
    status: Literal["completed", "cancelled", "failed"] = "completed"
    message: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyRefused:
    """A request was refused; ``busy`` if another reply runs and it may be requested again.

    ``request_id`` is empty for an automatic reply to a user turn.
    """

    request_id: str
    code: str
    message: str
    busy: bool = False


@dataclass(frozen=True, slots=True)
class ReplyInterrupted:
    """The provider stopped its reply by itself, because it heard something in the input audio."""

    reply_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model calls a tool; ``arguments`` is the JSON text it wrote."""

    reply_id: str
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolCallsCancelled:
    """The provider wants no result of these calls any more."""

    call_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens (or whatever the provider counts) spent since the last report, by modality."""

    input: Mapping[str, int]
    output: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What is left of the provider's limits."""

    limits: Sequence[RateLimit]


@dataclass(frozen=True, slots=True)
class SayMismatch:
    """The model was told to say ``wanted`` word for word, and said ``said``."""

    reply_id: str
    wanted: str
    said: str


@dataclass(frozen=True, slots=True)
class GoAway:
    """The provider will end this connection in ``time_left`` seconds."""

    time_left: float


@dataclass(frozen=True, slots=True)
class Resumable:
    """Whether another connection could take the session up as it is just now.

    Where a provider does not tell, it could.
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
