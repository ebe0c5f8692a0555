"""The border of a session: where a recorder listens, and what a replay puts in its place.

Whatever a session does follows from what crosses its border: commands of the agent, messages of the
provider, verdicts on the person's voice, and timers. A `Border` sees all of them. The one of
`duologue.observe.Recorder` writes them down. The one of `duologue.testing.replay` returns what was
written down, so the same session runs again without provider, agent and microphone.

                       note_input       measure             clock
          agent --------> |   voice meter ----> |   event loop ----> |
                +---------v--------------------v---------------------v--------+
                |                session, codec, connection                   |
                +---------+--------------------+---------------------+--------+
          agent <-------- |      the service <---- |    a TTS part <---- |
                     observer                wire                  voice

A streaming voice or recogniser of a pipeline has a border of its own (`Border.part`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from duologue.audio import AudioFrame, Samples
from duologue.clock import Clock
from duologue.errors import SessionError
from duologue.realtime.codec import NonBlockingWire, SessionSetup, Wire
from duologue.realtime.commands import (
    Command,
    EndTurn,
    RequestReply,
    Say,
    SendToolResult,
    UpdateSession,
)
from duologue.realtime.observer import SessionObserver
from duologue.realtime.reply_voice import ReplyVoice

if TYPE_CHECKING:
    from duologue.realtime.realtime import Realtime

type Measure = Callable[[Samples, float, int | None], list[tuple[float, float, float]]]
"""`duologue.vad.voice_meter.VoiceMeter.push`."""


class SessionCommands(Protocol):
    """The commands that a session takes; see the methods of `Realtime`."""

    def send_audio(self, frame: AudioFrame) -> None:
        """Send audio of the person."""

    def transmit(self, command: Command) -> None:
        """Send a command."""

    def transmit_directly(self, command: Command) -> None:
        """Give a command to the current connection."""

    def end_turn(self, command: EndTurn) -> None:
        """End the person's turn."""

    def clear_input(self) -> None:
        """Drop the audio of the turn that has not ended yet."""

    def request(self, command: RequestReply | Say) -> None:
        """Request a reply or scripted text."""

    def discard_reply(self, item_id: str) -> None:
        """Drop the automatic reply to the turn that is ending."""

    def restore_reply(self) -> None:
        """Restore the reply to a turn that was discarded."""

    def interrupt(self, *, keep_results: bool = False) -> int:
        """Stop the agent; return the new epoch."""
        ...

    def send_tool_result(self, result: SendToolResult) -> None:
        """Send a tool's result."""

    def update(self, change: UpdateSession) -> None:
        """Change instructions or tools."""

    def roll_over(self, reason: str, within_s: float | None) -> None:
        """Switch to a new connection."""


class Border(Protocol):
    """The border of one session, or of one part of a pipeline."""

    def attach(self, commands: SessionCommands) -> None:
        """Keep where the commands of the session go."""

    def note_input(self, name: str, *args: object) -> None:
        """Note what the inside gets, before it gets it: a method's name and arguments."""

    async def prepare(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Let the model get ready."""

    def clock(self, clock: Clock) -> Clock:
        """Return the clock of the inside, whose timers this border sees."""
        ...

    def observer(self, observer: SessionObserver) -> SessionObserver:
        """Return the observer that the session reports to."""
        ...

    def measure(self, measure: Measure) -> Measure:
        """Return the function that measures the person's voice."""
        ...

    def voice(self, voice: ReplyVoice) -> ReplyVoice:
        """Return the voice of a model that answers in text."""
        ...

    def wire[M](self, connect: Callable[[], Wire[M]]) -> Wire[M]:
        """Return the next connection's wire; it takes messages without waiting if the real one
        does.
        """
        ...

    def listener[E](self, receive: Callable[[E], None], name: str) -> Callable[[E], None]:
        """Return the function that a part reports to."""
        ...

    def part(self, part: object) -> Border | None:
        """Return the border of a part that runs inside of this one; None if it is not seen."""
        ...


class Borders(Protocol):
    """Makes the border of a session: what `Realtime.borders` is set to."""

    def session(self, realtime: Realtime, setup: SessionSetup) -> Border:
        """Return the border of a session that begins."""
        ...


BORDER: ContextVar[Border | None] = ContextVar("duologue border", default=None)
"""The border of the session that the current task belongs to."""


def bordered_wire[M](connect: Callable[[], Wire[M]]) -> Wire[M]:
    """Return a new wire, as the border of this task's session has it."""
    border = BORDER.get()
    return connect() if border is None else border.wire(connect)


def bordered_part_wire[M](
    border: Border | None, connect: Callable[[], NonBlockingWire[M]]
) -> NonBlockingWire[M]:
    """Return a new wire of a part that has this border."""
    if border is None:
        return connect()
    wire = border.wire(connect)
    assert isinstance(wire, NonBlockingWire)  # noqa: S101 - as the real one is
    return wire


@dataclass(slots=True)
class WireFacts:
    """What a wire has learned besides messages.

    Attributes:
        server_time: The server's time at the handshake, in Unix seconds.
        message_limit: Bytes of the longest message that the peer takes.
        refused: Status and body of the HTTP response that came instead of a connection.
        closed: Code and reason of the close frame.
    """

    server_time: float | None = None
    message_limit: int | None = None
    refused: tuple[int, bytes] | None = None
    closed: tuple[int, str] | None = None


@runtime_checkable
class FactualWire(Protocol):
    """A wire whose errors follow from facts, so that a replay comes to the same errors."""

    facts: WireFacts

    def apply(self, facts: WireFacts) -> SessionError | None:
        """Take facts as if they had just been learned; return the error that they mean, or None."""
        ...


class TimerSwitch:
    """A clock that a border can take over."""

    __slots__ = ("call_at", "now", "sleep")

    def __init__(self, clock: Clock) -> None:
        self.now = clock.now
        self.call_at = clock.call_at
        self.sleep = clock.sleep

    def use(self, clock: Clock) -> None:
        """Take time and timers from another clock from now on."""
        self.now = clock.now
        self.call_at = clock.call_at
        self.sleep = clock.sleep
