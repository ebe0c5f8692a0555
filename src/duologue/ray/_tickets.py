"""Tickets of calls for all replicas: with one, a page takes its conversation up in any of them.

They are kept by one small actor, the desk, which outlives replicas and versions, and tells a
replica when another one takes a conversation of it up. If the desk's node dies, its tickets are
lost, unless the application has a store, which keeps them too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Protocol, cast

from duologue._optional import optional
from duologue.server.tickets import SharedTickets

with optional("ray"):
    import ray
    from ray.exceptions import RayError

log = logging.getLogger(__name__)

MAX_SESSIONS = 100_000
"""Most conversations whose tickets are kept; the oldest is forgotten."""

_POLL_S = 30.0
"""Seconds after which a replica asks again which conversations others have taken up."""

_RETRY_S = 1.0


@dataclass(slots=True)
class _Session:
    owner: str
    expires_at: float
    digests: list[str] = field(default_factory=list)


class TicketDesk:
    """Digests of tickets by conversation, and which replica has each.

    Args:
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def issued(self, owner: str, session_id: str, digest: str, keep_s: float) -> None:
        """Record a ticket; the one before it stays valid, because the page may not have it yet."""
        session = self._sessions.pop(session_id, None)
        earlier = [] if session is None or session.owner != owner else session.digests[-1:]
        self._sessions[session_id] = _Session(owner, self._clock() + keep_s, [*earlier, digest])
        if len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def claim(self, session_id: str, digest: str) -> str | None:
        """Return the owner, and forget the tickets, if the digest is that of one; else None."""
        session = self._sessions.get(session_id)
        if session is None or digest not in session.digests:
            return None
        del self._sessions[session_id]
        return session.owner if self._clock() < session.expires_at else None

    def ended(self, owner: str, session_id: str) -> None:
        """Forget the tickets of a conversation, unless another replica has taken it up."""
        session = self._sessions.get(session_id)
        if session is not None and session.owner == owner:
            del self._sessions[session_id]


class DeskActor:
    """The desk, as an actor that all replicas share."""

    def __init__(self) -> None:
        self._desk = TicketDesk()
        self._taken: dict[str, asyncio.Queue[str]] = {}

    async def issued(self, owner: str, session_id: str, digest: str, keep_s: float) -> None:
        """See `TicketDesk.issued`."""
        self._desk.issued(owner, session_id, digest, keep_s)

    async def claim(self, owner: str, session_id: str, digest: str) -> bool:
        """See `TicketDesk.claim`; tell the replica that has the conversation to end its part."""
        earlier = self._desk.claim(session_id, digest)
        if earlier is not None and earlier != owner and earlier in self._taken:
            self._taken[earlier].put_nowait(session_id)
        return earlier is not None

    async def ended(self, owner: str, session_id: str) -> None:
        """See `TicketDesk.ended`."""
        self._desk.ended(owner, session_id)

    async def taken(self, owner: str) -> str | None:
        """Wait for a conversation of a replica that another one takes up; None after a while."""
        queue = self._taken.setdefault(owner, asyncio.Queue())
        try:
            async with asyncio.timeout(_POLL_S):
                return await queue.get()
        except TimeoutError:
            return None


class _Remote(Protocol):
    def remote(self, *args: object) -> Awaitable[object]: ...


class _DeskHandle(Protocol):
    """The methods of a `DeskActor` in another process."""

    issued: _Remote
    claim: _Remote
    ended: _Remote
    taken: _Remote


class RayTickets:
    """The `duologue.server.tickets.SharedTickets` of one replica.

    Args:
        max_call_s: Seconds of the longest call, during which a ticket must stay valid, because a
            replica that dies can't say so.
        release: Ends this replica's part of a conversation that another one has taken up.
        store: Where tickets are kept too, which remembers them when the node of the desk has died.
    """

    def __init__(
        self,
        max_call_s: float,
        release: Callable[[str], None],
        store: SharedTickets | None = None,
    ) -> None:
        self._store = store
        self._max_call_s = max_call_s
        self._release = release
        self._owner = token_hex(8)  # a process that Serve starts again is another owner
        desk = ray.remote(DeskActor).options(
            name="tickets",
            namespace="duologue",
            get_if_exists=True,
            lifetime="detached",
            max_restarts=-1,
            max_concurrency=10_000,
            num_cpus=0,
        )
        self._desk = cast("_DeskHandle", desk.remote())

    async def issued(self, session_id: str, digest: str, keep_s: float) -> None:
        """Record a ticket, for the rest of the call and ``keep_s``."""
        keep_s += self._max_call_s
        try:
            # First the desk, because a store that does not answer may take all the time there is.
            await self._desk.issued.remote(self._owner, session_id, digest, keep_s)
        finally:
            if self._store is not None:
                await self._store.issued(session_id, digest, keep_s)

    async def claim(self, session_id: str, digest: str) -> bool:
        """Return True, once, if this is a valid ticket of the conversation."""
        try:
            if await self._desk.claim.remote(self._owner, session_id, digest):
                return True
        except RayError as error:
            log.warning("the desk of tickets does not answer: %s", error)
        return self._store is not None and await self._store.claim(session_id, digest)

    async def ended(self, session_id: str) -> None:
        """Forget the tickets of a conversation."""
        try:
            await self._desk.ended.remote(self._owner, session_id)
        finally:
            if self._store is not None:
                await self._store.ended(session_id)

    async def follow(self) -> None:
        """End the conversations that others take up, until cancelled."""
        while True:
            try:
                session_id = await self._desk.taken.remote(self._owner)
            except RayError as error:
                log.warning("the desk of tickets does not answer: %s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            if isinstance(session_id, str):
                self._release(session_id)
