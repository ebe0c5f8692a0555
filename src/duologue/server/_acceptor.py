"""Accept connections of a listening socket, and stop without losing one.

asyncio's own server resets connections that it has accepted but not yet set up when it is closed,
and the system resets those that wait in its queue. Here, closing takes the whole queue first.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)

MAX_AT_ONCE = 128
"""Most connections that are accepted before the event loop does something else."""

PAUSE_S = 1.0
"""Seconds without accepting after the system has run out of files or memory."""

_OUT_OF = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Passes each connection of a listener on.

    Args:
        listener: A listening socket, which `close` closes.
        on_connection: Called with each connection, which does not block.
    """

    def __init__(
        self, listener: socket.socket, on_connection: Callable[[socket.socket], None]
    ) -> None:
        self._listener = listener
        self._on_connection = on_connection
        self._loop = asyncio.get_running_loop()
        self._resume: asyncio.TimerHandle | None = None
        self._accepting = False
        self._closed = False
        listener.setblocking(False)

    def start(self) -> None:
        """Begin to accept, or continue after `pause`."""
        if not self._closed and not self._accepting:
            self._accepting = True
            self._loop.add_reader(self._listener, self._accept)

    def pause(self) -> None:
        """Leave new connections in the system's queue."""
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listener)

    def close(self) -> None:
        """Pass on what waits in the system's queue, and close the listener."""
        if self._closed:
            return
        self.pause()
        self._closed = True
        self._accept()
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(MAX_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF:
                    raise
                log.warning("no connection can be accepted for now: %s", error.strerror)
                if not self._closed:
                    self.pause()
                    self._resume = self._loop.call_later(PAUSE_S, self.start)
                return
            connection.setblocking(False)
            self._on_connection(connection)
