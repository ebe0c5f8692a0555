"""Run the main coroutine of a script, and end without a traceback on Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, NoReturn

from duologue._user_code import describe
from duologue.errors import ConfigError, DuologueError

log = logging.getLogger(__name__)


def run[T](main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` as ``asyncio.run`` does, and return its result; for scripts.

    Ctrl-C and SIGTERM cancel it: its conversations end within a second, and the program exits with
    the code 130 (or 143) and without a traceback. An error of this library, such as a wrong key, is
    one line on stderr: exit code 2 for a `ConfigError`, else 1. All other errors are raised.

    Raises:
        ConfigError: ``main`` is no coroutine, or an event loop is running already.
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
        return asyncio.run(body())
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
