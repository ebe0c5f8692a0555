"""Admit callers, run one call for each, and refuse calls beyond the limit."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import os
import socket as sockets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import Literal, Protocol

from starlette.websockets import WebSocket

from duologue._json_logs import call_context
from duologue._user_code import FailureReports, log_failure
from duologue.clock import LoopClock
from duologue.errors import DuologueError
from duologue.json_types import Json, JsonObject
from duologue.rtc.call_request import CallRequest
from duologue.rtc.config import IceServer
from duologue.rtc.signalling import Signalling
from duologue.server._lateness import LatenessMonitor
from duologue.server._rate_limits import EvictingPool
from duologue.server._relay import RelayedSocket, relay
from duologue.server.call_control import CallControl, CallRecord, FollowedCall
from duologue.server.call_socket import (
    BAD_TOKEN,
    BUSY,
    CLOSE_S,
    FAILED,
    GONE,
    LOADING,
    REPLACED,
    RESTARTING,
    TOO_FAST,
    CallRefusedError,
    CallSocket,
    Hello,
    Refusal,
    RefusedError,
)
from duologue.server.config import ServerConfig
from duologue.server.page_call import PageCall, PageSocket
from duologue.server.tickets import SharedTickets, Ticket, WrongTickets
from duologue.ticker import Subscription, ticker_for

log = logging.getLogger(__name__)

AFTER_CALL_S = 30.0
"""Most seconds that the work after a call may take."""

LEDGER_S = 2.0
"""Most seconds that `SharedTickets` may take to answer."""


class CallSignalling(Signalling, Protocol):
    """The signalling of a call through this server."""

    @property
    def request(self) -> CallRequest:
        """The request that began the call."""
        ...

    @property
    def call_id(self) -> str:
        """Names the call in logs and in the REST API; it is no secret."""
        ...

    @property
    def session_id(self) -> str:
        """Names the conversation, also in another process that takes it up; it is no secret."""
        ...

    @property
    def resumed(self) -> bool:
        """Whether another process had the conversation before."""
        ...

    @property
    def keep_s(self) -> float:
        """Seconds that the call waits for a page that has lost its network.

        0 if the page can't come back.
        """
        ...

    @property
    def ice_servers(self) -> tuple[IceServer, ...]:
        """The STUN and TURN servers for this call."""
        ...

    control: CallControl | None
    """What the REST API and the end of the server can do with the call; set by the handler."""
    after_call: Callable[[], Awaitable[None]] | None
    """Runs after the call, when its place is free again, for at most `AFTER_CALL_S`."""


type CallHandler = Callable[[CallSignalling], Awaitable[None]]
"""Handles one call, from its offer to its end; cancelled if the person does not come back."""

_OVERLOADED = Refusal(
    "full", 1013, "This server is too busy for another call: try again in a minute."
)
_ELSEWHERE = Refusal(
    "restarting", 1012, "This process is too busy for another call: the page calls again by itself."
)
"""Another worker would take the call; 1012 makes the page call again without asking."""

MAX_WAITING = 128
"""Most open sockets that have not sent their hello; a new one evicts an older one."""


class AdmittedCall(Protocol):
    """A call as the server sees it, whether of the page, of a telephone or of a WebSocket.

    Attributes:
        call_id: Names the call in logs and in the REST API; set when it is admitted.
        control: What the REST API and the end of the server can do with it; None for nothing.
        after_call: Runs after the call, when its place is free again.
    """

    call_id: str
    control: CallControl | None
    after_call: Callable[[], Awaitable[None]] | None

    def end(self, reason: Refusal | None = None) -> None:
        """End the call.

        Args:
            reason: What the other side gets; None is an ordinary end.
        """

    async def warn(self, seconds: float) -> None:
        """Tell the other side that the call ends in ``seconds``, where it understands that."""


@dataclass(frozen=True, slots=True)
class RunningCall:
    """A call that has been admitted and has not ended.

    Args:
        call: The call.
        started_at: Unix time at which it was admitted.
    """

    call: AdmittedCall
    started_at: float

    def summary(self) -> JsonObject:
        """Return the call as the REST API lists it."""
        control = self.call.control
        return {
            "id": self.call.call_id,
            "pid": os.getpid(),
            "started_at": round(self.started_at, 3),
            "seconds": round(max(0.0, time.time() - self.started_at), 1),
            **(control.summary() if isinstance(control, FollowedCall) else {}),
        }


@dataclass(frozen=True, slots=True)
class ApiReply:
    """What the REST API answers.

    Args:
        status: HTTP status.
        body: JSON; None for a response without a body.
    """

    status: int
    body: JsonObject | None


class SharedLimits(Protocol):
    """The other processes of a server with several workers."""

    @property
    def prefix(self) -> str:
        """What the ids of this process's calls begin with."""
        ...

    async def admit(self) -> bool:
        """Take one of the places that all share; return False if there is none."""
        ...

    def free(self) -> None:
        """Give a place back."""

    async def connect(self, call_id: str) -> sockets.socket | None:
        """Return a channel to the process that has a call, which gets the other end.

        Returns:
            None if no other process has it.
        """
        ...

    async def health(self) -> JsonObject | None:
        """Return what ``/health`` answers for all; None if that is not known."""
        ...

    async def is_elsewhere(self) -> bool:
        """Return whether another process would admit a call that this one must refuse."""
        ...

    async def metrics(self) -> str:
        """Return the metrics of all, in Prometheus' text format."""
        ...

    async def list_calls(self) -> list[Json]:
        """Return the calls of all."""
        ...

    async def ask(self, call_id: str, request: JsonObject) -> ApiReply:
        """Ask something of a call of another process."""
        ...


