"""SIP by baresip: the only module that knows the package `baresip`."""

# The package is in its alpha and pinned, so everything that it says or wants is translated here.
#
# - One `Runtime` is all that a process can have. Its threads speak SIP and RTP; what happens comes
#   as callbacks on the event loop that started it.
# - Its limit on calls is off: our admission decides, and refuses with 486 within a millisecond.
# - It reports who calls by headers, which the caller writes. The only place that has the real
#   source of a request is its trace of messages, which it logs: `_InviteLog` reads the requests for
#   calls there, passes nothing on, and a call without a trace is refused.
# - Audio has no callback: it is read and written in small pieces (`SipPump`). Opus has two
#   channels, of which one is used.

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from duologue._bounded_dict import BoundedDict
from duologue._numpy import np
from duologue._optional import optional
from duologue.audio import AudioFrame, Samples
from duologue.edges.telephone._sip_address import InviteSeen, read_invite, refer_target
from duologue.edges.telephone._sip_leg import (
    LegAnswered,
    LegDigit,
    LegEnded,
    LegError,
    LegEvent,
    LegFigures,
    LegHeld,
    LegReport,
    SendState,
    SipLeg,
    TransferAsked,
)
from duologue.errors import ConfigError

with optional("sip"):
    import baresip
    from baresip import Event, StackEvent

logger = logging.getLogger(__name__)

type Srtp = Literal["off", "optional", "required", "dtls"]
type Codec = Literal["pcmu", "pcma", "g722", "opus"]

CODECS: Mapping[Codec, tuple[str, int]] = {
    "pcmu": ("pcmu", 8000),
    "pcma": ("pcma", 8000),
    "g722": ("g722/16000/1", 16000),
    "opus": ("opus/48000/2", 48000),
}
"""What the stack calls each codec, and its rate in Hz."""

_MEDIA_ENCRYPTION: Mapping[Srtp, str] = {
    "off": "",
    "optional": "mediaenc=srtp",
    "required": "mediaenc=srtp-mand",
    "dtls": "mediaenc=dtls_srtp",
}
_HEADERS = ("To",)
_SEND_BUFFER = "audio_buffer 20-80"
"""Behind the buffer that we fill, the stack has one of its own, which by default keeps up to 160 ms
for good after a stall; what is over its limit is dropped. Its threads need 20 ms when all is well,
and a busy machine makes them up to 60 ms late."""
_READ_BYTES = 48000 * 2 * 2
"""Most bytes of one reading: a second at the highest rate with two channels."""
_SOURCE_S = 1.0
"""Seconds that the trace of a request may come after the request."""
_REMEMBERED = 1024
_REGISTER_S = 10.0
_UNREGISTER_S = 1.0
_HOLD_TRIES = 10
_HOLD_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """How the stack is set up; see `SIP` for most of them."""

    user: str
    domain: str
    password: str = field(default="", repr=False)
    auth_user: str | None = None
    proxy: str | None = None
    register_s: int = 0
    transport: Literal["udp", "tcp", "tls"] = "udp"
    codecs: Sequence[Codec] = ("pcmu", "pcma")
    srtp: Srtp = "off"
    digits: Literal["rtp", "info", "auto"] = "rtp"
    listen: str = "127.0.0.1:5060"
    interface: str | None = None
    jitter_type: Literal["off", "fixed", "adaptive"] = "adaptive"
    jitter_ms: tuple[int, int] = (40, 200)
    udp_ports: tuple[int, int] | None = None
    vanished_s: int = 30
    headers: Sequence[str] = ()
    trace: bool = True
    certfile: str | None = None
    cafile: str | None = None
    account_parameters: Sequence[str] = field(default=(), repr=False)  # such as stunpass


