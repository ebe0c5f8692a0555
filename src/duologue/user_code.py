"""Running code that is not ours: parts, tools, handlers, processors and stores.

Whatever such code raises is told and costs nothing else: the conversation goes on. It may not hold
up an end either. What it raised is written to the log with its traceback, which reaches stderr
where a program has set up no logging.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable

from duologue.realtime.errors import DuologueError
from duologue.threads import Returned, call_in_thread

log = logging.getLogger(__name__)

GRACE_S = 0.3
"""How long a cancelled piece of user code may take to end before it is left behind."""

AGAIN_S = 10.0
"""Seconds for which the same failure is only counted once it has been told."""


def text_of(error: BaseException) -> str:
    """The text of an error in one line; empty where the error has none or can't be written."""
    try:
        return " ".join(str(error).split())
    except BaseException:  # noqa: BLE001 - an error whose text is an error
        return ""


def describe(error: BaseException) -> str:
    """Put an error into a sentence; never raises.

    An error of ours is its text; any other begins with its type. Of a group, the first counts.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text = text_of(error)
    if isinstance(error, DuologueError | UserCodeError) and text:
        return text
    name = type(error).__name__
    return f"{name}: {text}" if text else name


def routine_of(function: Callable[..., object]) -> Callable[..., object]:
    """The function behind a `functools.partial` or an object with ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function) or inspect.isclass(function):
        return function
    called: Callable[..., object] = type(function).__call__
    return called


def is_async(function: Callable[..., object]) -> bool:
    """Whether ``function`` is written with ``async def``, and so runs on the event loop."""
    routine = routine_of(function)
    return inspect.iscoroutinefunction(routine) or inspect.isasyncgenfunction(routine)


def name_of(function: Callable[..., object]) -> str:
    """A name for messages; an object that is called goes by its class."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def log_failure(logger: logging.Logger, what: str, error: BaseException) -> None:
    """Write a failure to the log, with a traceback where it is no error of ours."""
    ours = isinstance(error, DuologueError)
    logger.error("%s failed: %s", what, describe(error), exc_info=None if ours else error)


def was_cancelled(error: BaseException) -> bool:
    """Whether ``error`` is the cancellation of the task that runs, and not the code's own doing."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and (task is None or task.cancelling() > 0)


class FailureReports:
    """Tells what fails again and again, such as a processor of each frame, once in a while.

    ``tell(source, message)`` is given the failures that are to be told.
    """

    def __init__(self, tell: Callable[[str, str], None], now: Callable[[], float]) -> None:
        self._tell = tell
        self._now = now
        self._told: dict[tuple[str, type[BaseException]], tuple[float, int]] = {}

    def report(self, source: str, error: BaseException) -> None:
        """Log and tell a failure, unless the same was told in the last `AGAIN_S` seconds.

        Ctrl-C is no failure, and is raised again.
        """
        if isinstance(error, KeyboardInterrupt):
            raise error
        key, now = (source, type(error)), self._now()
        told, more = self._told.get(key, (float("-inf"), 0))
        if now - told < AGAIN_S:
            self._told[key] = told, more + 1
            return
        self._told[key] = now, 0
        message = describe(error)
        if more:
            message += f" (and {more} times more since the last report)"
        log_failure(log, source, error)
        self._tell(source, message)


class UserCodeError(Exception):
    """Stands for what no task may raise by itself, ``SystemExit`` for one; its text names it."""


async def contained[T](code: Awaitable[T]) -> T:
    """Await ``code`` such that it raises nothing but an ``Exception``, or its own cancellation.

    ``sys.exit()`` in a task ends the event loop, panics of libraries in Rust are no ``Exception``,
    and a cancellation that nobody asked for looks like an end: these become `UserCodeError`.
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
    """Call a plain function in a thread; raises as `contained` does.

    Cancelling this leaves the thread behind, because nothing can stop it.
    """
    outcome = await call_in_thread(function)
    if isinstance(outcome, Returned):
        return outcome.value
    error = outcome.error
    # No coroutine can raise a StopIteration.
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        raise error
    raise UserCodeError(describe(error)) from error


async def bounded[T](code: Awaitable[T], name: str) -> T:
    """Await ``code``; when cancelled, cancel it and wait at most 0.3 s for it to end.

    Code that refuses to end is left behind with an error in the log: it is the only task that may
    outlive a session, and only then. Raises as `contained` does.
    """
    task = asyncio.ensure_future(contained(code))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=GRACE_S)
            if not task.done():
                log.error("%s ignores its cancellation and was left running", name)
        raise
