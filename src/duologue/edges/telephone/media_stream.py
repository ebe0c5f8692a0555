"""Connect a caller on a telephone, whose carrier streams the audio over a WebSocket."""

# The carrier opens a WebSocket to us. One codec for each carrier translates its messages; this edge
# is the same for all.
#
#     playout ──play──▶ codec.audio ──▶ _outbox ──▶ socket      a mark after every 100 ms
#     playout ──clear─▶ drops _outbox, and sends one clear
#     socket ──▶ codec.receive ──▶ Arrivals (order, gaps) ──▶ Pacer ──▶ agent.push_audio
#                              ──▶ MarkLedger ──▶ agent.report_played
#
# - *What was heard* is what the returned marks prove, and nothing else (`MarkLedger`): never more
#   than the carrier has played, and at most 100 ms and a round trip less. A mark says that the
#   audio has left the carrier; the ear is about 150 ms later.
# - *Interruptions*. `clear` drops every message of audio that has not been handed to the socket,
#   and the next message is the carrier's clear. The marks of dropped audio prove nothing, whether
#   they come back or not.
# - *The last mark* of a speech follows 45 ms after its last frame, because an edge does not learn
#   that a speech has ended.
# - *Bounds*. Ten seconds of messages may wait for the socket; more mean that the carrier does not
#   read, and the call ends. Ten seconds of the caller's audio may wait for the model.

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from duologue.audio import FRAME_MS, AudioFrame
from duologue.clock import Clock, LoopClock, Timer
from duologue.edges._arrivals import Arrivals
from duologue.edges._socket_stream import Outbox, PacedInput, StreamSocket, run_until
from duologue.edges.protocol import AgentInput, EdgeStats
from duologue.edges.telephone._last_words import wait_for_last_words
from duologue.edges.telephone._mark_ledger import MarkLedger
from duologue.edges.telephone._stream import (
    AudioArrived,
    CarrierCodec,
    DigitPressed,
    MarkReturned,
    Message,
    QueueCleared,
    StreamEvent,
    StreamFailed,
    StreamStarted,
    StreamStopped,
    check_digits,
)
from duologue.edges.telephone.calls import PhoneCall, PhoneControl, TelephoneError
from duologue.errors import ConfigError, UnsupportedError
from duologue.quality import Quality

logger = logging.getLogger(__name__)

LATENCY_MS = 150.0
"""Milliseconds from the carrier's buffer to the ear, about, over the public telephone network."""

_LAST_MARK_S = 0.045
"""Seconds after the last frame until its mark is sent."""


