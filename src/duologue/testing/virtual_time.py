"""An event loop in virtual time, whose clock jumps to the next timer instead of waiting for it."""

from __future__ import annotations

import asyncio
import functools
import heapq
import math
import selectors
from asyncio import SelectorEventLoop
from collections.abc import Callable, Coroutine, Generator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from duologue.errors import DuologueError

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

PATIENCE = 1.0
"""Real seconds that a loop without timers or work waits for a socket or a foreign thread."""

GRACE = 0.001
"""Real seconds that open sockets get to deliver data before each jump in time."""


class DeadlockError(DuologueError, RuntimeError):
    """Every task waits, and nothing can wake one any more; the text says where they wait."""


class _JumpingSelector(selectors.BaseSelector):
    """Watches files like the default selector, but jumps in time instead of waiting for a timer."""

    def __init__(self) -> None:
        self._inner = selectors.DefaultSelector()
        self.loop: VirtualTimeLoop | None = None

    def register(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def modify(
        self, fileobj: FileDescriptorLike, events: int, data: object = None
    ) -> selectors.SelectorKey:
        return self._inner.modify(fileobj, events, data)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()
        self.loop = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self.loop
        if loop is None or timeout is None or timeout > 0:
            events = self._inner.select(0)
            if events or loop is None:
                return events
            if loop.working:
                return self._inner.select(None)
            when = loop._next_timer()
            if when is None:
                events = self._inner.select(PATIENCE)
                if not events and not loop.working:
                    raise DeadlockError(loop._where_tasks_wait())
                return events
            # One file is the loop's own wake-up pipe; any other is a socket that may have traffic.
            if len(self._inner.get_map()) > 1:
                events = self._inner.select(loop.grace)
                if events:
                    return events
            loop._jump(when)
            return []
        return self._inner.select(0)


class VirtualTimeLoop(SelectorEventLoop):
    """An event loop in virtual time (contract C9): when idle, `time` jumps to the next timer.

    Callbacks and coroutines take no virtual time. While work runs in executor threads
    (``run_in_executor``, ``asyncio.to_thread``), or inside `hold`, virtual time stops and the loop
    waits in real time; so such work must not wait for a timer of this loop. Sockets and
    ``call_soon_threadsafe`` work as usual. When nothing can wake the loop any more, it raises
    `DeadlockError` after `PATIENCE` real seconds.

    Args:
        start: First value of `time`, in seconds.
        grace: Real seconds that open sockets get before each jump; 0 is enough if both ends of each
            are on this loop.
    """

    def __init__(self, start: float = 0.0, *, grace: float = GRACE) -> None:
        self._virtual_now = start
        self.grace = grace
        self._virtual_timers: list[asyncio.TimerHandle] = []
        self.working = 0
        """Number of pieces of work in threads, during which virtual time stops."""
        selector = _JumpingSelector()
        super().__init__(selector)
        selector.loop = self

    @property
    def _clock_resolution(self) -> float:
        # asyncio calls timers that are due within this time. A callback that is called slightly
        # early and sets the same timer again would be called forever, because virtual time does not
        # advance by itself.
        return math.ulp(self._virtual_now)

    @_clock_resolution.setter
    def _clock_resolution(self, seconds: float) -> None:
        """Ignore the system's resolution, which the base class sets."""

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual_now

    def call_at[*Ts](
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call ``callback`` at the virtual time ``when``, in seconds."""
        handle = super().call_at(when, callback, *args, context=context)
        heapq.heappush(self._virtual_timers, handle)
        return handle

    def run_in_executor[T, *Ts](  # the base class says Future | coroutine
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run a function in a thread; virtual time stops until the thread has finished it."""
        if executor is None:
            executor = self._threads()
        work = executor.submit(func, *args)
        self.working += 1
        future = asyncio.wrap_future(work, loop=self)
        # Count down on the loop, after the result, so that no jump can come between the two. The
        # thread counts and not the awaiting future, because cancelling the future does not stop the
        # thread.
        work.add_done_callback(self._thread_done)
        return future

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:  # type: ignore[override]
        """Use ``executor`` for ``run_in_executor(None, ...)``."""
        self._pool = executor
        super().set_default_executor(executor)

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  # as the base class has it
    ) -> None:
        """Join the threads, in real time."""
        with self.hold():
            await super().shutdown_default_executor(timeout)

    @contextmanager
    def hold(self) -> Generator[None]:
        """Stop virtual time inside the block, for work in threads that the loop can't see.

        Leave the block on the loop's own thread.
        """
        self.working += 1
        try:
            yield
        finally:
            self.working -= 1

    _pool: ThreadPoolExecutor | None = None

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self.set_default_executor(ThreadPoolExecutor(thread_name_prefix="virtual-time"))
        return cast("ThreadPoolExecutor", self._pool)

    def _thread_done(self, _work: Future[Any]) -> None:
        try:
            self.call_soon_threadsafe(self._work_done)
        except RuntimeError:  # the loop was closed without waiting for its threads
            self.working -= 1

    def _work_done(self) -> None:
        self.working -= 1

    def _next_timer(self) -> float | None:
        timers = self._virtual_timers
        while timers and (timers[0].cancelled() or timers[0].when() <= self._virtual_now):
            heapq.heappop(timers)
        return timers[0].when() if timers else None

    def _jump(self, when: float) -> None:
        self._virtual_now = max(self._virtual_now, when)

    def _where_tasks_wait(self) -> str:
        places = [
            f"{task.get_name()} in {_where(task.get_coro())}" for task in asyncio.all_tasks(self)
        ]
        tasks = "; ".join(sorted(places)) or "no task"
        return (
            f"deadlock at {self._virtual_now:.3f} s of virtual time: "
            f"no timer, no work in threads, and these wait: {tasks}"
        )


def _where(awaitable: object) -> str:
    """Return the chain of coroutines, and the file and line of the last one outside asyncio."""
    names = []
    place = ""
    while awaitable is not None:
        frame: FrameType | None = getattr(awaitable, "cr_frame", None)
        if frame is not None:
            names.append(frame.f_code.co_qualname)
            if "asyncio" not in Path(frame.f_code.co_filename).parts:
                place = f" ({frame.f_code.co_filename}:{frame.f_lineno})"
        awaitable = getattr(awaitable, "cr_await", None)
    return " > ".join(names) + place


def run_virtual[T](main: Coroutine[Any, Any, T], *, start: float = 0.0, grace: float = GRACE) -> T:
    """Run ``main`` in a new `VirtualTimeLoop` and return its result.

    Like ``asyncio.run``, this cancels remaining tasks and ends generators and threads.

    Args:
        main: The coroutine.
        start: First value of the loop's `time`, in seconds.
        grace: See `VirtualTimeLoop`.

    Raises:
        DeadlockError: ``main`` waits for something that can't happen.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(start, grace=grace)) as runner:
        return runner.run(main)


def virtual_time[**P, T](function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a plain test of an async one: each call runs in a virtual-time loop of its own.

    Works with fixtures, parametrisation and hypothesis (put ``@given`` above it). Async fixtures
    live on the runner's real loop, so don't use them together with this.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(function(*args, **kwargs))

    return run
