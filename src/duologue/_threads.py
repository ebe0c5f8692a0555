"""Run users' plain functions in threads such that none can block another.

asyncio's default executor has a few threads for the whole process, and joins them at the end of the
program: six tools that hang block all others, and keep the program from ending. Here every call
gets a thread at once, a new one if none is idle, and no thread is joined. An idle thread serves the
next call, which costs about 20 us, and ends after `IDLE_S`. The idea is trio's thread cache.
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
    """The outcome of a function that has returned ``value``."""

    value: object


@dataclass(frozen=True, slots=True)
class Raised:
    """The outcome of a function that has raised; a future can't hold a ``StopIteration``."""

    error: BaseException


async def call_in_thread(function: Callable[[], object]) -> Returned | Raised:
    """Call ``function`` in a thread of its own, with the caller's context variables.

    Whatever ``function`` raises, ``SystemExit`` included, is returned as `Raised`. Cancelling this
    call leaves the thread running, because nothing can stop it.
    """
    context = contextvars.copy_context()

    def work() -> Returned | Raised:
        try:
            return Returned(context.run(function))
        except BaseException as error:  # noqa: BLE001 - returned to the caller
            return Raised(error)

    return await asyncio.get_running_loop().run_in_executor(_threads, work)


class _Thread:
    """A thread that runs one job after another."""

    def __init__(self, idle: dict[_Thread, None]) -> None:
        self._idle = idle
        self._job: Callable[[], None] | None = None
        # Locked while there is no job.
        self._wake = threading.Lock()
        self._wake.acquire()
        threading.Thread(target=self._run, name="duologue", daemon=True).start()

    def start(self, job: Callable[[], None]) -> None:
        """Start a job; the thread must be idle."""
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
            # Otherwise a caller has just taken this thread, and is about to give it a job.

    def offer(self) -> None:
        """Offer this thread for the next job."""
        self._idle[self] = None


class _Threads(Executor):
    """Has as many threads as there are concurrent calls."""

    def __init__(self) -> None:
        self._idle: dict[_Thread, None] = {}
        os.register_at_fork(after_in_child=self._idle.clear)

    def submit[**P, T](self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function at once, in an idle or a new thread."""
        future: Future[T] = Future()
        try:
            thread, _ = self._idle.popitem()
        except KeyError:
            thread = _Thread(self._idle)

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                thread.offer()
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - set on the future
                thread.offer()
                future.set_exception(error)
            else:
                # Before the result is set, so that the next call finds this thread idle.
                thread.offer()
                future.set_result(result)

        thread.start(job)
        return future


_threads = _Threads()