class BaresipStack:
    """The SIP stack of this process.

    Args:
        options: How to set it up.
        incoming: Called on the event loop with each inbound call.
        failed: Called with a reason when the stack has died.
    """

    def __init__(
        self,
        options: StackOptions,
        incoming: Callable[[SipLeg], None],
        failed: Callable[[str], None],
    ) -> None:
        self._options = options
        self._incoming = incoming
        self._failed = failed
        self._runtime: baresip.Runtime | None = None
        self._agent: baresip.UserAgent | None = None
        self._invites: _InviteLog | None = None
        self._registered = False

    async def start(self) -> None:
        """Listen, and register if the account does.

        Raises:
            LegError: The address is taken, the registrar refused, or another stack runs.
        """
        options = self._options
        if options.trace:
            self._invites = _InviteLog(asyncio.get_running_loop())
            self._invites.install()
        runtime = baresip.Runtime()
        try:
            await runtime.start(_config(options))
            self._runtime = runtime
            runtime.on_dead = lambda: self._failed("the SIP stack has died: start a new process")
            self._agent = await baresip.UserAgent.create(runtime, _account(options))
            self._agent.on_incoming(self._on_incoming)
            self._agent.on(self._on_event)
            if options.register_s:
                await self._agent.register(timeout=_REGISTER_S)
                self._registered = True
        except baresip.RegistrationError as error:
            await self.close()
            raise LegError(
                f"the registrar refused {options.user}@{options.domain}: {error}", error.status or 0
            ) from error
        except baresip.BaresipError as error:
            await self.close()
            raise LegError(f"the SIP stack can't start: {error}") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Leave the registrar, and end the stack."""
        runtime, self._runtime = self._runtime, None
        try:
            if runtime is not None:
                if self._registered and self._agent is not None:
                    try:
                        await self._agent.unregister(timeout=_UNREGISTER_S)
                    except baresip.BaresipError as error:
                        logger.info("the registrar did not confirm the end: %s", error)
                await runtime.close()
        except baresip.BaresipError as error:
            logger.warning("the SIP stack did not end cleanly: %s", error)
        finally:
            if self._invites is not None:
                self._invites.remove()

    async def dial(self, address: str, headers: Mapping[str, str]) -> SipLeg:
        """Begin a call.

        Raises:
            LegError: It can't be begun.
        """
        if self._agent is None or self._runtime is None:
            raise LegError("the SIP stack does not run")
        agent = self._agent
        try:
            return await _begin_leg(
                self._runtime, lambda: agent.dial(address, headers=dict(headers) or None)
            )
        except (baresip.BaresipError, ValueError) as error:
            raise LegError(f"{address} can't be called: {error}") from error

    async def source_of(self, leg: SipLeg) -> frozenset[str]:
        """Return the addresses from which an inbound call was requested; empty if unknown."""
        return frozenset() if self._invites is None else await self._invites.sources(leg.call_id)

    def _on_incoming(self, call: baresip.Call) -> None:
        self._incoming(BaresipLeg(call))

    def _on_event(self, event: StackEvent) -> None:
        if event.event is Event.REGISTER_FAIL and self._registered:
            logger.warning("the registration has failed: %s", event.text or "no reason given")


class BaresipLeg:
    """One dialog of the stack (`SipLeg`)."""

    def __init__(self, call: baresip.Call) -> None:
        self._call = call
        self._audio = call.audio
        self._handler: Callable[[LegEvent], None] | None = None
        self._earlier: list[LegEvent] = []
        self._ended = False
        self._figures = LegFigures()
        self._send_rate = 0
        self._channels = 1
        self._read_format: tuple[int, int] | None = None
        self.peer: str = call.peer or ""
        self.headers: Mapping[str, str] = call.headers
        call.on(self._on_stack_event)
        call.on_dtmf(lambda event: self._emit(LegDigit(event.digit)))
        call.on_rtcp(self._on_report)

    @property
    def call_id(self) -> str:
        """The id of the call; that of a call of ours is known when the other side rings."""
        return self._call.call_id or ""

    @property
    def on_event(self) -> Callable[[LegEvent], None] | None:
        """Gets what happens; what happened before it was set is kept for it."""
        return self._handler

    @on_event.setter
    def on_event(self, handler: Callable[[LegEvent], None] | None) -> None:
        self._handler = handler
        if handler is not None:
            earlier, self._earlier = self._earlier, []
            for event in earlier:
                handler(event)

    async def answer(self) -> None:
        """Accept an inbound call; `LegAnswered` follows."""
        await _translate(self._call.answer(), "the call can't be accepted")

    async def hang_up(self) -> None:
        """End the leg, or refuse a call that was not answered; harmless after the end."""
        if self._ended:
            return
        incoming = self._call.state is baresip.CallState.INCOMING
        try:
            await (self._call.reject() if incoming else self._call.hangup())
        except baresip.StaleHandleError:
            pass  # Both sides have hung up.
        except baresip.BaresipError as error:
            raise LegError(f"the call can't be ended: {error}") from error

    async def hold(self) -> None:
        """Put the other side on hold."""
        await _retry(self._call.hold, "the call can't be held")

    async def resume(self) -> None:
        """Take the other side off hold."""
        await _retry(self._call.resume, "the call can't be resumed")

    async def press(self, digits: str) -> None:
        """Press keys."""
        await _translate(self._call.send_dtmf(digits), "the digits can't be sent")

    async def transfer(self, target: str) -> None:
        """Have the other side call another address; the leg ends when that has worked."""
        await _translate(self._call.transfer(target), "the call was not transferred")

    async def transfer_to(self, other: SipLeg) -> None:
        """Connect the other sides of two legs with each other; both legs end."""
        if not isinstance(other, BaresipLeg):
            raise LegError("both calls must belong to one SIP stack")
        work = self._call.attended_transfer(other._call)
        await _translate(work, "the calls were not connected")

    async def accept_transfer(self, target: str) -> SipLeg:
        """Call the address of `TransferAsked`; this leg ends when it answers."""
        # The stack calls the newest address that was asked for, which nobody may have allowed.
        request = self._call.transfer_request
        if request is None or refer_target(request.raw) != target:
            raise LegError("the transfer can't be followed: another one was asked for meanwhile")
        try:
            return await _begin_leg(self._call._runtime, self._call.accept_transfer)
        except baresip.BaresipError as error:
            raise LegError(f"the transfer can't be followed: {error}") from error

    async def reject_transfer(self) -> None:
        """Refuse `TransferAsked`."""
        await _translate(self._call.reject_transfer(), "the transfer can't be refused")

    def send_state(self) -> SendState | None:
        """Return what is buffered; None while nothing can be sent."""
        try:
            info = self._audio.info()
        except baresip.AudioNotActive:
            return None
        if not (info.tx_ready and info.rx_ready):
            return None
        self._send_rate = info.tx_sample_rate
        self._channels = info.tx_channels
        bytes_per_s = 2 * info.tx_channels * info.tx_sample_rate
        # `info` accepts a new stream silently, so its number is read from where the package has it.
        return SendState(self._audio._bound_epoch or 0, info.tx_buffered / bytes_per_s)

    @property
    def rate(self) -> int:
        """Rate in Hz of what `write` takes, after `send_state` has returned a state."""
        return self._send_rate

    def write(self, samples: Samples) -> None:
        """Send mono int16 audio at `rate`; what doesn't fit is dropped."""
        if self._channels > 1:
            samples = np.repeat(samples, self._channels)
        # A new stream shows in the next `send_state`, and the audio is written again.
        with suppress(baresip.AudioRestarted, baresip.AudioNotActive):
            self._audio.write(samples.tobytes())

    def flush(self) -> None:
        """Drop what was written and not sent."""
        with suppress(baresip.AudioRestarted, baresip.AudioNotActive):
            self._audio.flush_tx()

    def read(self) -> AudioFrame | None:
        """Return the audio that has arrived since; None without any."""
        try:
            data = self._audio.read(_READ_BYTES)
        except (baresip.AudioRestarted, baresip.AudioNotActive):
            self._read_format = None
            return None
        if not data:
            return None
        if self._read_format is None:
            try:
                info = self._audio.info()
            except baresip.AudioNotActive:
                return None
            self._read_format = info.rx_sample_rate, info.rx_channels
        rate, channels = self._read_format
        samples = np.frombuffer(data, np.int16)
        return AudioFrame(samples[::channels].copy() if channels > 1 else samples, rate)

    def figures(self) -> LegFigures:
        """Return the newest figures."""
        return self._figures

    def _emit(self, event: LegEvent) -> None:
        if self._handler is None:
            self._earlier.append(event)
        else:
            self._handler(event)

    def _on_stack_event(self, event: StackEvent) -> None:
        match event.event:
            case Event.CALL_ESTABLISHED:
                self._emit(LegAnswered())
            case Event.CALL_CLOSED:
                self._ended = True
                status, reason = _split_status(event.text or "")
                self._emit(LegEnded(reason, status))
            case Event.CALL_HOLD:
                self._emit(LegHeld(True))
            case Event.CALL_RESUME:
                self._emit(LegHeld(False))
            case Event.CALL_TRANSFER:
                request = self._call.transfer_request
                if request is not None:
                    self._emit(TransferAsked(refer_target(request.raw)))
            case _:
                pass

    def _on_report(self, stats: baresip.CallStats) -> None:
        self._figures = LegFigures(
            rtt_ms=stats.rtt_ms,
            jitter_ms=stats.rx_jitter_ms,
            lost_packets=max(0, stats.rx_lost),
            peer_jitter_ms=stats.tx_jitter_ms,
            peer_lost_packets=max(0, stats.tx_lost),
            buffer_ms=float(stats.jbuf_delay_ms or 0),
            late_packets=stats.jbuf_late or 0,
        )
        self._emit(LegReport(self._figures))


