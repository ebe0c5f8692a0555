"""Keep one session connected, by one physical connection after another (contracts C5, C8).

    idle --> connecting --> live <------> reconnecting
                             ^ |               ^
                             | v               |
                         rolling over ---------+          every state --> closed

A connection lives for minutes, a conversation longer. One task (`ConnectionSupervisor.run`) makes
every move from one connection to the next, so two reasons never start two of them. There are three
ways:

    loss         The connection failed. Until the next one is live there is none: input audio is
                 kept, attempts follow each other with a growing wait, and a fatal error or too many
                 attempts end the session.
    rollover     The connection will end soon (its age, a `GoAway`), has gone silent, or the program
                 requested it. The next one connects while the old one still works, and takes over
                 when neither side speaks, or at ``end`` in any case:

                     begin                                                  end
                 old ==|=====================================|               |
                 next  |       connects ---> ready, waits ...|=== live =====>|
                                                             first silence

    replacement  A rollover for a provider that takes no second connection of a session: the old one
                 is closed first, and input audio is kept meanwhile as after a loss.

Outputs of a connection that is not the current one never reach the session (`unused_outputs` counts
them), so a reply can't come twice. While there is no current connection, the next one becomes
current inside its own `SessionStarted`, so nothing that follows it is missed. Ages that providers
announce are differences of two clocks, and believed only within limits: see `MIN_AGE_S`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Protocol

from duologue.audio import AudioFrame
from duologue.clock import Clock
from duologue.errors import ErrorKind, SessionError
from duologue.realtime._session.surrogates import SurrogateFilter
from duologue.realtime.codec import AudioConnection, Connection, SessionSetup
from duologue.realtime.commands import SendAudio
from duologue.realtime.outputs import GoAway, Output, ProviderError, ReplyAudio, SessionStarted
from duologue.realtime.reconnect import STABLE_S, ReconnectPolicy
from duologue.realtime.stats import ConnectionStats, MeasuredConnection

log = logging.getLogger(__name__)

FORCED_SWITCH_MARGIN_S = 1.0
"""Seconds between the latest switch to the next connection and the end that a provider has
announced.
"""
CONNECT_AHEAD_S = 5.0
"""Start connecting this many seconds before the forced switch, even while someone speaks; if less
than twice that remains, halfway through it.
"""
MIN_CONNECT_AHEAD_S = 3.0
"""With less than this many seconds left, connect at the end itself: earlier, the next connection
would begin with an older history and gain nothing.
"""
SHORT_LIFETIME_S = 300.0
"""Seconds; no known service announces a shorter lifetime of its connections."""
MIN_AGE_S = 5.0
"""Never replace a connection that announces a short lifetime before it is this many seconds old.
This doubles each time, because the announcement may come from a wrong clock, until the service has
ended a connection at the age that it had announced.
"""
_NEVER = float("inf")


class SessionState(Enum):
    """What the session's connections are doing."""

    IDLE = "idle"
    CONNECTING = "connecting"
    LIVE = "live"
    RECONNECTING = "reconnecting"
    ROLLING_OVER = "rolling over"
    CLOSED = "closed"


_TRANSITIONS: dict[SessionState, frozenset[SessionState]] = {
    SessionState.IDLE: frozenset((SessionState.CONNECTING, SessionState.CLOSED)),
    SessionState.CONNECTING: frozenset((SessionState.LIVE, SessionState.CLOSED)),
    SessionState.LIVE: frozenset(
        (SessionState.RECONNECTING, SessionState.ROLLING_OVER, SessionState.CLOSED)
    ),
    SessionState.RECONNECTING: frozenset((SessionState.LIVE, SessionState.CLOSED)),
    SessionState.ROLLING_OVER: frozenset(
        (SessionState.LIVE, SessionState.RECONNECTING, SessionState.CLOSED)
    ),
    SessionState.CLOSED: frozenset(),
}