class CallLimiter:
    """Runs the calls of one app, and limits their number.

    ``sessions`` counts the running calls, ``refused`` the calls refused because of a limit, and
    ``refused_late`` those of them that would have found a place, but the ticks were late.

    Args:
        handler: Handles one call.
        config: The limits.
    """

    def __init__(self, handler: CallHandler, config: ServerConfig) -> None:
        self._handler = handler
        self._config = config
        self._sockets_without_hello: EvictingPool[object] = EvictingPool(MAX_WAITING)
        self._wrong_tickets = WrongTickets()
        self.sessions = 0
        self.shared: SharedLimits | None = None
        """The other workers, if there are any; they share the limit of calls."""
        self.running: dict[str, RunningCall] = {}
        """The running calls by their ids."""
        self.shared_tickets: SharedTickets | None = None
        """Tickets of conversations that other processes may take up, if there are any."""
        self._ledger_failures = FailureReports(time.monotonic)
        self.signal_handlers: dict[str, Callable[[JsonObject], Awaitable[ApiReply]]] = {}
        """What takes the later requests of calls that have no socket, by the ids of the calls."""
        self.record: Callable[[object], CallRecord] | None = None
        """Makes what follows a call that is not the page's, from its edge."""
        self.draining = False
        """Whether no further call is admitted, because the server is about to end."""
        self.loading = False
        """Whether calls are refused for now, because weights are being loaded."""
        self._unfinished = 0
        """Calls that have not ended, or whose work after the call has not."""
        self._nothing_unfinished = asyncio.Event()
        self._nothing_unfinished.set()
        self.refused = 0
        self.refused_late = 0
        self._clock = LoopClock()
        self._lateness = LatenessMonitor()
        self._ticks: Subscription | None = None
        self.call_admitted: Callable[[tuple[str, int] | None], None] | None = None
        """Called with the address and port of each socket that has become a call."""

    async def serve(self, websocket: WebSocket) -> None:
        """Serve one socket: begin a call and run it, or carry one that is there already."""
        client = websocket.client
        host = client.host if client is not None else ""
        socket: CallSocket | None = None
        try:
            await websocket.accept()
            socket = CallSocket(websocket, self._config)
            self._sockets_without_hello.add(socket, host, socket.evict)
            try:
                hello = await socket.receive_hello()
            finally:
                self._sockets_without_hello.remove(socket)
            self._check_token(hello.token)
            if hello.ticket:
                await self._resume(websocket, socket, hello)
                return
            keep_s = 0.0 if hello.ticket is None else self._config.keep_call_s
            await self._begin(websocket, socket, PageCall(socket.request, keep_s=keep_s))
        except RefusedError as refused:
            if socket is not None:
                await socket.close(refused.refusal)

    async def _begin(self, websocket: WebSocket, socket: CallSocket, call: PageCall) -> None:
        """Admit one call, and run it and the work after it."""
        await self._take_place()
        self._exempt(websocket)
        with self._unfinished_call(call):
            with self._session(call):
                refusal = await self._run_call(call, socket)
            await call.close(refusal)
            if call.keep_s and not call.released and refusal is not RESTARTING:
                await self._ask_ledger(lambda ledger: ledger.ended(call.session_id))
            if call.after_call is not None:
                await _run_after_call(call.after_call())

    async def _resume(self, websocket: WebSocket, socket: CallSocket, hello: Hello) -> None:
        """Let a socket that shows a ticket carry its call.

        Raises:
            RefusedError: The ticket is wrong or has expired, or too many wrong ones were shown.
        """
        host = websocket.client.host if websocket.client is not None else ""
        now = asyncio.get_running_loop().time()
        if not self._wrong_tickets.may_try(host, now):
            raise RefusedError(TOO_FAST)
        ticket = Ticket.parse(hello.ticket or "")
        try:
            if ticket is None:
                raise RefusedError(GONE)
            if (call := self._claim(ticket)) is not None:
                self._exempt(websocket)
                await self._go_on(call, socket, hello.received)
            elif (channel := await self._connect(ticket)) is not None:
                self._exempt(websocket)
                await _pass_on(socket, hello, channel)
            elif await self._claim_elsewhere(ticket):
                keep_s = self._config.keep_call_s
                call = PageCall(socket.request, keep_s=keep_s, session_id=ticket.session_id)
                await self._begin(websocket, socket, call)
            else:
                raise RefusedError(GONE)
        except RefusedError as refused:
            if refused.refusal.code == GONE.code:
                self._wrong_tickets.count(host, now)
            raise

    async def _go_on(self, call: PageCall, socket: PageSocket, received: int) -> None:
        """Let another socket carry a call."""
        call.check_resume()
        with call_context(call.call_id):
            log.info("a call was taken up again")
            try:
                call.ice_servers = await self._config.ice_servers_for(call.request)
            except Exception as error:  # noqa: BLE001 - any error of the program's
                log_failure(log, "ice_servers", error)  # The earlier ones may still work.
            await self._send_config(call, socket, resumed=True)
            await call.carry(socket, received=received, offer_due=False)

    async def _connect(self, ticket: Ticket) -> sockets.socket | None:
        """Return a channel to another process of this host that has the call."""
        if self.shared is None or ticket.call_id in self.running:
            return None
        return await self.shared.connect(ticket.call_id)

    async def serve_relayed(self, channel: sockets.socket) -> None:
        """Let a page take up its call whose socket another process has.

        Args:
            channel: One end of a pair; the other process has the other one.
        """
        socket = await RelayedSocket.open(channel, self._config.max_message_bytes)
        try:
            hello = await socket.receive_hello()
            ticket = Ticket.parse(hello.ticket or "")
            call = None if ticket is None else self._claim(ticket)
            if call is None:
                raise RefusedError(GONE)
            await self._go_on(call, socket, hello.received)
            await socket.close()
        except RefusedError as refused:
            await socket.close(refused.refusal)

    async def _claim_elsewhere(self, ticket: Ticket) -> bool:
        """Return whether the ticket is one of a conversation that another process had.

        Raises:
            RefusedError: There is no place for it; the ticket stays valid.
        """
        if self.shared_tickets is None or ticket.call_id in self.running:
            return False
        if not self._config.keep_call_s:
            return False
        self.check_place()
        claimed = await self._ask_ledger(
            lambda ledger: ledger.claim(ticket.session_id, ticket.digest)
        )
        return claimed is True

    async def _send_config(self, call: PageCall, socket: PageSocket, *, resumed: bool) -> None:
        """Send a page what it needs, with the next ticket of its call."""
        config = self._config.config_message(call.ice_servers)
        if call.keep_s:
            ticket = call.tickets.issue()
            await self._ask_ledger(
                lambda ledger: ledger.issued(call.session_id, ticket.digest, call.keep_s)
            )
            config |= {"ticket": ticket.text, "keep_s": call.keep_s, "resumed": resumed}
        await socket.send(json.dumps(config))

    async def _ask_ledger[T](self, ask: Callable[[SharedTickets], Awaitable[T]]) -> T | None:
        """Ask the tickets of all processes; return None without them, or if they fail."""
        if self.shared_tickets is None:
            return None
        try:
            async with asyncio.timeout(LEDGER_S):
                return await ask(self.shared_tickets)
        except Exception as error:  # noqa: BLE001 - any error of the program's
            self._ledger_failures.report("the shared tickets", error)
            return None

    def release(self, session_id: str) -> None:
        """End the call of a conversation that another process has taken up; its tickets stay."""
        for running in list(self.running.values()):
            call = running.call
            if isinstance(call, PageCall) and call.session_id == session_id:
                call.released = True
                call.end(REPLACED)

    def _claim(self, ticket: Ticket) -> PageCall | None:
        """Return the call of a ticket if this process has it and the ticket is valid."""
        running = self.running.get(ticket.call_id)
        call = running.call if running is not None else None
        if not isinstance(call, PageCall) or call.over.is_set():
            return None
        return call if call.tickets.claim(ticket) else None

    @asynccontextmanager
    async def waiting(self, websocket: WebSocket, seconds: float) -> AsyncGenerator[None]:
        """Count a socket during the block among those that have not shown that they may call.

        It takes no place meanwhile, so that strangers can't take the places of callers.

        Args:
            websocket: The socket.
            seconds: How long the block may take.

        Raises:
            TimeoutError: The block took longer.
            RefusedError: A newer socket needs its room.
        """
        evicted = False
        try:
            async with asyncio.timeout(seconds) as limit:

                def evict() -> None:
                    nonlocal evicted
                    if not limit.expired():
                        evicted = True
                        limit.reschedule(0.0)

                client = websocket.client
                self._sockets_without_hello.add(
                    limit, client.host if client is not None else "", evict
                )
                try:
                    yield
                finally:
                    self._sockets_without_hello.remove(limit)
        except TimeoutError:
            if evicted:
                raise RefusedError(BUSY) from None
            raise

    @asynccontextmanager
    async def place(self, websocket: WebSocket | None, call: AdmittedCall) -> AsyncGenerator[None]:
        """Let a call that is not the page's have one of the places during the block.

        Args:
            websocket: The socket of the call; None for a call without one.
            call: The call; gets its id here.

        Raises:
            RefusedError: All places are taken, the ticks are late, or the server ends.
        """
        await self._take_place()
        if websocket is not None:
            self._exempt(websocket)
        with self._unfinished_call(call):
            with self._session(call):
                yield
            if call.after_call is not None:
                await _run_after_call(call.after_call())

    @contextmanager
    def _unfinished_call(self, call: AdmittedCall) -> Generator[None]:
        prefix = self.shared.prefix if self.shared is not None else ""
        call.call_id = prefix + token_hex(6)
        self._unfinished += 1
        self._nothing_unfinished.clear()
        try:
            with call_context(call.call_id):
                yield
        finally:
            if self.shared is not None:
                self.shared.free()
            self._unfinished -= 1
            if not self._unfinished:
                self._nothing_unfinished.set()

    @contextmanager
    def _session(self, call: AdmittedCall) -> Generator[None]:
        self.sessions += 1
        self.running[call.call_id] = RunningCall(call, time.time())
        self._watch_ticks()
        try:
            yield
        finally:
            del self.running[call.call_id]
            self.sessions -= 1
            if not self.sessions:
                self._unwatch_ticks()

    def _exempt(self, websocket: WebSocket) -> None:
        """Report that a socket has become a call."""
        if self.call_admitted is not None:
            # The connection is known by its own address, not by the one that a proxy names.
            peer = websocket.scope.get("duologue.peer", websocket.client)
            self.call_admitted((peer[0], peer[1]) if peer else None)

    def stop(self) -> None:
        """End the calls that wait for their page, and let no other one wait: the server ends."""
        for running in list(self.running.values()):
            if isinstance(running.call, PageCall):
                running.call.stop_keeping()

    async def drain(self, within_s: float, *, warn_s: float = 30.0) -> None:
        """Admit no further call, and return once all calls have ended.

        Args:
            within_s: Seconds that calls may continue; then they are ended with close code 1012, on
                which the page calls again; a carrier gets 1000.
            warn_s: Seconds before that at which people are warned; at most half of ``within_s``.
        """
        if not self.draining:
            self.draining = True
            if self.sessions:
                log.info("draining: %s may continue for %g s", _calls(self.sessions), within_s)
        warn_s = min(warn_s, within_s / 2)
        if not await self._wait_until_finished(within_s - warn_s):
            async with asyncio.TaskGroup() as tasks:
                warnings = [
                    tasks.create_task(warn_of_end(running.call, warn_s))
                    for running in self.running.values()
                    if warn_s > 0
                ]
                await self._wait_until_finished(warn_s)
                for warning in warnings:
                    warning.cancel()
        if self.sessions:
            were = "was" if self.sessions == 1 else "were"
            log.warning("%s %s ended because the server ends", _calls(self.sessions), were)
        for running in list(self.running.values()):
            running.call.end(RESTARTING)
        await self._wait_until_finished(self._config.end_timeout_s + CLOSE_S + AFTER_CALL_S)

    async def health(self) -> JsonObject:
        """Return ``status``, the number of calls, their limit, the delay of ticks, and refusals.

        With several workers, they are those of all, with a list ``workers``.
        """
        if self.shared is not None and (health := await self.shared.health()) is not None:
            return health
        status = "draining" if self.draining else "loading" if self.loading else "ok"
        return {
            "status": status,
            "sessions": self.sessions,
            "limit": self._config.max_sessions,
            "tick_delay_ms": round(self.tick_delay_ms, 1),
            "refused": self.refused,
            "late": self._is_late(),
        }

    def not_ready(
        self, health: JsonObject
    ) -> Literal["draining", "loading", "full", "late"] | None:
        """Return why no call would be admitted, from what `health` returned; None if it would."""
        if self.draining:
            return "draining"
        if self.loading:
            return "loading"
        match health:
            case {"sessions": int(sessions), "limit": int(limit)} if sessions >= limit:
                return "full"
            case {"late": True}:
                return "late"
            case _:
                return None

    async def signal(self, call_id: str, message: JsonObject) -> ApiReply:
        """Give a call that has no socket a request of its client; of any worker."""
        if self.shared is None or call_id in self.signal_handlers:
            return await self.signal_own(call_id, message)
        return await self.shared.ask(call_id, {"do": "signal", "message": message})

    async def signal_own(self, call_id: str, message: JsonObject) -> ApiReply:
        """Do what `signal` does, for a call of this process."""
        handler = self.signal_handlers.get(call_id)
        if handler is None:
            return ApiReply(404, {"detail": "there is no such call"})
        return await handler(message)

    async def list_calls(self) -> ApiReply:
        """Return the running calls, oldest first, of all workers."""
        calls = self.summaries() if self.shared is None else await self.shared.list_calls()
        return ApiReply(200, {"calls": calls})

    def summaries(self) -> list[Json]:
        """Return the running calls of this process."""
        return [call.summary() for call in self.running.values()]

    async def ask(self, call_id: str, request: JsonObject) -> ApiReply:
        """Do what an operator asks of one call, of any worker; see `ask_own`."""
        if self.shared is None or call_id in self.running:
            return self.ask_own(call_id, request)
        return await self.shared.ask(call_id, request)

    def ask_own(self, call_id: str, request: JsonObject) -> ApiReply:
        """Do what an operator asks of one call of this process.

        Args:
            call_id: The id of the call.
            request: ``do`` is ``show``, ``end``, ``interrupt``, ``follow`` with ``after``, or
                ``say`` with ``text`` and ``interrupt``.
        """
        running = self.running.get(call_id)
        if running is None:
            return ApiReply(404, {"error": "there is no such call"})
        call = running.call
        control = call.control
        try:
            match request:
                case {"do": "show"}:
                    state: JsonObject = {} if control is None else control.state()
                    return ApiReply(200, {**running.summary(), "state": state})
                case {"do": "end"}:
                    call.end()
                case _ if control is None:
                    return ApiReply(409, {"error": "this call has no agent yet"})
                case {"do": "follow", "after": int(after)}:
                    if not isinstance(control, FollowedCall):
                        return ApiReply(409, {"error": "this call is not followed"})
                    return ApiReply(200, control.changes(after))
                case {"do": "interrupt"}:
                    control.interrupt()
                case {"do": "say", "text": str(text), "interrupt": bool(interrupt)}:
                    control.say(text, interrupt=interrupt)
                case _:
                    return ApiReply(400, {"error": "unknown request"})
        except DuologueError as error:
            return ApiReply(409, {"error": str(error)})
        return ApiReply(204, None)

    async def _wait_until_finished(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._nothing_unfinished.wait()
        except TimeoutError:
            return False
        return True

    @property
    def tick_delay_ms(self) -> float:
        """Lateness, in ms, that a tenth of the output clock's ticks of the last 3 s exceeded.

        0 without a call in that time.
        """
        return self._lateness.delay_ms(self._clock.now())

    def _watch_ticks(self) -> None:
        """Measure the ticks behind the calls that are there already, because the last waits most.

        Without a call there is no tick, which saves an idle server 50 timers a second.
        """
        earlier, self._ticks = self._ticks, ticker_for(self._clock).subscribe(self._record_tick)
        if earlier is not None:
            earlier.cancel()

    def _unwatch_ticks(self) -> None:
        if self._ticks is not None:
            self._ticks.cancel()
            self._ticks = None
        self._lateness.pause()

    def _record_tick(self, when: float) -> None:
        self._lateness.record(when, self._clock.now())

    def _check_token(self, token: str) -> None:
        expected = self._config.token
        if expected is not None and not hmac.compare_digest(_bytes(token), _bytes(expected)):
            raise RefusedError(BAD_TOKEN)

    def check_place(self) -> None:
        """Raise `RefusedError`, and count it, if there is no place for another call."""
        if self.draining:
            raise RefusedError(RESTARTING)
        if self.loading:
            raise RefusedError(LOADING)
        if self.shared is None and self.sessions >= self._config.max_sessions:
            raise self._refuse_full()
        if self._is_late():
            self.refused += 1
            self.refused_late += 1
            log.warning(
                "a call was refused: ticks were %.0f ms late with %s",
                self.tick_delay_ms,
                _calls(self.sessions),
            )
            raise RefusedError(_OVERLOADED)

    def _is_late(self) -> bool:
        """Return whether another call would be refused because the ticks are late."""
        bound = self._config.max_tick_delay_ms
        return bool(self.sessions) and bound is not None and self.tick_delay_ms > bound

    async def _take_place(self) -> None:
        """Take one of the places, which all workers share; `_unfinished_call` gives it back.

        Raises:
            RefusedError: There is none.
        """
        try:
            self.check_place()
        except RefusedError as refused:
            if self.shared is None or refused.refusal is not _OVERLOADED:
                raise
            if await self.shared.is_elsewhere():
                raise RefusedError(_ELSEWHERE) from None
            raise
        if self.shared is not None and not await self.shared.admit():
            raise self._refuse_full()

    def _refuse_full(self) -> RefusedError:
        self.refused += 1
        limit = self._config.max_sessions
        people = "one person talks" if limit == 1 else f"{limit} people talk"
        message = f"All places are taken ({people} already): try again in a minute."
        return RefusedError(Refusal("full", 1013, message))

    async def _run_call(self, call: PageCall, socket: CallSocket) -> Refusal | None:
        """Run the call until it or its page ends; return the reason if there is one."""
        try:
            call.ice_servers = await self._config.ice_servers_for(call.request)
        except Exception as error:  # noqa: BLE001 - any error of the program's
            log_failure(log, "ice_servers", error)
            await socket.close(FAILED)
            return FAILED
        await self._send_config(call, socket, resumed=call.resumed)
        async with asyncio.TaskGroup() as tasks:
            carrying = tasks.create_task(call.carry(socket, offer_due=True), name="socket")
            leaving = tasks.create_task(call.over.wait(), name="leave")
            talking = tasks.create_task(self._run_handler(call), name="call")
            ending = tasks.create_task(call.end_requested.wait(), name="end")
            await asyncio.wait({leaving, talking, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not talking.done():
                await asyncio.wait({talking}, timeout=self._config.end_timeout_s)
            talking.cancel()
            await asyncio.wait({talking})
            refusal = call.refusal
            if call.end_requested.is_set():
                refusal = call.end_reason
            elif refusal is None and not talking.cancelled():
                refusal = talking.result()
            await call.close(refusal)
            for task in (carrying, leaving, ending):
                task.cancel()
        return refusal

    async def _run_handler(self, call: PageCall) -> Refusal | None:
        try:
            await self._handler(call)
        except RefusedError as refused:
            return refused.refusal
        except CallRefusedError as error:
            return Refusal("refused", 4403, shorten_reason(str(error)))
        except DuologueError as error:
            if not call.connected:
                return None
            log.warning("a call ended: %s", error)
            return Refusal(
                "failed", 1011, shorten_reason(f"The call ended: {str(error).rstrip('.')}.")
            )
        except Exception as error:  # noqa: BLE001 - any error of the program's
            log_failure(log, "a call", error)
            return FAILED
        return None


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


async def warn_of_end(call: AdmittedCall, seconds: float) -> None:
    """Tell the other side and the agent that the call is about to end."""
    await call.warn(seconds)
    if call.control is not None:
        try:
            await call.control.end_soon(seconds)
        except Exception as error:  # noqa: BLE001 - any error of the program's
            log_failure(log, "the notice of a call's end", error)


def _bytes(token: str) -> bytes:
    # JSON can contain a lone surrogate, which UTF-8 can't encode.
    return token.encode("utf-8", "surrogatepass")


async def _pass_on(socket: CallSocket, hello: Hello, channel: sockets.socket) -> None:
    """Pass messages on to the process that has the call.

    Raises:
        RefusedError: It refuses the page, or has ended.
    """
    refusal = await relay(socket, hello, channel)
    if refusal is not None:
        raise RefusedError(refusal)
    await socket.close()


async def _run_after_call(after: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(AFTER_CALL_S):
            await after
    except TimeoutError:
        log.error("the work after a call took over %g s and was cancelled", AFTER_CALL_S)


def shorten_reason(text: str) -> str:
    """Return the beginning of the text that fits into a close frame (RFC 6455: 123 bytes)."""
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= 123 else data[:120].decode(errors="ignore") + "…"
