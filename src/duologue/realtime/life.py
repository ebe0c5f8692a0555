"""The life of a session: one connection after another, as one state machine (contracts C5, C8).

    idle -> connecting -> live <-> reconnecting
                          live <-> rolling over -> reconnecting
    every state -> closed

Only `Life.run` moves between connections. A lost one is followed by the next after a back-off; one
that is about to end is followed by the next before it is dropped, in a silence.
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

from duologue.clock import Clock
from duologue.realtime.codec import Connection, SessionSetup
from duologue.realtime.errors import ErrorKind, SessionError
from duologue.realtime.outputs import GoAway, Output, ProviderError, SessionStarted
from duologue.realtime.reconnect import STABLE_S, ReconnectPolicy
from duologue.realtime.sendable import SendableOutputs

log = logging.getLogger(__name__)

FORCED_S = 1.0
"""Before the end that a provider has announced, the change is made at the latest by this, in s."""
BEFORE_S = 5.0
"""And so long before that the next connection is begun though nobody is silent, in s; where less
than twice that is left, half of it before."""
SHORT_S = 3.0
"""With less than that left it is begun at the end: its history would be older than it is worth."""
SHORT_LIFE_S = 300.0
"""Seconds; no known service announces a shorter life of its connections."""
MIN_AGE_S = 5.0
"""Seconds after which a connection that announces a shorter life is replaced at the earliest. This
doubles each time, because the announcement may come from a wrong clock, until the service has ended
a connection at the age that it had announced."""
_NEVER = float("inf")


class State(Enum):
    """Where a session stands."""

    IDLE = "idle"
    CONNECTING = "connecting"
    LIVE = "live"
    RECONNECTING = "reconnecting"
    ROLLING_OVER = "rolling over"
    CLOSED = "closed"


_MOVES: dict[State, frozenset[State]] = {
    State.IDLE: frozenset((State.CONNECTING, State.CLOSED)),
    State.CONNECTING: frozenset((State.LIVE, State.CLOSED)),
    State.LIVE: frozenset((State.RECONNECTING, State.ROLLING_OVER, State.CLOSED)),
    State.RECONNECTING: frozenset((State.LIVE, State.CLOSED)),
    State.ROLLING_OVER: frozenset((State.LIVE, State.RECONNECTING, State.CLOSED)),
    State.CLOSED: frozenset(),
}


@dataclass(slots=True, eq=False)
class Link:
    """One connection, what it began with, and how it ended."""

    connection: Connection
    setup: SessionSetup
    task: asyncio.Task[None] | None = None
    started: SessionStarted | None = None
    since: float = 0.0
    """When it became live, in clock seconds."""
    base: int = 0
    """Position of the first sample of the person that it was sent."""
    over: bool = False
    late: bool = False
    """It did not become live in time, and was closed for that."""
    failure: BaseException | None = None
    """What ended it; None for a clean end."""
    texts: SendableOutputs = field(default_factory=SendableOutputs)

    def has_begun(self) -> bool:
        """It was live, and perhaps still is."""
        return self.started is not None


@dataclass(slots=True)
class _Due:
    """A change to the next connection: from ``begin`` on in a silence, at ``end`` in any case."""

    reason: str
    begin: float
    end: float


class Owner(Protocol):
    """The session, as its life sees it. Every call is synchronous."""

    @property
    def quiet(self) -> bool:
        """Nobody speaks or is about to: a good moment to change connections."""
        ...

    def setup(self) -> SessionSetup:
        """What the next connection begins with."""
        ...

    def open(self, setup: SessionSetup) -> Connection:
        """Make the next connection."""
        ...

    def receive(self, output: Output) -> None:
        """Take an output of the current connection."""

    def reconnecting(self, reason: str, attempt: int) -> None:
        """The next connection is about to be made."""

    def went_live(self, link: Link, before: Link | None) -> None:
        """``link`` is the current connection from now on; ``before`` was."""

    def lost(self) -> None:
        """The current connection is gone, and there is no next one yet."""


class Life:
    """Runs the connections of one session, and knows the current one.

    Without ``renews`` there is only one, and its end is the session's. ``alone``: the next one
    can't be made while there is one. ``unused`` counts outputs of connections that were not
    current. Cancelling `run` closes all.
    """

    def __init__(
        self,
        owner: Owner,
        policy: ReconnectPolicy,
        clock: Clock,
        *,
        renews: bool = True,
        alone: Callable[[], bool] = lambda: False,
        dice: random.Random | None = None,
    ) -> None:
        self._owner = owner
        self._policy = policy
        self._clock = clock
        self.renews = renews
        self._alone = alone
        self._dice = dice or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._tasks: asyncio.TaskGroup | None = None
        self._wake = asyncio.Event()
        self._due: _Due | None = None
        self._next: Link | None = None
        self._short_lives = 0
        self._short_is_true = False
        self.state = State.IDLE
        self.link: Link | None = None
        """The current connection; None while there is none."""
        self.unused = 0

    @property
    def live(self) -> bool:
        """There is a current connection."""
        return self.link is not None

    @property
    def watching(self) -> bool:
        """It waits for a silence; `poke` it when there may be one."""
        return self._due is not None

    async def run(self) -> None:
        """Live till a connection ends cleanly; raises what ended the session otherwise.

        `SessionError` when the first connection can't be made, when a lost one has no next one
        within the policy's attempts, and when an error is fatal.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    self._move(State.CONNECTING)
                    link: Link | None = await self._establish(None, 0)
                    while link is not None:
                        link = await self._follow(link)
                finally:
                    self._close()
        except BaseExceptionGroup as group:
            # Our own tasks raise nothing: it is what was raised inside the block.
            raise group.exceptions[0] from None

    def poke(self) -> None:
        """Something has changed: look again."""
        self._wake.set()

    def roll_over(self, reason: str, within_s: float | None = None) -> None:
        """Change to the next connection in the next silence, or after ``within_s`` without one."""
        now = self._clock.now()
        end = _NEVER if within_s is None else now + within_s
        due = self._due
        if due is not None:
            end = min(end, due.end)
        if due is not None and self.state is State.ROLLING_OVER:
            due.end = end
        else:
            self._due = _Due(reason, now, end)
        self._wake.set()

    def fail(self, error: SessionError) -> None:
        """Drop the current connection because of ``error``."""
        link = self.link
        if link is not None and not link.over and link.task is not None:
            link.failure = error
            link.task.cancel()

    def _move(self, state: State) -> None:
        if state not in _MOVES[self.state]:
            raise RuntimeError(f"a session that is {self.state.value} can't be {state.value}")
        log.debug("connections: from %s to %s", self.state.value, state.value)
        self.state = state

    def _close(self) -> None:
        self.state = State.CLOSED
        for link in (self.link, self._next):
            if link is not None and link.task is not None:
                link.task.cancel()
        self.link = self._next = None

    # One connection

    def _begin(self) -> Link:
        setup = self._owner.setup()
        link = Link(self._owner.open(setup), setup)
        assert self._tasks is not None  # noqa: S101 - run has set it
        link.task = self._tasks.create_task(self._run(link), name="connection")
        return link

    async def _run(self, link: Link) -> None:
        try:
            await link.connection.run(partial(self._receive, link))
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            link.failure = error
        except BaseException as error:  # noqa: BLE001 - raised by run
            link.failure = error
        finally:
            link.over = True
            self._wake.set()

    def _receive(self, link: Link, output: Output) -> None:
        if isinstance(output, SessionStarted) and link.started is None:
            link.started = output
            link.since = self._clock.now()
            if link is self._next and self.state in (State.CONNECTING, State.RECONNECTING):
                self._go_live(link)
            self._wake.set()
        elif link is self.link:
            if isinstance(output, GoAway) and self.renews:
                within = max(0.0, output.time_left - FORCED_S)
                self.roll_over("the model ends this connection", within)
            for clean in link.texts.take(output):
                self._owner.receive(clean)
        else:
            ends = ErrorKind.FATAL, ErrorKind.RECYCLE
            if isinstance(output, ProviderError) and output.kind in ends:
                raise SessionError(output.message, code=output.code, kind=output.kind)
            self.unused += 1

    def _go_live(self, link: Link) -> None:
        before, self.link, self._next = self.link, link, None
        age = None
        if link.started is not None and self.renews:
            age = self._policy.roll_over_at(link.started.expires_in)
        self._due = None
        if age is not None:
            least = self._least_age(link)
            begin, end = (link.since + max(least, one) for one in age)
            self._due = _Due("the connection is old", begin, end)
        self._move(State.LIVE)
        self._owner.went_live(link, before)

    def _least_age(self, link: Link) -> float:
        """Return the least age at which to replace a connection; see `MIN_AGE_S`."""
        announced = None if link.started is None else link.started.expires_in
        if announced is None or announced >= SHORT_LIFE_S or self._short_is_true:
            return 0.0
        self._short_lives += 1
        return min(MIN_AGE_S * 2.0 ** (self._short_lives - 1), SHORT_LIFE_S)

    def _learn(self, link: Link, lived: float) -> None:
        """Record whether the far side ended a connection at the age that it had announced."""
        announced = None if link.started is None else link.started.expires_in
        if announced is not None and announced * 0.8 <= lived <= announced * 1.2:
            self._short_is_true = announced < SHORT_LIFE_S

    async def _drop(self, link: Link) -> None:
        """End a connection; its own close is bounded."""
        if link.task is not None:
            link.task.cancel()
            await asyncio.wait([link.task])

    async def _wait(self, done: Callable[[], bool], until: Callable[[], float]) -> None:
        """Wait for a condition that is looked at whenever something changes, or for a time."""
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

    async def _pause(self, link: Link, seconds: float) -> None:
        """Wait for so long, or till the connection is over."""
        until = self._clock.now() + seconds
        await self._wait(lambda: link.over, lambda: until)

    # From one connection to the next

    async def _establish(self, failure: SessionError | None, attempt: int) -> Link:
        """Make connections till one is live; ``failure`` is what the last one was lost by."""
        first = failure is None
        limit = self._policy.first_attempts if first else self._policy.max_attempts
        while True:
            attempt += 1
            if failure is not None:
                if failure.kind is ErrorKind.FATAL or attempt > limit:
                    raise failure
                if not first:
                    self._owner.reconnecting(str(failure), attempt)
                await self._clock.sleep(self._policy.wait_s(attempt, self._dice))
            link = await self._try(lambda: False)
            if link.has_begun():
                return link
            failure = _failure(link, self._policy.connect_timeout_s)

    async def _try(self, given_up: Callable[[], bool]) -> Link:
        """Make one connection, and wait till it is live, has ended, took too long or is not wanted.

        One that is not live by then is closed.
        """
        link = self._next = self._begin()
        late = self._clock.now() + self._policy.connect_timeout_s
        await self._wait(lambda: link.has_begun() or link.over or given_up(), lambda: late)
        if not link.has_begun():
            self._next = None
            link.late = not link.over
            await self._drop(link)
        return link

    async def _follow(self, link: Link) -> Link | None:
        """Be there while ``link`` is the current one; returns the next, None after a clean end."""
        while True:
            due = self._due
            await self._until_due(link, due)
            if link.over:
                return await self._after(link)
            if due is not None and due is self._due:
                self._move(State.ROLLING_OVER)
                self._owner.reconnecting(due.reason, 0)
                following = await self._roll_over(link, due)
                if following is not link:
                    return following
                self._move(State.LIVE)

    async def _until_due(self, link: Link, due: _Due | None) -> None:
        begin = _NEVER if due is None else due.begin
        await self._wait(lambda: link.over or self._due is not due, lambda: begin)

    async def _after(self, link: Link) -> Link | None:
        """The current connection has ended."""
        failure = link.failure
        if failure is None:
            return None
        if not isinstance(failure, SessionError) or failure.kind is ErrorKind.FATAL:
            raise failure
        lived = self._clock.now() - link.since
        self._learn(link, lived)
        attempts = 0 if lived >= STABLE_S else self._early
        self.link = None
        self._due = None
        self._move(State.RECONNECTING)
        self._owner.lost()
        self._early = attempts + 1
        return await self._establish(failure, attempts)

    _early = 0
    """Connections in a row that were lost soon after they had been made."""

    async def _roll_over(self, link: Link, due: _Due) -> Link | None:
        """Make the next connection, then change to it; ``link`` itself when it has to stay."""
        attempt = 0
        while attempt < max(1, self._policy.max_attempts):
            attempt += 1
            now = self._clock.now()
            # It takes some time to be there, which it may while the old one still talks.
            until = partial(_latest, due, now, alone=self._alone())
            await self._wait(lambda: link.over or self._owner.quiet, until)
            if not link.over and self._alone():
                return await self._replace(link, due)
            if not link.over:
                following = await self._try(lambda: link.over)
                if following.has_begun() and await self._moment(link, following, due):
                    self._go_live(following)
                    await self._drop(link)
                    return following
                self._next = None
                await self._drop(following)
            if link.over:
                return await self._after(link)
            await self._pause(link, self._policy.wait_s(attempt, self._dice))
        self._due = None  # It ends when it ends; then there are attempts anew.
        return link

    async def _replace(self, link: Link, due: _Due) -> Link:
        """Drop a connection, and only then make the next: what is said meanwhile is kept."""
        self.link = self._due = None
        self._move(State.RECONNECTING)
        self._owner.lost()
        await self._drop(link)
        return await self._establish(SessionError(due.reason, kind=ErrorKind.RECYCLE), 0)

    async def _moment(self, link: Link, following: Link, due: _Due) -> bool:
        """Wait for a silence in which to change; False if one of the two has ended before."""
        await self._wait(lambda: link.over or following.over or self._owner.quiet, lambda: due.end)
        return not (link.over or following.over)


def _latest(due: _Due, now: float, *, alone: bool) -> float:
    """When the next connection is begun, seen from ``now``, if it is not quiet before."""
    left = due.end - now
    if alone or due.end == _NEVER or left < SHORT_S:
        return due.end
    return due.end - min(BEFORE_S, left / 2)


def _failure(link: Link, timeout_s: float) -> SessionError:
    """What kept a connection from becoming live; raises what is nobody's `SessionError`."""
    match link.failure:
        case SessionError() as failure:
            return failure
        case None if not link.late:
            message = "the model ended the session before it began"
        case None:
            message = f"the model did not begin the session within {timeout_s:g} s"
        case failure:
            raise failure
    return SessionError(message, kind=ErrorKind.RECYCLE)