@dataclass(slots=True, eq=False)
class ActiveConnection:
    """One connection, what it began with, and how it ended."""

    connection: Connection
    setup: SessionSetup
    task: asyncio.Task[None] | None = None
    started: SessionStarted | None = None
    live_since: float = 0.0
    """When it sent `SessionStarted`, in clock seconds."""
    is_over: bool = False
    timed_out: bool = False
    """Whether it was closed because it did not become live in time."""
    failure: BaseException | None = None
    """What ended it; None for a clean end."""
    surrogate_filter: SurrogateFilter = field(default_factory=SurrogateFilter)
    send_audio: Callable[[AudioFrame], None] = field(init=False)
    """Sends audio, by the connection's shorter way if it has one."""

    def __post_init__(self) -> None:
        connection = self.connection
        if isinstance(connection, AudioConnection):
            self.send_audio = connection.send_audio
        else:
            self.send_audio = lambda frame: connection.transmit(SendAudio(frame))

    def has_started(self) -> bool:
        """Return whether it ever became live."""
        return self.started is not None


@dataclass(slots=True)
class _PendingRollover:
    """A planned switch to the next connection.

    From ``begin`` on in the first silence, at ``end`` in any case (clock seconds).
    """

    reason: str
    begin: float
    end: float


class SupervisorDelegate(Protocol):
    """The session, as its supervisor sees it. Every call is synchronous."""

    @property
    def quiet(self) -> bool:
        """Whether neither side speaks or is about to, so a switch goes unnoticed."""
        ...

    def make_setup(self) -> SessionSetup:
        """Return what the next connection begins with."""
        ...

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        ...

    def receive(self, output: Output) -> None:
        """Handle an output of the current connection."""

    def reconnecting(self, reason: str, attempt: int) -> None:
        """Report that the next connection is about to be made."""

    def connection_established(
        self, connection: ActiveConnection, before: ActiveConnection | None
    ) -> None:
        """Continue the session on ``connection``, which has replaced ``before``."""

    def connection_lost(self) -> None:
        """Keep what was in flight, because there is no connection now."""


