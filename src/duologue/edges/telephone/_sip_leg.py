"""What a call over SIP needs from the SIP stack, whichever it is."""

# A *leg* is one dialog of SIP with its audio. A call has one leg, and during a transfer for a while
# a second one. `_baresip` has the only implementation that speaks SIP; tests have one without
# network.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from duologue.audio import AudioFrame, Samples


class LegError(Exception):
    """The stack or the other side refused; ``status`` is SIP's, 0 without one."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class LegFigures:
    """What the reports of RTCP and the jitter buffer say of a leg.

    Attributes:
        rtt_ms: Round trip to the other side; 0 until the first exchange of reports.
        jitter_ms: Jitter of the packets that arrive.
        lost_packets: Packets that did not arrive.
        peer_jitter_ms: Jitter that the other side reports.
        peer_lost_packets: Packets of ours that did not arrive there.
        buffer_ms: Delay of the jitter buffer.
        late_packets: Packets that arrived after their turn.
    """

    rtt_ms: float = 0.0
    jitter_ms: float = 0.0
    lost_packets: int = 0
    peer_jitter_ms: float = 0.0
    peer_lost_packets: int = 0
    buffer_ms: float = 0.0
    late_packets: int = 0


@dataclass(frozen=True, slots=True)
class LegAnswered:
    """The other side has accepted the call, or our acceptance has arrived."""


@dataclass(frozen=True, slots=True)
class LegEnded:
    """The leg has ended; ``status`` is SIP's where it was refused, 0 otherwise."""

    reason: str
    status: int = 0


@dataclass(frozen=True, slots=True)
class LegDigit:
    """The other side pressed a key."""

    digit: str


@dataclass(frozen=True, slots=True)
class LegHeld:
    """The other side holds the call (True), or has resumed it."""

    held: bool


@dataclass(frozen=True, slots=True)
class TransferAsked:
    """The other side asks us to call another address instead (REFER).

    ``target`` is empty if the request can't be followed.
    """

    target: str


@dataclass(frozen=True, slots=True)
class LegReport:
    """New figures of RTCP."""

    figures: LegFigures


type LegEvent = LegAnswered | LegEnded | LegDigit | LegHeld | TransferAsked | LegReport


@dataclass(frozen=True, slots=True)
class SendState:
    """What the stack has of the audio to send.

    Attributes:
        epoch: Changes whenever the stream was replaced, and with it what was buffered.
        buffered_s: Seconds that were written and not sent.
    """

    epoch: int
    buffered_s: float


class SipLeg(Protocol):
    """One dialog and its audio; every method must be called on the event loop.

    The coroutines raise `LegError`.
    """

    peer: str
    """Address of the other side."""
    headers: Mapping[str, str]
    """Headers of the request that began an inbound call, as far as they were asked for."""

    @property
    def call_id(self) -> str:
        """The id of the call; empty for a call of ours of which nothing has come back."""
        ...

    @property
    def on_event(self) -> Callable[[LegEvent], None] | None:
        """Gets what happens; what happened before it was set is kept for it."""
        ...

    @on_event.setter
    def on_event(self, handler: Callable[[LegEvent], None] | None) -> None: ...

    async def answer(self) -> None:
        """Accept an inbound call; `LegAnswered` follows."""

    async def hang_up(self) -> None:
        """End the leg, or refuse a call that was not answered; harmless after the end."""

    async def hold(self) -> None:
        """Put the other side on hold."""

    async def resume(self) -> None:
        """Take the other side off hold."""

    async def press(self, digits: str) -> None:
        """Press keys."""

    async def transfer(self, target: str) -> None:
        """Have the other side call another address; the leg ends when that has worked."""

    async def transfer_to(self, other: SipLeg) -> None:
        """Connect the other sides of two legs with each other; both legs end."""

    async def accept_transfer(self, target: str) -> SipLeg:
        """Call the address of `TransferAsked`; this leg ends when it answers.

        Refuse if the other side has asked for another address since.
        """
        ...

    async def reject_transfer(self) -> None:
        """Refuse `TransferAsked`."""

    def send_state(self) -> SendState | None:
        """Return what is buffered; None while nothing can be sent."""
        ...

    @property
    def rate(self) -> int:
        """Rate in Hz of what `write` takes, after `send_state` has returned a state."""
        ...

    def write(self, samples: Samples) -> None:
        """Send mono int16 audio at `rate`; what doesn't fit is dropped."""

    def flush(self) -> None:
        """Drop what was written and not sent."""

    def read(self) -> AudioFrame | None:
        """Return the audio that has arrived since; None without any."""
        ...

    def figures(self) -> LegFigures:
        """Return the newest figures."""
        ...


async def wait_until_answered(leg: SipLeg, seconds: float) -> None:
    """Wait until the other side accepts a call of ours.

    Raises:
        LegError: It refused, or did not answer in time; the leg has ended.
    """
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def handle(event: LegEvent) -> None:
        if answered.done():
            return
        if isinstance(event, LegAnswered):
            answered.set_result(None)
        elif isinstance(event, LegEnded):
            answered.set_exception(LegError(f"the call was refused: {event.reason}", event.status))

    leg.on_event = handle
    try:
        async with asyncio.timeout(seconds):
            await answered
    except TimeoutError:
        with suppress(LegError):
            await leg.hang_up()
        raise LegError(f"nobody answered within {seconds:g} s", 408) from None
    except asyncio.CancelledError:
        with suppress(LegError):
            await leg.hang_up()
        raise
