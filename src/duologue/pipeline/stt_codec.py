"""What a recognition service adds to `SocketSTT`: a sans-IO codec of its messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from duologue.audio import Samples
from duologue.errors import SessionError
from duologue.pipeline.interfaces import RecognitionEvent


@dataclass(frozen=True, slots=True)
class RecognitionFailed:
    """The service reports an error; it closes the connection unless it is ``benign``."""

    error: SessionError
    benign: bool = False


@dataclass(frozen=True, slots=True)
class RecognizerTraits:
    """How a recognition service works.

    Args:
        turns: Who finds the turns; see `StreamingSTT.turns`.
        ends_turns: Whether the service can be told to end a turn. Otherwise `end_turn` takes the
            newest transcript for the whole of it.
        silence_s: Seconds without audio, while a turn is open, after which silence is sent, for
            services whose clock is the audio.
        idle_silence_s: The same while no turn is open, for services that close the connection when
            no audio comes; None: not needed.
        keep_alive_s: Seconds without audio after which `STTCodec.keep_alive` is sent; None: never.
        stall_s: Seconds of loud audio without a message after which the connection is replaced.
    """

    turns: Literal["service", "local"] = "service"
    ends_turns: bool = True
    silence_s: float | None = 0.5
    idle_silence_s: float | None = None
    keep_alive_s: float | None = None
    stall_s: float = 8.0


class STTCodec[M](Protocol):
    """Sans-IO translation to and from one recognition service's messages of type M.

    It serves one connection: its turns count from 0, and its times from the connection's first
    audio.
    """

    def open(self) -> Sequence[M]:
        """Return the messages that begin a connection."""
        ...

    def audio(self, samples: Samples) -> Sequence[M]:
        """Return the messages that carry audio: mono int16 at the service's rate."""
        ...

    def settle(self) -> Sequence[M]:
        """Return the messages that ask for a final transcript of the turn so far."""
        ...

    def end_turn(self) -> Sequence[M]:
        """Return the messages that end the turn.

        If the service finds the turns, `TurnEnded` follows. Otherwise the next turn begins here,
        and what is still reported of this one is late.
        """
        ...

    def keep_alive(self) -> Sequence[M]:
        """Return the messages that keep an idle connection open."""
        ...

    def closing(self) -> Sequence[M]:
        """Return the messages to send before the connection is closed."""
        ...

    def decode(self, message: M) -> Sequence[RecognitionEvent | RecognitionFailed]:
        """Return what a message means; never raise for one that it does not know."""
        ...
