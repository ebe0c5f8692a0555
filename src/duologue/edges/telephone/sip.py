"""Calls over SIP: a trunk, or an account at a registrar."""

# An inbound call passes three gates before an agent is made, and each refuses with 486 at once:
#
#     INVITE ──▶ source is allowed? ──▶ a place is free? ──▶ make_agent ──▶ SIPCall ──▶ 200 OK
#
# The call is accepted when the agent joins it, so a call without an agent is never answered.

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Literal

from duologue._net import is_loopback
from duologue.edges._agent_calls import AgentCalls, JoiningAgent, limiter_of
from duologue.edges.telephone._baresip import (
    CODECS,
    BaresipStack,
    Codec,
    Srtp,
    StackOptions,
    check_account,
)
from duologue.edges.telephone._sip_address import (
    SIP_PORT,
    Sources,
    called_number,
    header_address,
    host_of,
    parse_address,
    target_address,
)
from duologue.edges.telephone._sip_leg import LegError, SipLeg, wait_until_answered
from duologue.edges.telephone._sip_pump import SipPump
from duologue.edges.telephone.calls import PhoneCall, TelephoneError
from duologue.edges.telephone.carrier import RING_S
from duologue.edges.telephone.sip_call import SIPCall
from duologue.errors import ConfigError
from duologue.server.call_control import CallControl, CallRecord
from duologue.server.call_socket import Refusal, RefusedError
from duologue.server.calls import CallLimiter

logger = logging.getLogger(__name__)

type MakeSIPAgent = Callable[[SIPCall], JoiningAgent | Awaitable[JoiningAgent | None]]
"""Makes the agent for one call; a plain or an ``async`` function.

An ``async`` function may also conduct the whole call itself, and return None.
"""

type FollowTransfer = Callable[[PhoneCall, str], bool]
"""Whether to follow a transfer that the other side asks for, to an address."""

MAX_ARRIVING = 128
"""Most inbound calls that have not been admitted or refused; more are refused at once."""

_PASSWORD = "DUOLOGUE_SIP_PASSWORD"  # noqa: S105 - a name
_LOG_INTERVAL_S = 60.0
"""Seconds between two log lines about refused sources."""
_HANG_UP_S = 0.3
_PORT_TRIES = 20
_MAX_OUTPUT_RATE = 24000