class MediaStream:
    """One call whose audio its carrier streams over a WebSocket.

    Made for each call by `telephone.mount`, and passed to ``make_agent``.

    Args:
        socket: The WebSocket of the call, after the message that starts the stream.
        codec: The codec that has read that message.
        call: The call.
        control: Hangs up, transfers and sends keys; None if the carrier's REST is not configured.
        reorder: Most chunks of the caller's audio that wait for an earlier one.
        clock: Clock of the call; by default that of the event loop.
    """

    def __init__(
        self,
        socket: StreamSocket,
        codec: CarrierCodec,
        call: PhoneCall,
        *,
        control: PhoneControl | None = None,
        reorder: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.call = call
        """Who calls whom, and the parameters of the call."""
        self._socket = socket
        self._codec = codec
        self._control = control
        self._clock: Clock = clock or LoopClock()
        self._ledger = MarkLedger(codec.output_rate)
        self._arrivals = Arrivals(reorder)
        self._input = PacedInput(self._clock)
        self._agent: AgentInput | None = None
        self._outbox = Outbox(socket, self._stop_slow_carrier)
        self._over = asyncio.Event()
        self._failure: str | None = None
        self._last_play = 0.0
        self._mark_timer: Timer | None = None
        self._started = False
        self._answer_known = asyncio.Event()
        self.transferred = False
        """Whether `transfer` has given the caller to somebody else: then the call goes on."""
        self.caller_left = False
        """Whether the carrier ended the stream, usually because the caller has hung up."""

    def __repr__(self) -> str:
        state = "over" if self._over.is_set() else "running" if self._started else "new"
        return f"<MediaStream {self.call.carrier} {state}>"

    @property
    def output_rate(self) -> int:
        """Rate in Hz of the frames that `play` accepts: the carrier's."""
        return self._codec.output_rate

    @property
    def quality(self) -> Quality:
        """``confirmed``: the carrier returns a mark when it has played the audio before it."""
        return "confirmed"

    @property
    def lead_ms(self) -> int:
        """20: the carrier buffers."""
        return FRAME_MS

    @property
    def latency_ms(self) -> float:
        """Milliseconds from `play` to the ear, about."""
        return LATENCY_MS

    @property
    def counters(self) -> dict[str, int]:
        """Counters of messages, marks and the caller's audio."""
        return {
            "malformed_messages": self._codec.malformed,
            "stale_marks": self._ledger.stale,
            "unknown_marks": self._ledger.unknown,
            "clears": self._ledger.epoch,
            "lost_frames": self._arrivals.lost,
            "late_chunks": self._arrivals.late,
            "waiting_messages": len(self._outbox),
        }

    def stats(self) -> EdgeStats:
        """Return the counters that `Agent.stats` includes; `counters` has more."""
        return EdgeStats(
            dropped_input_s=self._input.dropped_s,
            lost_packets=self._arrivals.lost + self._arrivals.late,
        )

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Carry the call until the caller hangs up, or until `hang_up`.

        Raises:
            TelephoneError: The carrier reported an error, or stopped reading.
        """
        if self._started:
            raise ConfigError("a stream runs once: each call has a MediaStream of its own")
        self._started = True
        self._agent = agent
        ready()
        self._input.start(agent)
        try:
            await run_until(self._over, self._read, self._outbox.write, self._socket.close)
        finally:
            self._input.stop()
            if self._mark_timer is not None:
                self._mark_timer.cancel()
        if self._failure is not None:
            raise TelephoneError(self._failure)

    def play(self, frame: AudioFrame | None) -> None:
        """Send the next 20 ms."""
        if frame is None or self._over.is_set():
            return
        self._outbox.send(self._codec.audio(frame.samples), audio=True)
        self._send_mark(self._ledger.add(len(frame.samples)))
        self._last_play = self._clock.now()
        if self._mark_timer is None and self._ledger.unmarked:
            self._arm_mark_timer()

    def clear(self) -> None:
        """Drop what was not played: here at once, at the carrier by the next message."""
        self._outbox.drop_audio()
        if self._ledger.clear():
            self._outbox.send(self._codec.clear())

    async def hang_up(self) -> None:
        """End the call when the caller has heard what the agent is saying, or after 30 s."""
        await wait_for_last_words(
            self._clock, self._over, lambda: self._ledger.outstanding > 0, lambda: self._last_play
        )
        self._end()

    async def transfer(self, to: str) -> None:
        """Connect the caller with another number; the agent leaves the call.

        Let only numbers of yours be called: a caller may talk a model into another one.

        Raises:
            TelephoneError: The carrier refused.
            UnsupportedError: The carrier's REST is not configured.
        """
        await self._require_control("transfer a call").transfer(to)
        self.transferred = True

    async def wait_answered_by(self, within: float = 6.0) -> str:
        """Return who answered a call of `dial` with ``detect_machine``, in the carrier's words.

        Twilio and Plivo say it before the call begins; Telnyx and Vonage some seconds later, to
        the webhook. The words are those of `PhoneCall.answered_by`.

        Args:
            within: Seconds to wait; then return "".
        """
        if not self.call.answered_by:
            try:
                async with asyncio.timeout(within):
                    await self._answer_known.wait()
            except TimeoutError:
                return ""
        return self.call.answered_by

    def report_answered_by(self, who: str) -> None:
        """Record who answered, as the carrier says later; `telephone.mount` does so."""
        self.call = replace(self.call, answered_by=who)
        self._answer_known.set()

    async def send_digits(self, digits: str) -> None:
        """Press keys for the other side, such as ``1w2#``; ``w`` waits for half a second.

        Raises:
            TelephoneError: The carrier refused.
            UnsupportedError: The carrier can't while it streams, or its REST is not configured.
        """
        check_digits(digits)
        await self._require_control("send digits").send_digits(digits)

    def _require_control(self, what: str) -> PhoneControl:
        if self._control is None:
            raise UnsupportedError(
                f"can't {what}: give {self.call.carrier.capitalize()}(...) the keys of its REST"
            )
        return self._control

    def _end(self, failure: str | None = None) -> None:
        if not self._over.is_set():
            self._failure = failure
            self._over.set()

    def _stop_slow_carrier(self) -> None:
        self._end("the carrier does not read: ten seconds of audio are waiting")

    def _send_mark(self, name: str | None) -> None:
        if name is not None:
            self._outbox.send(self._codec.mark(name), audio=True)

    def _arm_mark_timer(self) -> None:
        self._mark_timer = self._clock.call_at(self._last_play + _LAST_MARK_S, self._mark_due)

    def _mark_due(self) -> None:
        self._mark_timer = None
        if self._over.is_set() or not self._ledger.unmarked:
            return
        if self._clock.now() - self._last_play < _LAST_MARK_S - 0.001:
            self._arm_mark_timer()
        else:
            self._send_mark(self._ledger.mark())

    async def _read(self) -> None:
        await self._socket.read(self._receive)
        self.caller_left = self.caller_left or not self._over.is_set()
        self._end()

    def _receive(self, message: Message) -> None:
        for event in self._codec.receive(message):
            self._handle(event)

    def _handle(self, event: StreamEvent) -> None:
        agent = self._agent
        assert agent is not None  # noqa: S101 - `run` sets it before it reads
        match event:
            case AudioArrived(samples, rate, chunk, timestamp_ms):
                for frame in self._arrivals.push(samples, rate, chunk, timestamp_ms):
                    self._input.push(frame)
            case MarkReturned(name):
                played = self._ledger.returned(name)
                if played is not None:
                    agent.report_played(played)
            case DigitPressed(digit):
                agent.push_digit(digit)
            case StreamStopped():
                self.caller_left = True
                self._end()
            case StreamFailed(message):
                self._end(f"the carrier says: {message}")
            case StreamStarted() | QueueCleared():
                pass  # The stream has started already, and only marks prove what was played.
            case _:
                assert_never(event)
