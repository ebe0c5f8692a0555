"""Connect a caller over SIP."""

# The stack has no callback for audio, so a `SipPump` looks at each call every 10 ms:
#
#     playout ──play──▶ SipOutput ──▶ stack ──▶ RTP       40 ms at most are in the stack
#     RTP ──▶ jitter buffer of the stack ──▶ PacedInput ──▶ agent.push_audio
#
# - *What was heard* is what the stack has sent, less what the other side buffers: half the round
#   trip that RTCP measures and `PEER_BUFFER_S`. Nobody reports it, so it is a careful guess.
# - *A changed session* (hold, resume, another codec) replaces the streams. `SipOutput` writes again
#   what was lost with them, and `Resampler`s follow the rate.
# - *On hold*, by either side, nothing is sent. What the agent says meanwhile waits, ten seconds of
#   it at most.
# - *A second leg* exists during a transfer. An attended one calls the target while the caller is on
#   hold, and then connects the two. A transfer that the other side asks for is refused, unless
#   a function of the program allows the target; then the new leg takes the place of the first.

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from typing import assert_never

from duologue._user_code import log_failure
from duologue.audio import FRAME_MS, AudioFrame, Resampler
from duologue.clock import Clock, LoopClock
from duologue.edges._socket_stream import PacedInput
from duologue.edges.protocol import AgentInput, EdgeStats
from duologue.edges.telephone._last_words import wait_for_last_words
from duologue.edges.telephone._sip_address import target_address
from duologue.edges.telephone._sip_leg import (
    LegAnswered,
    LegDigit,
    LegEnded,
    LegError,
    LegEvent,
    LegFigures,
    LegHeld,
    LegReport,
    SipLeg,
    TransferAsked,
    wait_until_answered,
)
from duologue.edges.telephone._sip_output import SipOutput
from duologue.edges.telephone._sip_pump import SipPump
from duologue.edges.telephone._stream import check_digits
from duologue.edges.telephone.calls import PhoneCall, TelephoneError
from duologue.errors import ConfigError
from duologue.quality import Quality

logger = logging.getLogger(__name__)

PEER_BUFFER_S = 0.1
"""Seconds that the other side takes from a packet to the ear, about, beside half a round trip."""
ANSWER_S = 10.0
"""Seconds from our acceptance of a call until its audio must run."""
RING_S = 30.0
"""Default time that the target of a transfer rings, in seconds."""
MAX_HOLD_S = 900.0
"""Seconds after which a call that the other side holds is ended; it may have vanished meanwhile."""
HANG_UP_S = 0.3
"""Seconds that ending the call may take, because an edge must hang up in half a second."""
_REPORT_S = 0.2
"""Seconds from the report of a transfer to the end of the leg on which it was asked for."""
_PAUSE_S = 0.5
"""Seconds that a ``w`` between digits waits."""


