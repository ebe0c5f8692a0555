"""Define where a provider plugs in: `Codec`, `Wire` and `Connection`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from duologue.audio import AudioFrame
from duologue.items import Item
from duologue.realtime.commands import Command, ToolSpec
from duologue.realtime.outputs import Output, ReplyAudio


@dataclass(frozen=True, slots=True)
class SessionSetup:
    """What a connection begins with: instructions, tools, and the history so far."""

    instructions: str = ""
    tools: Sequence[ToolSpec] = ()
    history: Sequence[Item] = field(default_factory=tuple)


class Connection(Protocol):
    """One physical connection to a model; a `Realtime` outlives many of them.

    Made by ``Realtime.open(setup)``. Engines in this process implement it directly; a provider on a
    network combines a `Wire` and a `Codec` in a `WireConnection`.
    """

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Connect, and run until the other side ends the connection.

        Call ``receive`` for each output, in order; the first is `SessionStarted`. Return after a
        clean end. Cancelling it closes the connection within half a second and leaves no task.

        Raises:
            SessionError: the connection failed, or ended in any other way.
        """

    def transmit(self, command: Command) -> None:
        """Take a command, in order and without blocking; audio may be dropped when a queue is full.

        Never call ``receive`` from here: what follows is passed on later, by the event loop.
        """
        ...


@runtime_checkable
class AudioConnection(Connection, Protocol):
    """A connection with a shorter way for input audio, which is nearly all that it is given."""

    def send_audio(self, frame: AudioFrame) -> None:
        """Do what ``transmit(SendAudio(frame))`` does."""


class Codec[M](Protocol):
    """Sans-IO translation to and from one provider's messages of type M."""

    def open(self, setup: SessionSetup) -> Sequence[M]:
        """Return the messages that begin a session."""
        ...

    def encode(self, command: Command) -> Sequence[M]:
        """Return the messages that carry a command."""
        ...

    def decode(self, message: M) -> Sequence[Output]:
        """Return what a message means; never raise for a message that it does not know."""
        ...

    def pending(self) -> Sequence[M]:
        """Return, once, the messages that the codec itself sends because of what it decoded."""
        ...


@runtime_checkable
class AudioCodec[M](Codec[M], Protocol):
    """A codec with a shorter way for audio, which is nearly all that a session carries."""

    def encode_audio(self, frame: AudioFrame) -> M:
        """Return what ``encode(SendAudio(frame))`` does, which is always one message."""
        ...

    def decode_audio(self, message: M) -> ReplyAudio | None:
        """Decode a message that is nothing but the next audio of a reply.

        Return None, without any effect, for every other message: ``decode`` is called for it.
        ``pending`` is not called after a message that was decoded here.
        """
        ...


@runtime_checkable
class ClosingCodec[M](Codec[M], Protocol):
    """A codec of a protocol in which a client says that it ends the session."""

    def closing_messages(self) -> Sequence[M]:
        """Return the messages to send before the wire is closed, when we end the session."""
        ...


class Wire[M](Protocol):
    """A socket, or something that acts as one, which carries messages of type M."""

    async def open(self) -> None:
        """Connect.

        Raises:
            SessionError: that failed; the text has the other side's own words, if there are any.
        """

    async def send(self, message: M) -> None:
        """Send one message; wait while the peer does not read."""

    async def run(self, receive: Callable[[M], None]) -> None:
        """Pass each message to ``receive``, in order, until the connection ends.

        Return after a clean end. Once this is cancelled, or ``receive`` has raised, nothing more is
        passed on. It is called once.

        Raises:
            SessionError: the connection has ended in any other way.
            Exception: ``receive`` raised it.
        """

    async def close(self) -> None:
        """Close within half a second."""


@runtime_checkable
class NonBlockingWire[M](Wire[M], Protocol):
    """A wire that can also send without waiting, which saves waking up a task."""

    def try_send(self, message: M) -> bool:
        """Send one message at once; return False, without sending, if that has to wait."""
        ...
