"""What all simulated services share: their sessions, their faults, a beginning and an end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self

from duologue.clock import Clock, LoopClock
from duologue.realtime.errors import ConfigError
from duologue.simulator.brains import Brain
from duologue.simulator.expectations import Expectations
from duologue.simulator.faults import Error, Fault, FaultPlan
from duologue.simulator.kept import Kept
from duologue.simulator.line import EventLine

MOST_KEPT = 64
"""Sessions that are kept to be looked at; the oldest go."""
MAX_NOTES = 1000
"""Newest failures of scripts that are kept."""


class KeptSession(Protocol):
    """What a service needs of its sessions."""

    taken: Callable[[str], None]

    def complain(self, error: Error) -> None:
        """Tell the client an error that nobody made."""

    def close(self) -> None:
        """The line is gone."""


class Service[S: KeptSession](ABC):
    """A simulated service; use as ``async with``. Its subclass says how it listens.

    Raises `ConfigError` when it can't listen.
    """

    def __init__(
        self,
        brain: Brain,
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
            raise ConfigError(f"clock_scale takes a number above 0, not {clock_scale}")
        self._kept: Kept[S] = Kept(MOST_KEPT)
        self._failures: Kept[str] = Kept(MAX_NOTES)
        self.unknown_models = frozenset(unknown_models)
        self._clock: Clock = clock or LoopClock()
        self._brain = brain
        self._plan = plan
        self._host = host
        self._port = port
        self._seed = seed
        self._open: dict[EventLine, S] = {}
        self._stack = AsyncExitStack()
        self._tasks: asyncio.TaskGroup | None = None

    @abstractmethod
    async def _listen(self, stack: AsyncExitStack) -> int:
        """Begin to listen, and leave on ``stack`` how that ends; the port. Raises ``OSError``."""

    async def __aenter__(self) -> Self:
        if self._brain.prepare is not None:
            await self._brain.prepare()
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
        # The group is not told what happened inside: it would wrap it.
        await self._stack.aclose()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def sessions(self) -> list[S]:
        """The newest `MOST_KEPT` sessions, oldest first."""
        return self._kept.entries

    @property
    def sessions_dropped(self) -> int:
        """Number of older sessions, which are not kept any more."""
        return self._kept.dropped

    @property
    def failures(self) -> list[str]:
        """Failed expectations of scripts, each with its place in the script."""
        return self._failures.entries

    @property
    def _named(self) -> str:
        """The host as an address has it."""
        return f"[{self._host}]" if ":" in self._host else self._host

    @property
    def faults(self) -> Sequence[Fault]:
        """What goes wrong; may be set at any time, also by names."""
        return self._plan.faults

    @faults.setter
    def faults(self, faults: Sequence[Fault | str]) -> None:
        self._plan.set(faults)

    @property
    def fired(self) -> Sequence[object]:
        """The newest actions of faults that have happened."""
        return self._plan.fired

    async def kill(self, session: int = -1) -> bool:
        """Cut a session's connection, with all that is on it; return False if it has none any more.

        That is a TCP reset, or WebRTC's sockets without a farewell. It never raises.
        """
        wanted = self.sessions[session : session + 1 or None]
        lines = [line for line, one in self._open.items() if one in wanted and not line.broken]
        for line in lines:
            line.cut()
        await asyncio.sleep(0)
        return bool(lines)

    async def drop_all(self) -> None:
        """Cut every connection, as a power failure would. It never raises."""
        for line in [*self._open]:
            line.cut()
        await asyncio.sleep(0)

    def expectations(self) -> Expectations | None:
        """What the script expects of a new session."""
        wanted = self._brain.script.expectations
        return Expectations(wanted, self._failures.add, self._clock) if wanted else None

    def keep(self, line: EventLine, session: S) -> None:
        """A session has begun on this line."""
        line.complain = session.complain
        session.taken = line.runner.saw
        self._kept.add(session)
        self._open[line] = session

    def let_go(self, line: EventLine, session: S) -> None:
        """A session is over."""
        session.close()
        session.taken = lambda _: None
        line.forget()
        self._open.pop(line, None)
