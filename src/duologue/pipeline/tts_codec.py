"""What a voice service adds to `SocketTTS`: a sans-IO codec of its messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from duologue.audio import AudioFrame
from duologue.errors import SessionError


@dataclass(frozen=True, slots=True)
class ContextAudio:
    """The next audio of a context."""

    context: str
    frame: AudioFrame


@dataclass(frozen=True, slots=True)
class ContextTokens:
    """Tokens of a context and when they are spoken: text, start and end.

    In seconds of the context's audio.
    """

    context: str
    tokens: Sequence[tuple[str, float, float]]


@dataclass(frozen=True, slots=True)
class ContextClause:
    """The text of a context that the audio from here on says."""

    context: str
    text: str


@dataclass(frozen=True, slots=True)
class ContextEnded:
    """No more audio of a context will come."""

    context: str


@dataclass(frozen=True, slots=True)
class ContextStopped:
    """A cancelled context has stopped; ``text`` is what was spoken of it, if the service tells."""

    context: str
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ContextFailed:
    """The service can't speak a context; its other contexts continue.

    With an error of kind `ErrorKind.RECYCLE` all are continued on the next connection.
    """

    context: str
    error: SessionError


@dataclass(frozen=True, slots=True)
class VoiceFailed:
    """The service reports an error of the whole connection, which it will close."""

    error: SessionError


type VoiceEvent = (
    ContextAudio
    | ContextTokens
    | ContextClause
    | ContextEnded
    | ContextStopped
    | ContextFailed
    | VoiceFailed
)


@dataclass(frozen=True, slots=True)
class VoiceTraits:
    """How a voice service works.

    Args:
        timing: Whether it tells when each word is spoken (`ContextTokens`), where each clause
            begins (`ContextClause`), or nothing.
        splits: Whether the text has to be cut into clauses for it. Otherwise it gets the text as
            the model writes it.
        max_contexts: Contexts that it takes at once on one connection.
        confirms_cancel: Whether it tells when a cancelled context has stopped. Until then the
            context counts, and its audio may still come.
        stall_s: Seconds without a message, while audio is due, after which the connection is
            replaced.
        keep_alive_s: Seconds of silence on the connection after which `TTSCodec.keep_alive` is
            sent; None: the service needs none, or closes it whatever is sent.
    """

    timing: Literal["words", "clauses", "none"]
    splits: bool = True
    max_contexts: int = 1
    confirms_cancel: bool = True
    stall_s: float = 5.0
    keep_alive_s: float | None = None


class TTSCodec[M](Protocol):
    """Sans-IO translation to and from one voice service's messages of type M.

    It serves one connection. A context is the service's own unit of speech: a reply has one, and
    another when it continues on a new connection.
    """

    def open(self) -> Sequence[M]:
        """Return the messages that begin a connection."""
        ...

    def start(self, context: str) -> Sequence[M]:
        """Return the messages that begin a context."""
        ...

    def text(self, context: str, text: str) -> Sequence[M]:
        """Return the messages that carry text of a context."""
        ...

    def flush(self, context: str) -> Sequence[M]:
        """Return the messages that have all text of a context spoken now."""
        ...

    def finish(self, context: str) -> Sequence[M]:
        """Return the messages that end the text of a context; `ContextEnded` follows."""
        ...

    def cancel(self, context: str, played_s: float | None) -> Sequence[M]:
        """Return the messages that stop a context.

        `ContextStopped` or `ContextEnded` follows. ``played_s`` is how many seconds of the
        context's audio the person heard.
        """
        ...

    def keep_alive(self) -> Sequence[M]:
        """Return the messages that keep an idle connection open."""
        ...

    def decode(self, message: M) -> Sequence[VoiceEvent]:
        """Return what a message means; never raise for one that it does not know."""
        ...