class SIPCall:
    """One call over SIP.

    Made for each call by `telephone.SIP`, and passed to ``make_agent``.

    Args:
        leg: The dialog.
        call: The call.
        pump: Looks at the audio.
        domain: Where numbers to transfer to are.
        output_rate: Rate in Hz that `play` takes.
        answered: Whether the leg has been answered already.
        dial: Begins another leg; None if there can't be one.
        follow: Whether a transfer that the other side asks for is followed; see `SIP`.
        hangs_up: Whether the leg ends with the edge.
        vanished_s: Seconds without audio of the other side after which it has vanished; 0 for ever.
        clock: Clock of the call; by default that of the event loop.
    """

    def __init__(
        self,
        leg: SipLeg,
        call: PhoneCall,
        *,
        pump: SipPump,
        domain: str,
        output_rate: int = 8000,
        answered: bool = False,
        dial: Callable[[str], Awaitable[SipLeg]] | None = None,
        follow: Callable[[PhoneCall, str], bool] | None = None,
        hangs_up: bool = True,
        vanished_s: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        self.call = call
        """Who calls whom, and the parameters of the call."""
        self._leg = leg
        self._next_leg: SipLeg | None = None
        self._pump = pump
        self._domain = domain
        self._rate = output_rate
        self._answered = answered
        self._dial = dial
        self._follow = follow
        self._hangs_up = hangs_up
        self._vanished_s = vanished_s
        self._last_arrival = 0.0
        self._clock: Clock = clock or LoopClock()
        self._output = SipOutput(output_rate)
        self._input = PacedInput(self._clock)
        self._resampler: Resampler | None = None
        self._agent: AgentInput | None = None
        self._over = asyncio.Event()
        self._audio_runs = asyncio.Event()
        self._failure: str | None = None
        self._last_play = 0.0
        self._held_since: float | None = None
        self._on_hold = False
        self._started = False
        self._restarts = 0
        self._epoch: int | None = None
        self._refused_transfers = 0
        self._transfer_asked = False
        """Whether a transfer that the other side asks for is being answered."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.caller_left = False
        """Whether the other side has ended the call."""
        leg.on_event = self._handler_of(leg)

    def __repr__(self) -> str:
        state = "over" if self._over.is_set() else "running" if self._started else "new"
        return f"<SIPCall {self.call.direction} {state}>"

    @property
    def output_rate(self) -> int:
        """Rate in Hz of the frames that `play` accepts: that of the best codec that is offered."""
        return self._rate

    @property
    def quality(self) -> Quality:
        """``device``: what has left is counted, and what the other side buffers is guessed."""
        return "device"

    @property
    def lead_ms(self) -> int:
        """20: audio waits here and in the stack."""
        return FRAME_MS

    @property
    def latency_ms(self) -> float:
        """Milliseconds from `play` to the ear, about."""
        return FRAME_MS + self._delay_s * 1000

    @property
    def on_hold(self) -> bool:
        """Whether this side, or the other one, holds the call."""
        return self._on_hold or self._held_since is not None

    @property
    def figures(self) -> LegFigures:
        """What RTCP and the jitter buffer say."""
        return self._leg.figures()

    @property
    def counters(self) -> dict[str, float]:
        """Counters of the call, and the figures of RTCP."""
        figures = self.figures
        return {
            "stream_restarts": self._restarts,
            "resent_ms": round(1000 * self._output.resent / self._rate),
            "overflowed_ms": round(1000 * self._output.overflowed / self._rate),
            "refused_transfers": self._refused_transfers,
            "rtt_ms": round(figures.rtt_ms, 1),
            "jitter_ms": round(figures.jitter_ms, 1),
            "lost_packets": figures.lost_packets,
            "peer_jitter_ms": round(figures.peer_jitter_ms, 1),
            "peer_lost_packets": figures.peer_lost_packets,
            "jitter_buffer_ms": round(figures.buffer_ms, 1),
            "late_packets": figures.late_packets,
        }

    def stats(self) -> EdgeStats:
        """Return the counters that `Agent.stats` includes; `counters` has more."""
        figures = self.figures
        return EdgeStats(
            overflowed_s=self._output.overflowed / self._rate,
            dropped_input_s=self._input.dropped_s,
            lost_packets=figures.lost_packets,
            peer_lost_packets=figures.peer_lost_packets,
            rtt_ms=figures.rtt_ms,
            jitter_ms=figures.jitter_ms,
        )

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Accept the call, and carry it until either side hangs up.

        Raises:
            TelephoneError: The call can't be accepted, or its audio did not begin.
        """
        if self._started:
            raise ConfigError("a call runs once: each call has a SIPCall of its own")
        self._started = True
        self._agent = agent
        self._input.start(agent)
        try:
            if not self._over.is_set():
                with self._pump.watch(self._look):
                    await self._begin()
                    if not self._over.is_set():
                        ready()
                        await self._over.wait()
        finally:
            self._over.set()
            self._input.stop()
            await self._end_tasks()
            if self._hangs_up:
                await self._hang_up_legs()
        if self._failure is not None:
            raise TelephoneError(self._failure)

    def play(self, frame: AudioFrame | None) -> None:
        """Send the next 20 ms."""
        if frame is None or self._over.is_set():
            return
        self._output.play(frame.samples)
        self._last_play = self._clock.now()
        self._send()

    def clear(self) -> None:
        """Drop what has not left."""
        if self._output.clear(self._clock.now()):
            self._leg.flush()

    async def hang_up(self) -> None:
        """End the call when the caller has heard what the agent is saying, or after 30 s."""
        await wait_for_last_words(
            self._clock, self._over, lambda: self._output.outstanding > 0, lambda: self._last_play
        )
        self._end()

    async def transfer(self, to: str) -> None:
        """Connect the caller with another number or address; the agent leaves the call.

        Let only numbers of yours be called: a caller may talk a model into another one.

        Raises:
            ConfigError: ``to`` is neither a number nor an address.
            TelephoneError: The other side refused, or could not reach the target; the call goes on.
        """
        target = target_address("to", to, self._domain)
        with _telephone_errors():
            await self._leg.transfer(target)

    async def attended_transfer(
        self,
        to: str,
        consult: Callable[[SIPCall], Awaitable[bool]] | None = None,
        *,
        ring_s: float = RING_S,
    ) -> bool:
        """Call a number while the caller is on hold, and connect the two once it has answered.

        Args:
            to: Number or address.
            consult: Talks to the person who answers, such as by an agent of its own that joins
                the edge it gets, and returns whether to connect; None connects at once.
            ring_s: Seconds to let it ring.

        Returns:
            Whether the two are connected, and the agent has left the call. If not, the caller is
            off hold again.

        Raises:
            ConfigError: ``to`` is neither a number nor an address.
            TelephoneError: Nobody answered, or the two can't be connected; the caller is off hold.
        """
        target = target_address("to", to, self._domain)
        if self._dial is None:
            raise TelephoneError("this call can't begin another one")
        with _telephone_errors():
            await self._set_hold(True)
            try:
                connected = await self._consult_and_connect(target, consult, ring_s)
            except BaseException:
                await self._resume_quietly()
                raise
            if not connected:
                await self._set_hold(False)
            return connected

    async def hold(self) -> None:
        """Put the caller on hold; neither side hears the other.

        Raises:
            TelephoneError: The other side refused, or the call has ended.
        """
        with _telephone_errors():
            await self._set_hold(True)

    async def resume(self) -> None:
        """Take the caller off hold.

        Raises:
            TelephoneError: The other side refused, or the call has ended.
        """
        with _telephone_errors():
            await self._set_hold(False)

    async def send_digits(self, digits: str) -> None:
        """Press keys for the other side, such as ``1w2#``; ``w`` waits for half a second.

        Raises:
            ConfigError: Something in ``digits`` is not a key.
            TelephoneError: The call has ended.
        """
        check_digits(digits)
        with _telephone_errors():
            for group in digits.upper().replace("W", " W ").split():
                if group == "W":
                    await self._clock.sleep(_PAUSE_S)
                else:
                    await self._leg.press(group)

    async def _consult_and_connect(
        self,
        target: str,
        consult: Callable[[SIPCall], Awaitable[bool]] | None,
        ring_s: float,
    ) -> bool:
        assert self._dial is not None  # noqa: S101 - the caller has checked it
        other = await self._dial(target)
        try:
            await wait_until_answered(other, ring_s)
            if consult is not None:
                edge = SIPCall(
                    other,
                    PhoneCall(
                        carrier="sip",
                        id=other.call_id,
                        caller=self.call.called,
                        called=target,
                        direction="outbound",
                    ),
                    pump=self._pump,
                    domain=self._domain,
                    output_rate=self._rate,
                    answered=True,
                    hangs_up=False,
                    vanished_s=self._vanished_s,
                    clock=self._clock,
                )
                if not await consult(edge) or edge._over.is_set():
                    await other.hang_up()
                    return False
            await self._leg.transfer_to(other)
        except BaseException:
            with suppress(LegError):
                await other.hang_up()
            raise
        return True

    async def _set_hold(self, held: bool) -> None:
        if held == self._on_hold:
            return
        if held:
            self._on_hold = True  # What is played from now on waits.
            try:
                await self._leg.hold()
            except BaseException:
                self._on_hold = False
                raise
        else:
            await self._leg.resume()
            self._on_hold = False

    async def _resume_quietly(self) -> None:
        """Take the caller off hold after an error that matters more than one of this."""
        if self._over.is_set():
            return
        with suppress(LegError):
            await self._set_hold(False)

    async def _begin(self) -> None:
        """Accept the call, and wait until its audio runs."""
        with _telephone_errors():
            if not self._answered:
                await self._leg.answer()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._audio_runs.wait()
        except TimeoutError:
            self._end(f"the call was accepted, and no audio began in {ANSWER_S:g} s")

    def _look(self) -> None:
        """Pass on what has arrived and what is to be sent; called every 10 ms."""
        agent = self._agent
        if agent is None or self._over.is_set():
            return
        now = self._clock.now()
        if (frame := self._leg.read()) is not None:
            self._input.push(frame)
        if frame is not None or self.on_hold or not self._audio_runs.is_set():
            self._last_arrival = now
        elif self._vanished_s and now - self._last_arrival > self._vanished_s:
            logger.info("a call over SIP was ended, because the other side has vanished")
            self.caller_left = True
            self._end()
        if not self._audio_runs.is_set():
            if self._leg.send_state() is None:
                return
            self._audio_runs.set()
        if self._output.outstanding:
            self._send()
            heard = self._output.heard(now, self._delay_s)
            if heard is not None:
                agent.report_played(heard)
        if self._held_since is not None and now - self._held_since > MAX_HOLD_S:
            self._end("the other side has held the call for too long")

    def _send(self) -> None:
        state = self._leg.send_state()
        if state is None:
            self._output.stopped(self._clock.now())
            return
        if state.epoch != self._epoch:
            self._restarts += self._epoch is not None
            self._epoch = state.epoch
        rate = self._leg.rate
        if self._resampler is None or self._resampler.out_rate != rate:
            self._resampler = Resampler(self._rate, rate)
        if self.on_hold:
            self._output.count(self._clock.now(), state.epoch, state.buffered_s)
            return
        for samples in self._output.take(self._clock.now(), state.epoch, state.buffered_s):
            self._leg.write(self._resampler.push(samples))

    @property
    def _delay_s(self) -> float:
        """Seconds from the departure of audio to the ear, about."""
        return PEER_BUFFER_S + self._leg.figures().rtt_ms / 2000

    def _handler_of(self, leg: SipLeg) -> Callable[[LegEvent], None]:
        return lambda event: self._handle(leg, event)

    def _handle(self, leg: SipLeg, event: LegEvent) -> None:
        current = leg is self._leg
        match event:
            case LegAnswered():
                if leg is self._next_leg:
                    self._start(self._leave(self._leg))
                    self._change_leg(leg)
            case LegEnded(reason, _):
                if leg is self._next_leg:
                    self._next_leg = None
                elif current and self._next_leg is not None:
                    self._change_leg(self._next_leg)
                elif current:
                    self._leg_ended(reason)
            case LegDigit(digit):
                if current and self._agent is not None:
                    self._agent.push_digit(digit)
            case LegHeld(held):
                if current:
                    self._held_since = self._clock.now() if held else None
            case TransferAsked(target):
                if current and self._next_leg is None and not self._transfer_asked:
                    self._transfer_asked = True
                    self._start(self._answer_transfer(leg, target))
            case LegReport():
                pass  # `figures` are read where they are needed.
            case _:
                assert_never(event)

    def _leg_ended(self, reason: str) -> None:
        self.caller_left = self.caller_left or not self._over.is_set()
        logger.debug("a call over SIP has ended: %s", reason)
        failure = None
        if not self._audio_runs.is_set():
            failure = f"the call ended before it had begun: {reason or 'no reason given'}"
        self._end(failure)

    def _change_leg(self, leg: SipLeg) -> None:
        """Continue the call on another leg."""
        self._leg = leg
        self._next_leg = None
        self._held_since = None
        self._on_hold = False

    async def _answer_transfer(self, leg: SipLeg, target: str) -> None:
        """Follow a transfer that the other side asks for, if the program allows the target."""
        allowed = False
        if self._follow is not None and target:
            try:
                allowed = self._follow(self.call, target) is True
            except Exception as error:  # noqa: BLE001 - any error of the program's
                log_failure(logger, "follow_transfer", error)
        try:
            if not allowed:
                self._refused_transfers += 1
                logger.warning("a transfer to %.80r was refused", target)
                await leg.reject_transfer()
                return
            other = await leg.accept_transfer(target)
        except LegError as error:
            logger.warning("%s", error)
            return
        finally:
            self._transfer_asked = False
        self._next_leg = other
        other.on_event = self._handler_of(other)

    async def _leave(self, leg: SipLeg) -> None:
        """End a leg that another one has replaced, after the report of that to its other side."""
        await self._clock.sleep(_REPORT_S)
        with suppress(LegError):
            await leg.hang_up()

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="transfer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _hang_up_legs(self) -> None:
        try:
            async with asyncio.timeout(HANG_UP_S):
                for leg in filter(None, (self._leg, self._next_leg)):
                    with suppress(LegError):
                        await leg.hang_up()
        except TimeoutError:
            logger.info("a call could not be ended in time")

    def _end(self, failure: str | None = None) -> None:
        if not self._over.is_set():
            self._failure = failure
            self._over.set()
            self._audio_runs.set()  # Nobody needs to wait for it any more.


@contextmanager
def _telephone_errors() -> Generator[None]:
    """Turn the errors of a leg into those that users know."""
    try:
        yield
    except LegError as error:
        raise TelephoneError(str(error), status=error.status) from error
