"""``duologue serve --reload``: start the server again whenever a file of the app has changed.

The parent process owns the listening socket, so the port stays the same and callers who come while
the server starts wait in its queue. It never imports the app: an import that fails is an error of
the child, which prints it, and the parent waits for the next change.

A parent that is killed can't end its child. So the child holds the read end of a pipe whose write
end only the parent has: the end of the pipe is that of the parent, and the child ends too.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from duologue._optional import optional

LISTENER_VARIABLE = "DUOLOGUE_RELOAD_FD"
"""Environment variable with the number of the inherited listening socket."""

PARENT_VARIABLE = "DUOLOGUE_RELOAD_PARENT_FD"
"""Environment variable with the number of the inherited read end of the parent's pipe."""

STOP_S = 5.0
"""Seconds that the server may take to end before it is killed."""

SUFFIXES = (".md", ".toml")
"""Suffixes of files that are watched beside Python's, such as those of instructions."""


def end_with_parent() -> None:
    """End this process, as Ctrl-C does, when its parent ends; outside a child do nothing."""
    number = os.environ.pop(PARENT_VARIABLE, None)
    if number is None:
        return

    def watch_parent() -> None:
        os.read(int(number), 1)  # Nothing is ever written, so it returns at the end.
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(STOP_S)
        os._exit(1)

    threading.Thread(target=watch_parent, name="watch parent", daemon=True).start()


def inherited_listener() -> socket.socket | None:
    """Return the listening socket of the parent; None outside a child of `serve_reloading`."""
    number = os.environ.pop(LISTENER_VARIABLE, None)
    return None if number is None else socket.socket(fileno=int(number))


def serve_reloading(folder: Path, listener: socket.socket, arguments: Sequence[str]) -> NoReturn:
    """Run ``duologue`` with ``arguments`` in a child until Ctrl-C; restart it after each change.

    Args:
        folder: The folder whose files are watched, with those below it.
        listener: The listening socket, which the child inherits.
        arguments: The arguments of the child.
    """
    with optional("server"):
        from watchfiles import PythonFilter, watch

    read_end, _ = os.pipe()  # Python does not pass the write end on to a child.

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "duologue", *arguments],
            env={
                **os.environ,
                LISTENER_VARIABLE: str(listener.fileno()),
                PARENT_VARIABLE: str(read_end),
            },
            pass_fds=[listener.fileno(), read_end],
            stdin=subprocess.DEVNULL,
        )

    def terminate(number: int, frame: FrameType | None) -> None:
        """Pass SIGTERM on, which drains the server, and end with its exit code."""
        del frame
        child.send_signal(number)
        sys.exit(_shell_code(child.wait()))

    child = start()
    signal.signal(signal.SIGTERM, terminate)
    try:
        for changes in watch(folder, watch_filter=PythonFilter(extra_extensions=SUFFIXES)):
            names = sorted({os.path.relpath(path, folder) for _, path in changes})
            click.echo(f"Changed: {', '.join(names)}. Starting again ...")
            _stop(child)
            child = start()
    except KeyboardInterrupt:
        pass
    finally:
        _stop(child)
    click.echo("")
    sys.exit(0)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the server and its calls, as Ctrl-C does."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _shell_code(code: int) -> int:
    """Return an exit code as a shell shows it: 128 + N for signal N."""
    return 128 - code if code < 0 else code