class SIP:
    """Calls over SIP, by a trunk or by an account at a registrar; one for each process.

    Args:
        address: Who we are, such as ``sip:bot@pbx.example.org``. Without ``register``, calls to any
            user are accepted, because a trunk calls its numbers.
        password: For the registrar or the trunk; by default ``DUOLOGUE_SIP_PASSWORD``.
        auth_user: User name that goes with the password, where it is not that of ``address``.
        register: Whether to register, and after how many seconds again; True is 600.
        proxy: Host that requests go to, where it is not that of ``address``, such as
            ``sbc.example.org:5061``.
        transport: How SIP travels to the proxy.
        listen: Address and UDP port to listen on; port 0 takes a free one.
        allow: Addresses and networks from which calls are accepted, besides those of ``address``
            and ``proxy``; ``any`` accepts calls from everywhere.
        codecs: Codecs in the order of preference: ``opus``, ``g722``, ``pcmu``, ``pcma``.
        srtp: Whether audio is encrypted: ``optional`` if the other side can, ``required``, or
            ``dtls`` (keys by DTLS).
        jitter_ms: First and longest delay of the jitter buffer, in ms. It adapts itself; None
            switches it off.
        digits: How keys are sent: in the audio stream (``rtp``), or by ``info``; ``auto`` takes
            ``info`` if the other side offers no keys in the audio stream.
        udp_ports: First and last UDP port of audio; any by default.
        vanished_s: Seconds without a packet after which a call has ended; 0 never ends it.
        follow_transfer: Gets the call and the address when the other side asks us to call another
            one, and returns whether to call it. Without it, every such request is refused.
        headers: Names of headers of a call's request that become `PhoneCall.parameters`.
        certfile: Certificate with its key, for TLS.
        cafile: Certificates to trust, for TLS.
        account_parameters: Further parameters of baresip's account, such as ``medianat=ice``.

    Raises:
        ConfigError: An argument can't work.
        MissingExtraError: The extra ``sip`` is not installed.
    """

    name = "sip"

    def __init__(
        self,
        address: str,
        *,
        password: str | None = None,
        auth_user: str | None = None,
        register: bool | int = False,
        proxy: str | None = None,
        transport: Literal["udp", "tcp", "tls"] = "udp",
        listen: str = f"127.0.0.1:{SIP_PORT}",
        allow: Sequence[str] | Literal["any"] = (),
        codecs: Sequence[Codec] = ("pcmu", "pcma"),
        srtp: Srtp = "off",
        jitter_ms: tuple[int, int] | None = (40, 200),
        digits: Literal["rtp", "info", "auto"] = "rtp",
        udp_ports: tuple[int, int] | None = None,
        vanished_s: int = 30,
        follow_transfer: FollowTransfer | None = None,
        headers: Sequence[str] = (),
        certfile: str | None = None,
        cafile: str | None = None,
        account_parameters: Sequence[str] = (),
    ) -> None:
        self._address = parse_address("address", address)
        if password is None:
            password = os.environ.get(_PASSWORD, "")
        self._listen_host, self._listen_port = _split_listen(listen)
        codecs = tuple(codecs)
        if not codecs or set(codecs) - set(CODECS):
            raise ConfigError(f"codecs must be some of {', '.join(CODECS)}, not {codecs!r:.80}")
        if jitter_ms is not None and not 0 < jitter_ms[0] <= jitter_ms[1] <= 2000:
            raise ConfigError(f"jitter_ms must be two times such as (40, 200), not {jitter_ms!r}")
        if vanished_s < 0:
            raise ConfigError(f"vanished_s must be 0 or more, not {vanished_s}")
        if follow_transfer is not None and not callable(follow_transfer):
            raise ConfigError(f"follow_transfer must be a function, not {follow_transfer!r:.60}")
        self._proxy = proxy
        self._allow: tuple[str, ...] | None = None if allow == "any" else tuple(allow)
        if self._allow is not None:
            Sources(self._allow)  # An address that can't be used is an error now.
        self._follow = follow_transfer
        self._headers = tuple(headers)
        self._output_rate = min(_MAX_OUTPUT_RATE, max(CODECS[codec][1] for codec in codecs))
        self._options = StackOptions(
            user=self._address.user,
            domain=self._address.domain,
            password=password,
            auth_user=auth_user,
            proxy=proxy,
            register_s=600 if register is True else int(register),
            transport=transport,
            codecs=codecs,
            srtp=srtp,
            digits=digits,
            listen=listen,
            interface=None if self._listen_host in ("0.0.0.0", "[::]") else self._listen_host,  # noqa: S104
            jitter_type="off" if jitter_ms is None else "adaptive",
            jitter_ms=jitter_ms or (40, 200),
            udp_ports=udp_ports,
            vanished_s=vanished_s,
            headers=self._headers,
            trace=self._allow is not None,
            certfile=certfile,
            cafile=cafile,
            account_parameters=tuple(account_parameters),
        )
        check_account(self._options)
        self._service: _Service | None = None

    def __repr__(self) -> str:
        return f"<telephone.SIP {self._address}>"

    @property
    def listening(self) -> str:
        """Address and port of SIP on this machine, such as ``127.0.0.1:5060``."""
        return f"{self._listen_host}:{self._listen_port}"

    @property
    def invitation(self) -> str:
        """What a person must know to call, in one line."""
        where = f"Calls over SIP at {self.listening}"
        return f"{where}, registered as {self._address}" if self._options.register_s else where

    @property
    def counters(self) -> dict[str, int]:
        """Number of calls, and of those that were refused: for their source, or for no place."""
        service = self._service
        return {
            "calls": 0 if service is None else service.calls,
            "refused_sources": 0 if service is None else service.refused_sources,
            "refused_full": 0 if service is None else service.refused_full,
        }

    async def serve(
        self,
        make_agent: MakeSIPAgent,
        *,
        max_calls: int | None = None,
        ready: Callable[[str], None] | None = None,
    ) -> None:
        """Take calls until cancelled.

        Args:
            make_agent: Gets the `SIPCall` of a call and returns the `Agent` that joins it.
            max_calls: Most calls at once; 8 for each core by default.
            ready: Called once with `listening`.

        Raises:
            ConfigError: An argument can't work, or the port is taken.
            TelephoneError: The registrar refused, or the stack has failed.
        """
        async with self.running(make_agent, limiter_of(None, max_calls)) as service:
            if ready is not None:
                ready(self.listening)
            await service.failed.wait()
            raise TelephoneError(service.failure)

    @asynccontextmanager
    async def running(
        self, make_agent: MakeSIPAgent, limiter: CallLimiter
    ) -> AsyncGenerator[_Service]:
        """Take calls during the block; `duologue.hosting.serve` uses this.

        Args:
            make_agent: See `serve`.
            limiter: Gives the places.

        Raises:
            ConfigError: The port is taken, or another `SIP` runs.
            TelephoneError: The registrar refused, or the stack can't start.
        """
        if self._service is not None:
            raise ConfigError("this SIP runs already")
        options = self._prepare()
        sources = await self._find_sources()
        service = _Service(self, options, AgentCalls(make_agent), limiter, sources)
        self._service = service
        try:
            async with asyncio.TaskGroup() as tasks:
                service.tasks = tasks
                try:
                    await service.stack.start()
                except LegError as error:
                    raise TelephoneError(str(error), status=error.status) from error
                try:
                    yield service
                finally:
                    await service.close()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise
        finally:
            self._service = None

    async def dial(
        self,
        to: str,
        *,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        ring_s: float = RING_S,
    ) -> str:
        """Call a number or an address; ``make_agent`` makes the agent when it has answered.

        Know what your law says of automatic calls before you use this.

        Args:
            to: Number such as +15551234567, or address such as ``sip:ann@example.org``.
            parameters: Short texts for ``make_agent``, in ``edge.call.parameters``.
            headers: Headers of the request.
            ring_s: Seconds to let it ring.

        Returns:
            The id of the call, once it was answered.

        Raises:
            ConfigError: ``to`` can't be called.
            TelephoneError: The other side is busy, refused, or did not answer; or all places here
                are taken.
        """
        target = target_address("to", to, self._address.domain)
        service = self._service
        if service is None:
            raise TelephoneError("SIP does not run: call serve first")
        call = PhoneCall(
            carrier=self.name,
            id="",
            caller=self._address.user,
            called=to,
            parameters={str(key): str(value) for key, value in (parameters or {}).items()},
            direction="outbound",
        )
        return await service.call_out(call, target, dict(headers or {}), ring_s)

    def _prepare(self) -> StackOptions:
        """Return the options with the port that is taken.

        Raises:
            ConfigError: The port is not free.
        """
        host = self._listen_host.strip("[]")
        for attempt in range(_PORT_TRIES):
            try:
                self._listen_port = _free_port(host, self._listen_port)
                break
            except OSError as error:
                if self._listen_port or attempt == _PORT_TRIES - 1:
                    raise ConfigError(
                        f"SIP can't listen on {self.listening}: {error.strerror or error}"
                    ) from error
        return dataclasses.replace(self._options, listen=self.listening)

    async def _find_sources(self) -> Sources | None:
        """Return from where calls are accepted; None for everywhere."""
        if self._allow is None:
            return None
        networks = list(self._allow)
        if is_loopback(self._listen_host):
            networks += ["127.0.0.0/8", "::1"]
        hosts = {self._address.host}
        if self._proxy is not None:
            hosts.add(host_of(self._proxy))
        loop = asyncio.get_running_loop()
        for host in hosts:
            with suppress(OSError, UnicodeError):
                for info in await loop.getaddrinfo(host.strip("[]"), None):
                    networks.append(str(info[4][0]).partition("%")[0])
        return Sources(networks)


