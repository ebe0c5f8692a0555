"""What all simulated services share: their sessions, their faults, start and end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self

from duologue.clock import Clock, LoopClock
from duologue.errors import ConfigError
from duologue.simulators._backends import Backend
from duologue.simulators._bounded_log import BoundedLog
from duologue.simulators._channel import ChannelOwner, EventChannel
from duologue.simulators._expectations import Expectations
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators.faults import Fault

MAX_KEPT_SESSIONS = 64
"""Newest sessions that are kept for inspection."""
MAX_FAILURES = 1000
"""Newest failed expectations of scripts that are kept."""


class ServiceSession(ChannelOwner, Protocol):
    """What a service needs of its sessions."""

    def close(self) -> None:
        """End the session, because its channel has ended."""


class Service[S: ServiceSession](ABC):
    """A simulated service; use as ``async with``. A subclass defines the transport.

    Raises:
        ConfigError: It cannot listen on the address, or an option is wrong.
    """

    def __init__(
        self,
        backend: Backend,
        plan: FaultPlan,
        *,
        host: str,
        port: int,
        unknown_models: Sequence[str],
        clock_scale: float,
        seed: int,
        clock: Clock | None,
    ) -> None:
        if clock_scale <= 0:
            raise ConfigError(f"clock_scale must be a number above 0, not {clock_scale}")
        self._recent_sessions: BoundedLog[S] = BoundedLog(MAX_KEPT_SESSIONS)
        self._failures: BoundedLog[str] = BoundedLog(MAX_FAILURES)
        self.unknown_models = frozenset(unknown_models)
        self._clock: Clock = clock or LoopClock()
        self._backend = backend
        self._plan = plan
        self._host = host
        self._port = port
        self._seed = seed
        self._open: dict[EventChannel, S] = {}
        self._stack = AsyncExitStack()
        self._tasks: asyncio.TaskGroup | None = None

    @abstractmethod
    async def _listen(self, stack: AsyncExitStack) -> int:
        """Listen, and return the port. Push onto ``stack`` what stops it.

        Raises:
            OSError: The address cannot be used.
        """

    async def __aenter__(self) -> Self:
        if self._backend.prepare is not None:
            await self._backend.prepare()
        try:
            self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
            try:
                self._port = await self._listen(self._stack)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise ConfigError(
                    f"can't listen on {self._host} port {self._port}: {reason}"
                ) from error
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The task group must not see the exception of the block: it would wrap it in a group.
        await self._stack.aclose()

    @property
    def port(self) -> int:
        """The port on which the service listens."""
        return self._port

    @property
    def sessions(self) -> list[S]:
        """The newest `MAX_KEPT_SESSIONS` sessions, oldest first."""
        return self._recent_sessions.entries

    @property
    def sessions_dropped(self) -> int:
        """Number of older sessions that are no longer kept."""
        return self._recent_sessions.dropped

    @property
    def failures(self) -> list[str]:
        """Failed expectations of scripts, each with its place in the script."""
        return self._failures.entries

    @property
    def _url_host(self) -> str:
        """The host in the form that a URL takes."""
        return f"[{self._host}]" if ":" in self._host else self._host

    @property
    def faults(self) -> Sequence[Fault]:
        """What goes wrong. It can be set at any time, and names of presets are accepted."""
        return self._plan.faults

    @faults.setter
    def faults(self, faults: Sequence[Fault | str]) -> None:
        self._plan.set(faults)

    @property
    def fired_actions(self) -> Sequence[object]:
        """The newest actions of faults that have been carried out."""
        return self._plan.fired_actions

    async def kill(self, session: int = -1) -> bool:
        """Cut the connection of a session; return False if it is closed already. Never raises.

        On TCP that is a reset. A WebRTC connection loses its sockets, without any message.

        Args:
            session: Index into `sessions`.
        """
        selected = self.sessions[session : session + 1 or None]
        channels = [
            channel
            for channel, one in self._open.items()
            if one in selected and not channel.was_cut
        ]
        for channel in channels:
            channel.cut()
        await asyncio.sleep(0)
        return bool(channels)

    async def drop_all(self) -> None:
        """Cut every connection, as a power failure would. Never raises."""
        for channel in [*self._open]:
            channel.cut()
        await asyncio.sleep(0)

    def expectations(self) -> Expectations | None:
        """Return the expectations of the script for a new session."""
        expected = self._backend.script.expectations
        return Expectations(expected, self._failures.add, self._clock) if expected else None

    def attach(self, channel: EventChannel, session: S) -> None:
        """Connect a new session with its channel, and keep it for inspection."""
        channel.attach(session)
        self._recent_sessions.add(session)
        self._open[channel] = session

    def release(self, channel: EventChannel, session: S) -> None:
        """Disconnect a session that is over from its channel."""
        session.close()
        channel.detach()
        self._open.pop(channel, None)