class ConnectionSupervisor:
    """Runs the connections of one session, and knows the current one.

    Cancelling `run` closes all of them.

    Args:
        delegate: the session.
        policy: when and how often to connect.
        clock: measures ages and waits.
        reconnects: False if there is only one connection, whose end is the end of the session.
        single_connection: returns whether the next connection can't be made while there is one.
        rng: spreads the waits between attempts.
    """

    def __init__(
        self,
        delegate: SupervisorDelegate,
        policy: ReconnectPolicy,
        clock: Clock,
        *,
        reconnects: bool = True,
        single_connection: Callable[[], bool] = lambda: False,
        rng: random.Random | None = None,
    ) -> None:
        self._delegate = delegate
        self._policy = policy
        self._clock = clock
        self.reconnects = reconnects
        self._single_connection = single_connection
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._tasks: asyncio.TaskGroup | None = None
        self._wake = asyncio.Event()
        self._pending_rollover: _PendingRollover | None = None
        self._next_connection: ActiveConnection | None = None
        self._short_announcements = 0
        self._short_confirmed = False
        self.state = SessionState.IDLE
        self.current: ActiveConnection | None = None
        """The current connection; None while there is none."""
        self.cancelled: Callable[[], None] = lambda: None
        """Called when `run` is cancelled, before it closes the connections."""
        self.unused_outputs = 0
        self.established = 0
        """Connections that became current."""
        self._ended_stats = ConnectionStats()

    def stats(self) -> ConnectionStats:
        """Return the counters of all connections, added up."""
        stats = self._ended_stats
        for connection in (self.current, self._next_connection):
            if connection is not None and not connection.is_over:
                stats += _stats_of(connection)
        return stats

    @property
    def live(self) -> bool:
        """Whether there is a current connection."""
        return self.current is not None

    @property
    def awaits_silence(self) -> bool:
        """Whether a switch waits for a silence; call `recheck` when there may be one."""
        return self._pending_rollover is not None

    async def run(self) -> None:
        """Run until a connection ends cleanly.

        Raises:
            SessionError: the first connection can't be made, a lost one has no successor within the
                policy's attempts, or an error is fatal.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    self._transition(SessionState.CONNECTING)
                    connection: ActiveConnection | None = await self._establish(None, 0)
                    while connection is not None:
                        connection = await self._supervise(connection)
                except asyncio.CancelledError:
                    self.cancelled()
                    raise
                finally:
                    self._close()
        except BaseExceptionGroup as group:
            # Our own tasks raise nothing, so this was raised inside the block.
            raise group.exceptions[0] from None

    def recheck(self) -> None:
        """Check the awaited conditions again, because something has changed."""
        self._wake.set()

    def roll_over(self, reason: str, within_s: float | None = None) -> None:
        """Switch to a new connection in the next silence, at the latest after ``within_s``."""
        now = self._clock.now()
        end = _NEVER if within_s is None else now + within_s
        rollover = self._pending_rollover
        if rollover is not None:
            end = min(end, rollover.end)
        if rollover is not None and self.state is SessionState.ROLLING_OVER:
            rollover.end = end
        else:
            self._pending_rollover = _PendingRollover(reason, now, end)
        self._wake.set()

    def fail(self, error: SessionError) -> None:
        """Drop the current connection because of ``error``."""
        connection = self.current
        if connection is not None and not connection.is_over and connection.task is not None:
            connection.failure = error
            connection.task.cancel()

    def _transition(self, state: SessionState) -> None:
        if state not in _TRANSITIONS[self.state]:
            raise RuntimeError(f"a session that is {self.state.value} can't be {state.value}")
        log.debug("connections: from %s to %s", self.state.value, state.value)
        self.state = state

    def _close(self) -> None:
        self.state = SessionState.CLOSED
        for connection in (self.current, self._next_connection):
            if connection is not None and connection.task is not None:
                connection.task.cancel()
        self.current = self._next_connection = None

    # One connection

    def _open_connection(self) -> ActiveConnection:
        setup = self._delegate.make_setup()
        connection = ActiveConnection(self._delegate.open(setup), setup)
        assert self._tasks is not None  # noqa: S101 - run has set it
        connection.task = self._tasks.create_task(
            self._run_connection(connection), name="connection"
        )
        return connection

    async def _run_connection(self, connection: ActiveConnection) -> None:
        try:
            await connection.connection.run(self._receiver(connection))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            connection.failure = error
        except BaseException as error:  # noqa: BLE001 - raised by run
            connection.failure = error
        finally:
            connection.is_over = True
            self._ended_stats += _stats_of(connection)
            self._wake.set()

    def _receiver(self, connection: ActiveConnection) -> Callable[[Output], None]:
        """Return the function that gets the outputs of a connection."""
        deliver = self._delegate.receive

        def receive(output: Output) -> None:
            if type(output) is ReplyAudio and connection is self.current:
                deliver(output)  # Audio first, because it is nearly all there is.
            else:
                self._receive(connection, output)

        return receive

    def _receive(self, connection: ActiveConnection, output: Output) -> None:
        if isinstance(output, SessionStarted) and connection.started is None:
            connection.started = output
            connection.live_since = self._clock.now()
            if connection is self._next_connection and self.state in (
                SessionState.CONNECTING,
                SessionState.RECONNECTING,
            ):
                self._switch_to(connection)
            self._wake.set()
        elif connection is self.current:
            if isinstance(output, GoAway) and self.reconnects:
                within = max(0.0, output.time_left - FORCED_SWITCH_MARGIN_S)
                self.roll_over("the model ends this connection", within)
            for clean in connection.surrogate_filter.clean(output):
                self._delegate.receive(clean)
        else:
            ends = ErrorKind.FATAL, ErrorKind.RECYCLE
            if isinstance(output, ProviderError) and output.kind in ends:
                raise SessionError(output.message, code=output.code, kind=output.kind)
            self.unused_outputs += 1

    def _switch_to(self, connection: ActiveConnection) -> None:
        before, self.current, self._next_connection = self.current, connection, None
        self.established += 1
        age = None
        if connection.started is not None and self.reconnects:
            age = self._policy.roll_over_at(connection.started.expires_in)
        self._pending_rollover = None
        if age is not None:
            min_age = self._min_age(connection)
            begin, end = (connection.live_since + max(min_age, limit) for limit in age)
            self._pending_rollover = _PendingRollover("the connection is old", begin, end)
        self._transition(SessionState.LIVE)
        self._delegate.connection_established(connection, before)

    def _min_age(self, connection: ActiveConnection) -> float:
        """Return the least age at which to replace a connection; see `MIN_AGE_S`."""
        announced = None if connection.started is None else connection.started.expires_in
        if announced is None or announced >= SHORT_LIFETIME_S or self._short_confirmed:
            return 0.0
        self._short_announcements += 1
        return min(MIN_AGE_S * 2.0 ** (self._short_announcements - 1), SHORT_LIFETIME_S)

    def _learn_lifetime(self, connection: ActiveConnection, lived: float) -> None:
        """Record whether the service ended a connection at the age that it had announced."""
        announced = None if connection.started is None else connection.started.expires_in
        if announced is not None and announced * 0.8 <= lived <= announced * 1.2:
            self._short_confirmed = announced < SHORT_LIFETIME_S

    async def _close_connection(self, connection: ActiveConnection) -> None:
        """Close a connection and wait for its end, which is bounded."""
        if connection.task is not None:
            connection.task.cancel()
            await asyncio.wait([connection.task])

    async def _wait_until(self, done: Callable[[], bool], until: Callable[[], float]) -> None:
        """Wait until a condition holds or a time is reached; check both at every change."""
        while not done() and self._clock.now() < until():
            self._wake.clear()
            timer = None
            if until() != _NEVER:
                timer = self._clock.call_at(until(), self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _wait_while_live(self, connection: ActiveConnection, seconds: float) -> None:
        """Wait this many seconds, or until the connection is over."""
        until = self._clock.now() + seconds
        await self._wait_until(lambda: connection.is_over, lambda: until)

    # From one connection to the next

    async def _establish(self, failure: SessionError | None, attempt: int) -> ActiveConnection:
        """Try to connect until a connection is live; ``failure`` is why the last one was lost."""
        first = failure is None
        limit = self._policy.first_attempts if first else self._policy.max_attempts
        while True:
            attempt += 1
            if failure is not None:
                if failure.kind is ErrorKind.FATAL or attempt > limit:
                    raise failure
                if not first:
                    self._delegate.reconnecting(str(failure), attempt)
                await self._clock.sleep(self._policy.wait_s(attempt, self._rng))
            connection = await self._try_connect(lambda: False)
            if connection.has_started():
                return connection
            failure = _connect_failure(connection, self._policy.connect_timeout_s)

    async def _try_connect(self, given_up: Callable[[], bool]) -> ActiveConnection:
        """Make one connection, and wait until it is live, over, late, or not needed.

        Close it unless it is live by then.
        """
        connection = self._next_connection = self._open_connection()
        deadline = self._clock.now() + self._policy.connect_timeout_s
        await self._wait_until(
            lambda: connection.has_started() or connection.is_over or given_up(), lambda: deadline
        )
        if not connection.has_started():
            self._next_connection = None
            connection.timed_out = not connection.is_over
            await self._close_connection(connection)
        return connection

    async def _supervise(self, connection: ActiveConnection) -> ActiveConnection | None:
        """Watch the current connection; return the next one, or None after a clean end."""
        while True:
            rollover = self._pending_rollover
            await self._wait_for_rollover(connection, rollover)
            if connection.is_over:
                return await self._handle_end(connection)
            if rollover is not None and rollover is self._pending_rollover:
                self._transition(SessionState.ROLLING_OVER)
                self._delegate.reconnecting(rollover.reason, 0)
                successor = await self._roll_over(connection, rollover)
                if successor is not connection:
                    return successor
                self._transition(SessionState.LIVE)

    async def _wait_for_rollover(
        self, connection: ActiveConnection, rollover: _PendingRollover | None
    ) -> None:
        begin = _NEVER if rollover is None else rollover.begin
        await self._wait_until(
            lambda: connection.is_over or self._pending_rollover is not rollover, lambda: begin
        )

    async def _handle_end(self, connection: ActiveConnection) -> ActiveConnection | None:
        """Return what follows the end of the current connection."""
        failure = connection.failure
        if failure is None:
            return None
        if not isinstance(failure, SessionError) or failure.kind is ErrorKind.FATAL:
            raise failure
        if not self.reconnects:
            raise failure
        lived = self._clock.now() - connection.live_since
        self._learn_lifetime(connection, lived)
        attempts = 0 if lived >= STABLE_S else self._early_losses
        self.current = None
        self._pending_rollover = None
        self._transition(SessionState.RECONNECTING)
        self._delegate.connection_lost()
        self._early_losses = attempts + 1
        return await self._establish(failure, attempts)

    _early_losses = 0
    """Connections in a row that were lost soon after they had become live."""

    async def _roll_over(
        self, connection: ActiveConnection, rollover: _PendingRollover
    ) -> ActiveConnection | None:
        """Make the next connection and switch to it; return ``connection`` if it has to stay."""
        attempt = 0
        while attempt < max(1, self._policy.max_attempts):
            attempt += 1
            now = self._clock.now()
            # Connecting takes time, which may pass while the old connection is still speaking.
            until = partial(_connect_deadline, rollover, now, single=self._single_connection())
            await self._wait_until(lambda: connection.is_over or self._delegate.quiet, until)
            if not connection.is_over and self._single_connection():
                return await self._replace(connection, rollover)
            if not connection.is_over:
                successor = await self._try_connect(lambda: connection.is_over)
                if successor.has_started() and await self._wait_for_silence(
                    connection, successor, rollover
                ):
                    self._switch_to(successor)
                    await self._close_connection(connection)
                    return successor
                self._next_connection = None
                await self._close_connection(successor)
            if connection.is_over:
                return await self._handle_end(connection)
            await self._wait_while_live(connection, self._policy.wait_s(attempt, self._rng))
        self._pending_rollover = None  # It ends by itself; then attempts start from 1.
        return connection

    async def _replace(
        self, connection: ActiveConnection, rollover: _PendingRollover
    ) -> ActiveConnection:
        """Close a connection, then make the next one; audio that arrives meanwhile is kept."""
        self.current = self._pending_rollover = None
        self._transition(SessionState.RECONNECTING)
        self._delegate.connection_lost()
        await self._close_connection(connection)
        return await self._establish(SessionError(rollover.reason, kind=ErrorKind.RECYCLE), 0)

    async def _wait_for_silence(
        self, connection: ActiveConnection, successor: ActiveConnection, rollover: _PendingRollover
    ) -> bool:
        """Wait for a silence to switch in; return False if one of the two ends before."""
        await self._wait_until(
            lambda: connection.is_over or successor.is_over or self._delegate.quiet,
            lambda: rollover.end,
        )
        return not (connection.is_over or successor.is_over)


def _connect_deadline(rollover: _PendingRollover, now: float, *, single: bool) -> float:
    """Return the latest time at which to start connecting, if no silence comes before."""
    left = rollover.end - now
    if single or rollover.end == _NEVER or left < MIN_CONNECT_AHEAD_S:
        return rollover.end
    return rollover.end - min(CONNECT_AHEAD_S, left / 2)


def _connect_failure(connection: ActiveConnection, timeout_s: float) -> SessionError:
    """Return why the connection never went live. Re-raise anything that is not a `SessionError`."""
    match connection.failure:
        case SessionError() as failure:
            return failure
        case None if not connection.timed_out:
            message = "the model ended the session before it began"
        case None:
            message = f"the model did not begin the session within {timeout_s:g} s"
        case failure:
            raise failure
    return SessionError(message, kind=ErrorKind.RECYCLE)


def _stats_of(active: ActiveConnection) -> ConnectionStats:
    connection = active.connection
    return connection.stats() if isinstance(connection, MeasuredConnection) else ConnectionStats()
