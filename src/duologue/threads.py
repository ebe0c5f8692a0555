"""Threads for plain functions of other people, none of which can hold up another.

The default executor of asyncio has a few threads for the whole process, and joins them at the end
of the program: six tools that are stuck stop all others, and the program does not end. Here every
call gets a thread at once, a new one where none is idle, and no thread is joined. An idle thread
serves the next call, which costs about 20 us, and ends after a while. The idea is trio's thread
cache.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

IDLE_S = 10.0
"""Seconds that a thread waits for its next call before it ends."""


@dataclass(frozen=True, slots=True)
class Returned:
    """A function came to its end."""

    value: object


@dataclass(frozen=True, slots=True)
class Raised:
    """A function raised. No future takes a ``StopIteration``, so errors travel as values."""

    error: BaseException


async def call_in_thread(function: Callable[[], object]) -> Returned | Raised:
    """Call ``function`` in a thread of its own, with the caller's context variables.

    Never raises for ``function``: whatever it raises, ``SystemExit`` too, is `Raised`. Cancelling
    this leaves the thread behind, because nothing can stop it.
    """
    context = contextvars.copy_context()

    def work() -> Returned | Raised:
        try:
            return Returned(context.run(function))
        except BaseException as error:  # noqa: BLE001 - told to whoever called
            return Raised(error)

    return await asyncio.get_running_loop().run_in_executor(_threads, work)


class _Thread:
    """One thread, which does one job after another."""

    def __init__(self, idle: dict[_Thread, None]) -> None:
        self._idle = idle
        self._job: Callable[[], None] | None = None
        # Locked while there is no job.
        self._wake = threading.Lock()
        self._wake.acquire()
        threading.Thread(target=self._run, name="duologue", daemon=True).start()

    def give(self, job: Callable[[], None]) -> None:
        """Start on a job; only for a thread that has none."""
        self._job = job
        self._wake.release()

    def _run(self) -> None:
        while True:
            if self._wake.acquire(timeout=IDLE_S):
                job, self._job = self._job, None
                if job is not None:
                    job()
            elif self._idle.pop(self, self) is None:
                return
            # Else somebody has just taken it out to give it a job.

    def idle(self) -> None:
        """There may be a next job."""
        self._idle[self] = None


class _Threads(Executor):
    """As many threads as there are calls at a time."""

    def __init__(self) -> None:
        self._idle: dict[_Thread, None] = {}
        os.register_at_fork(after_in_child=self._idle.clear)

    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function at once."""
        future: Future[T] = Future()
        try:
            thread, _ = self._idle.popitem()
        except KeyError:
            thread = _Thread(self._idle)

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                thread.idle()
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - the future's
                thread.idle()
                future.set_exception(error)
            else:
                # Before the result is told, so that the next call finds this thread idle.
                thread.idle()
                future.set_result(result)

        thread.give(job)
        return future


_threads = _Threads()