class _Service:
    """The running stack and its calls."""

    def __init__(
        self,
        sip: SIP,
        options: StackOptions,
        agents: AgentCalls[SIPCall],
        limiter: CallLimiter,
        sources: Sources | None,
    ) -> None:
        self._sip = sip
        self._agents = agents
        self._limiter = limiter
        self._sources = sources
        self._pump = SipPump()
        self._arriving = 0
        self._closing = False
        self._logged_at = float("-inf")
        self._running: set[asyncio.Task[None]] = set()
        self.tasks: asyncio.TaskGroup
        self.stack = BaresipStack(options, self._on_incoming, self._on_failure)
        self.calls = 0
        self.refused_sources = 0
        self.refused_full = 0
        self.failed = asyncio.Event()
        self.failure = ""

    async def close(self) -> None:
        """End all calls, and the stack."""
        self._closing = True
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self.stack.close()

    async def call_out(
        self, call: PhoneCall, target: str, headers: Mapping[str, str], ring_s: float
    ) -> str:
        """Call ``target``; return the id of the call once it was answered."""
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = self._start(self._run_outbound(call, target, headers, ring_s, answered))
        try:
            return await asyncio.shield(answered)
        except asyncio.CancelledError:
            answered.cancel()
            task.cancel()
            raise

    def _on_failure(self, reason: str) -> None:
        logger.critical("%s", reason)
        self.failure = reason
        self.failed.set()

    def _on_incoming(self, leg: SipLeg) -> None:
        self._start(self._run_inbound(leg, full=self._arriving >= MAX_ARRIVING or self._closing))

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = self.tasks.create_task(_contain(work), name="SIP call")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _run_inbound(self, leg: SipLeg, *, full: bool) -> None:
        self._arriving += 1
        try:
            admitted = not full and await self._is_allowed(leg) and self._has_place()
        finally:
            self._arriving -= 1
        try:
            if admitted:
                edge = self._make_edge(leg, self._inbound_call(leg), answered=False)
                await self._run_call(edge)
        except RefusedError:
            self.refused_full += 1
        finally:
            await _hang_up(leg)

    async def _run_outbound(
        self,
        call: PhoneCall,
        target: str,
        headers: Mapping[str, str],
        ring_s: float,
        answered: asyncio.Future[str],
    ) -> None:
        leg: SipLeg | None = None
        try:
            self._limiter.check_place()
            leg = await self.stack.dial(target, headers)
            await wait_until_answered(leg, ring_s)
            call = dataclasses.replace(call, id=leg.call_id)
            edge = self._make_edge(leg, call, answered=True)
            if not answered.done():
                answered.set_result(leg.call_id)
            await self._run_call(edge)
        except RefusedError as error:
            _fail(answered, TelephoneError(f"the call was not placed: {error}"))
        except LegError as error:
            _fail(answered, TelephoneError(str(error), status=error.status))
        finally:
            _fail(answered, TelephoneError("the call was not placed: SIP has ended"))
            if leg is not None:
                await _hang_up(leg)

    async def _run_call(self, edge: SIPCall) -> None:
        limiter = self._limiter
        record = None if limiter.record is None else limiter.record(edge)
        call = _AdmittedSIPCall(record)
        async with limiter.place(None, call):
            self.calls += 1
            try:
                await call.run(lambda: self._agents.run(edge, record))
            finally:
                self.calls -= 1

    def _make_edge(self, leg: SipLeg, call: PhoneCall, *, answered: bool) -> SIPCall:
        sip = self._sip
        return SIPCall(
            leg,
            call,
            pump=self._pump,
            domain=sip._address.domain,
            output_rate=sip._output_rate,
            answered=answered,
            dial=lambda target: self.stack.dial(target, {}),
            follow=sip._follow,
            vanished_s=sip._options.vanished_s,
        )

    def _inbound_call(self, leg: SipLeg) -> PhoneCall:
        return PhoneCall(
            carrier=self._sip.name,
            id=leg.call_id,
            caller=called_number(leg.peer),
            called=called_number(header_address(leg.headers.get("To", ""))),
            parameters={
                name: leg.headers[name] for name in self._sip._headers if name in leg.headers
            },
        )

    async def _is_allowed(self, leg: SipLeg) -> bool:
        if self._sources is None:
            return True
        found = await self.stack.source_of(leg)
        if found and all(self._sources.allow(source) for source in found):
            return True
        self.refused_sources += 1
        now = time.monotonic()
        if now - self._logged_at >= _LOG_INTERVAL_S:
            self._logged_at = now
            logger.warning(
                "refused a call from %s: if it is your trunk or telephone system, add it to allow",
                ", ".join(sorted(found)) or "an unknown address",
            )
        return False

    def _has_place(self) -> bool:
        try:
            self._limiter.check_place()
        except RefusedError:
            self.refused_full += 1
            return False
        return True


