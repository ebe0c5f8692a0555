"""Run users' code: components, tools, handlers, processors and stores.

An error of such code is reported, and the conversation continues. Nor may such code delay the end
of a conversation. Its errors are logged with a traceback, which appears on stderr if the program
has not configured logging.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable

from duologue._threads import Returned, call_in_thread
from duologue.errors import DuologueError

log = logging.getLogger(__name__)

GRACE_S = 0.3
"""Seconds that cancelled user code may take to end before it is abandoned."""

REPORT_INTERVAL_S = 10.0
"""Seconds in which the same failure is only counted after it was reported."""


def text_of(error: BaseException) -> str:
    """Return the text of an error in one line; "" if it has none or raises in ``__str__``."""
    try:
        return " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 - an error whose text is an error
        return ""


def describe(error: BaseException) -> str:
    """Describe an error in one line; never raise.

    The description of one of our errors is its text; that of any other begins with its type. A
    group is described by its first error.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = text_of(error)
    if isinstance(error, DuologueError | UserCodeError) and text:
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def routine_of(function: Callable[..., object]) -> Callable[..., object]:
    """Return the function behind a `functools.partial` or an object with ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    called: Callable[..., object] = type(function).__call__
    return called


def is_async(function: Callable[..., object]) -> bool:
    """Return whether ``function`` is an ``async def``, and so runs on the event loop."""
    routine = routine_of(function)
    return inspect.iscoroutinefunction(routine) or inspect.isasyncgenfunction(routine)


def name_of(function: Callable[..., object]) -> str:
    """Return a name for messages; a callable object has the name of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def log_failure(logger: logging.Logger, what: str, error: BaseException) -> None:
    """Log a failure, with a traceback unless it is one of our errors."""
    ours = isinstance(error, DuologueError)
    logger.error("%s failed: %s", what, describe(error), exc_info=None if ours else error)


def was_cancelled(error: BaseException) -> bool:
    """Return whether ``error`` is the cancellation of the current task, not raised by its code."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


class FailureReports:
    """Limits the reports of code that fails again and again, such as a processor for each frame.

    Args:
        now: Returns the time in seconds.
        notify: Called with the source and the message of each failure that is reported. By default
            failures are only logged.
    """

    def __init__(
        self, now: Callable[[], float], notify: Callable[[str, str], None] | None = None
    ) -> None:
        self._now = now
        self._notify = notify
        self._reported: dict[tuple[str, type[BaseException]], tuple[float, int]] = {}

    def report(self, source: str, error: BaseException) -> None:
        """Log and report a failure, unless the same was in the last `REPORT_INTERVAL_S`.

        Re-raise `KeyboardInterrupt`, which is no failure.
        """
        if isinstance(error, KeyboardInterrupt):
            raise error
        key, now = (source, type(error)), self._now()
        reported, more = self._reported.get(key, (float("-inf"), 0))
        if now - reported < REPORT_INTERVAL_S:
            self._reported[key] = reported, more + 1
            return
        self._reported[key] = now, 0
        message = describe(error)
        if more:
            message += f" (and {more} times more since the last report)"
        log_failure(log, source, error)
        if self._notify is not None:
            self._notify(source, message)


class UserCodeError(Exception):
    """Replaces what a task must not raise, such as ``SystemExit``; its text names the original."""


async def run_contained[T](code: Awaitable[T]) -> T:
    """Await ``code``, so that it raises only an ``Exception`` or the cancellation of this task.

    ``sys.exit()`` in a task would end the event loop, panics of libraries in Rust are no
    ``Exception``, and a cancellation that was not requested would look like an end: these become
    `UserCodeError`.
    """
    try:
        return await code
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except asyncio.CancelledError as error:
        if was_cancelled(error):
            raise
        raise UserCodeError("it was cancelled from inside") from error
    except BaseException as error:
        raise UserCodeError(describe(error)) from error


async def call_plain(function: Callable[[], object]) -> object:
    """Call a plain function in a thread; raise as `run_contained` does.

    Cancelling this call leaves the thread running, because nothing can stop it.
    """
    outcome = await call_in_thread(function)
    if isinstance(outcome, Returned):
        return outcome.value
    error = outcome.error
    # No coroutine can raise a StopIteration.
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        raise error
    raise UserCodeError(describe(error)) from error


async def run_bounded[T](code: Awaitable[T], name: str) -> T:
    """Await ``code``; when cancelled, cancel it and wait at most 0.3 s for it to end.

    Code that does not end is abandoned with an error in the log: it is the only task that may
    outlive a session, and only then. Raises as `run_contained` does.
    """
    task = asyncio.ensure_future(run_contained(code))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=GRACE_S)
            if not task.done():
                log.error("%s ignores its cancellation and was left running", name)
        raise
