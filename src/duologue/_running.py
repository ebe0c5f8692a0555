"""Run the main coroutine of a script in the fastest event loop, and end cleanly on Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal, NoReturn

from duologue._optional import import_optional, is_installed
from duologue._user_code import describe
from duologue.errors import ConfigError, DuologueError

log = logging.getLogger(__name__)


type EventLoop = Literal["auto", "asyncio", "uvloop"]
"""Which event loop to run in; ``auto`` is uvloop where it is installed, else asyncio's own."""


def make_event_loop(loop: EventLoop) -> asyncio.AbstractEventLoop:
    """Make an event loop, and log which one it is.

    Raises:
        ConfigError: ``loop`` names none.
        MissingExtraError: uvloop is wanted but not installed.
    """
    match loop:
        case "auto":
            return make_event_loop("uvloop" if is_installed("uvloop") else "asyncio")
        case "asyncio":
            log.info("event loop: asyncio")
            return asyncio.new_event_loop()
        case "uvloop":
            uvloop = import_optional("uvloop", "server")
            log.info("event loop: uvloop %s", uvloop.__version__)
            make: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return make()
        case _:
            raise ConfigError(f"loop must be auto, asyncio or uvloop, not {loop!r}")


def run_in_loop[T](main: Coroutine[Any, Any, T], loop: EventLoop = "auto") -> T:
    """Run ``main`` as ``asyncio.run`` does, in the event loop that ``loop`` names."""
    try:
        made = make_event_loop(loop)
    except DuologueError:
        main.close()
        raise
    with asyncio.Runner(loop_factory=lambda: made) as runner:
        return runner.run(main)


def run[T](main: Coroutine[Any, Any, T], *, loop: EventLoop = "auto") -> T:
    """Run ``main`` as ``asyncio.run`` does, and return its result; for scripts.

    The event loop is uvloop where that is installed (extra ``server``), because it takes a quarter
    less CPU; ``loop="asyncio"`` is asyncio's own.

    Ctrl-C and SIGTERM cancel it: its conversations end within a second, and the program exits with
    the code 130 (or 143) and without a traceback. An error of this library, such as a wrong key, is
    one line on stderr: exit code 2 for a `ConfigError`, else 1. All other errors are raised.

    Raises:
        ConfigError: ``main`` is no coroutine, or an event loop is running already.
        MissingExtraError: ``loop="uvloop"`` without uvloop.
    """
    _check_coroutine(main)
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        main.close()
        raise ConfigError(
            "an event loop is running already, as in a notebook: write 'await main()'"
        )
    terminated = False

    async def body() -> T:
        task = asyncio.current_task()

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            if task is not None:
                task.cancel()

        # This works only in the main thread, and not on Windows.
        with suppress(NotImplementedError, ValueError, RuntimeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await main

    try:
        return run_in_loop(body(), loop)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except asyncio.CancelledError:
        if not terminated:
            raise
        sys.exit(128 + signal.SIGTERM)
    except DuologueError as error:
        _fail(error)
    except BaseExceptionGroup as group:
        _, others = group.split(DuologueError)
        if others is not None:
            raise
        _fail(group)
    finally:
        main.close()  # It has not begun if there is no such loop.


def _check_coroutine(main: object) -> None:
    if not asyncio.iscoroutine(main):
        name = getattr(main, "__name__", type(main).__name__)
        raise ConfigError(f"run needs a coroutine: write duologue.run({name}())")


def _fail(error: BaseException) -> NoReturn:
    """Write the error to stderr in one line, and exit."""
    log.debug("the program ended by an error", exc_info=error)
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    sys.stderr.write(f"duologue: {describe(error)}\n")
    sys.exit(2 if isinstance(error, ConfigError) else 1)