class _AdmittedSIPCall:
    """A call as the server sees it (`AdmittedCall`)."""

    def __init__(self, record: CallRecord | None) -> None:
        self.call_id = ""
        self.control: CallControl | None = None if record is None else record.control
        self.after_call = None if record is None else record.after_call
        self._limit = asyncio.timeout(None)

    def end(self, reason: Refusal | None = None) -> None:
        """End the call; the other side learns no reason."""
        del reason
        if not self._limit.expired():
            self._limit.reschedule(0.0)

    async def warn(self, seconds: float) -> None:
        """Do nothing: SIP has no message for that."""

    async def run(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run the call until it has ended, or `end`."""
        try:
            async with self._limit:
                await work()
        except TimeoutError:
            logger.info("a call was ended by an operator, or because the server ends")


async def _contain(work: Coroutine[object, object, None]) -> None:
    """Run one call, and log an error of ours, which must not end the other calls."""
    try:
        await work
    except Exception:
        logger.exception("a call over SIP has failed")


async def _hang_up(leg: SipLeg) -> None:
    with suppress(LegError, TimeoutError):
        async with asyncio.timeout(_HANG_UP_S):
            await leg.hang_up()


def _fail(future: asyncio.Future[str], error: TelephoneError) -> None:
    if not future.done():
        future.set_exception(error)


def _free_port(host: str, port: int) -> int:
    """Return a port that is free for UDP and TCP: ``port``, or any for 0.

    Raises:
        OSError: It is not free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as udp,
        socket.socket(family, socket.SOCK_STREAM) as tcp,
    ):
        udp.bind((host, port))
        free = int(udp.getsockname()[1])
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((host, free))
        return free


def _split_listen(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        number = int(port)
    except ValueError:
        colon = ""
        number = -1
    if not colon or not 0 <= number < 65536:
        raise ConfigError(
            f"listen must be an address and a port such as 0.0.0.0:5060, not {listen!r:.60}"
        )
    return host, number