class _InviteLog(logging.Filter):
    """Reads from the stack's trace where each request for a call came from."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._logger = logging.getLogger("baresip.native.sip")
        self._level = self._logger.level
        self._sources: BoundedDict[str, frozenset[str]] = BoundedDict(_REMEMBERED)
        self._waiting: dict[str, asyncio.Future[None]] = {}

    def install(self) -> None:
        """Read the trace, and keep it out of all logs."""
        self._level = self._logger.level
        self._logger.setLevel(logging.DEBUG)
        self._logger.addFilter(self)

    def remove(self) -> None:
        """Leave the logger as it was."""
        self._logger.removeFilter(self)
        self._logger.setLevel(self._level)

    def filter(self, record: logging.LogRecord) -> bool:
        """Take a message, on the thread that logs; pass none on."""
        seen = read_invite(record.getMessage())
        if seen is not None:
            with suppress(RuntimeError):  # The loop has ended.
                self._loop.call_soon_threadsafe(self._add, seen)
        return False

    async def sources(self, call_id: str) -> frozenset[str]:
        """Return all addresses that have sent a request for a call with this id."""
        if call_id not in self._sources:
            arrived = self._waiting.setdefault(call_id, self._loop.create_future())
            try:
                async with asyncio.timeout(_SOURCE_S):
                    await asyncio.shield(arrived)
            except TimeoutError:
                logger.warning("a request for a call was not traced, and is refused")
            finally:
                self._waiting.pop(call_id, None)
        return self._sources.get(call_id, frozenset())

    def _add(self, seen: InviteSeen) -> None:
        self._sources[seen.call_id] = self._sources.get(seen.call_id, frozenset()) | {seen.source}
        waiting = self._waiting.get(seen.call_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def _config(options: StackOptions) -> baresip.Config:
    low, high = options.jitter_ms
    lines = [
        f"sip_listen {options.listen}",
        f"audio_jitter_buffer_type {options.jitter_type}",
        f"audio_jitter_buffer_ms {low}-{high}",
        _SEND_BUFFER,
    ]
    if options.udp_ports is not None:
        lines.append(f"rtp_ports {options.udp_ports[0]}-{options.udp_ports[1]}")
    if options.certfile is not None:
        lines.append(f"sip_certificate {options.certfile}")
    if options.cafile is not None:
        lines.append(f"sip_cafile {options.cafile}")
    return baresip.Config(
        net_interface=options.interface,
        max_concurrent_calls=None,
        rtp_timeout=options.vanished_s,
        expose_headers=tuple(dict.fromkeys([*_HEADERS, *options.headers])),
        native_log_level="error",
        sip_trace=options.trace,
        extra_config_text="\n".join(lines),
    )


def check_account(options: StackOptions) -> None:
    """Raise `ConfigError` if the stack could not read the account; never show the password."""
    try:
        _account(options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"this account of SIP can't work: {error}") from None


def _account(options: StackOptions) -> baresip.Account:
    parameters = list(options.account_parameters)
    if encryption := _MEDIA_ENCRYPTION[options.srtp]:
        parameters.append(encryption)
    if not options.register_s:
        parameters.append("catchall=yes")  # A trunk calls any of its numbers.
    digits: Mapping[str, Literal["rtpevent", "info", "auto"]] = {
        "rtp": "rtpevent",
        "info": "info",
        "auto": "auto",
    }
    return baresip.Account(
        user=options.user,
        domain=options.domain,
        password=options.password,
        registrar=options.proxy,
        reg_interval=options.register_s,
        transport=options.transport,
        audio_codecs=tuple(CODECS[codec][0] for codec in options.codecs),
        dtmf_mode=digits[options.digits],
        auth_user=options.auth_user,
        extra_params=tuple(parameters),
    )


def _split_status(text: str) -> tuple[int, str]:
    """Return the status and the reason of a line such as ``486 Busy Here``; 0 without a status."""
    match = re.fullmatch(r"([3-6]\d\d) ?(.*)", text)
    return (0, text) if match is None else (int(match[1]), match[2] or text)


async def _begin_leg(
    runtime: baresip.Runtime, begin: Callable[[], Awaitable[baresip.Call]]
) -> BaresipLeg:
    """Begin a call, and give it the events that came before the package knew of it.

    The package listens for a call's events only once its own command has returned, and a fast
    answer is there before that. A call that has begun when this is cancelled is ended, because
    nobody else knows of it.
    """
    early: list[StackEvent] = []
    runtime.subscribe(early.append)
    beginning = asyncio.ensure_future(begin())
    try:
        call = await asyncio.shield(beginning)
    except asyncio.CancelledError:
        with suppress(baresip.BaresipError, ValueError):
            await (await beginning).hangup()
        raise
    finally:
        runtime.unsubscribe(early.append)
    leg = BaresipLeg(call)
    for event in early:
        call._on_stack_event(event)
    return leg


async def _translate(work: Awaitable[None], what: str) -> None:
    """Await ``work``; raise `LegError` for the stack's errors."""
    try:
        await work
    except baresip.TransferFailed as error:
        raise LegError(f"{what}: {error.reason or error}", error.status or 0) from error
    except (baresip.BaresipError, ValueError) as error:
        raise LegError(f"{what}: {error}") from error


async def _retry(begin: Callable[[], Awaitable[None]], what: str) -> None:
    """Begin again for a while, because a session that changes already can't be changed."""
    for _ in range(_HOLD_TRIES):
        try:
            await begin()
        except baresip.StaleHandleError as error:
            raise LegError(f"{what}: the call has ended") from error
        except baresip.BaresipError as error:
            last = error
            await asyncio.sleep(_HOLD_PAUSE_S)
        else:
            return
    raise LegError(f"{what}: {last}") from last
