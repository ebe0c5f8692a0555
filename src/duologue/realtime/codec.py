"""The seams where a provider plugs in: Codec, Wire and Connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from duologue.items import Item
from duologue.realtime.commands import Command, ToolSpec
from duologue.realtime.outputs import Output


@dataclass(frozen=True, slots=True)
class SessionSetup:
    """What a connection begins with: instructions, tools, and the history to go on from."""

    instructions: str = ""
    tools: Sequence[ToolSpec] = ()
    history: Sequence[Item] = field(default_factory=tuple)


class Connection(Protocol):
    """One physical connection to a model; a Realtime outlives many of them.

    Made by ``Realtime.open(setup)``. Engines in this process implement it directly; a provider on
    a network combines a `Wire` and a `Codec`.
    """

    async def run(self, receive: Callable[[Output], None]) -> None:
        """Live until the other side ends it.

        Calls ``receive`` for each output, in order; the first is `SessionStarted`. Returns on a
        clean end and raises `SessionError` on another one. Cancelling it closes the connection
        within half a second and leaves no task.
        """

    def transmit(self, command: Command) -> None:
        """Take a command, without blocking and in order; audio may be dropped when full.

        Never calls ``receive`` from within: what follows comes later on the loop.
        """
        ...


class Codec[M](Protocol):
    """Sans-IO translation to and from one provider's messages of type M."""

    def open(self, setup: SessionSetup) -> Sequence[M]:
        """The messages that begin a session."""
        ...

    def encode(self, command: Command) -> Sequence[M]:
        """The messages that carry a command."""
        ...

    def decode(self, message: M) -> Sequence[Output]:
        """What a message means; never raises for a message that it does not know."""
        ...

    def pending(self) -> Sequence[M]:
        """What the codec itself has to send because of what it decoded, each once."""
        ...


@runtime_checkable
class ClosingCodec[M](Codec[M], Protocol):
    """A codec of a protocol in which a session has to be taken leave of."""

    def closing_messages(self) -> Sequence[M]:
        """The messages that end the session, sent when we end it; then the wire is closed."""
        ...


class Wire[M](Protocol):
    """A socket (or what serves as one) that carries messages of type M."""

    async def open(self) -> None:
        """Connect. Raises `SessionError`, with the other side's own words where it has any."""

    async def send(self, message: M) -> None:
        """Send one message; waits while the peer does not read."""

    async def receive(self) -> M | None:
        """The next message; None after a clean end. Raises `SessionError` on another one."""
        ...

    async def close(self) -> None:
        """Close, within half a second."""


@runtime_checkable
class NonBlockingWire[M](Wire[M], Protocol):
    """A wire that can also send without waiting, so that nothing has to be woken up for it."""

    def try_send(self, message: M) -> bool:
        """Send one message before returning; False if it would have to wait, and was not sent."""
        ...
