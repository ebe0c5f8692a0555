"""What a voice and a recogniser share that keep a connection to a service: the connection."""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress

from duologue.clock import Clock
from duologue.errors import DuologueError, ErrorKind, SessionError
from duologue.realtime.border import BORDER, Border, TimerSwitch, bordered_part_wire
from duologue.realtime.codec import NonBlockingWire
from duologue.realtime.reconnect import STABLE_S, ReconnectPolicy

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 0.3
"""Seconds that a wire may take to close; then it is abandoned."""
CLOSING_TIMEOUT_S = 0.1
"""Seconds of these that the closing messages may take."""


class SocketPart[M, C](ABC):
    """A part whose connections each have a wire with messages of type M, and a codec of type C.

    Args:
        name: What errors call it: ``the voice``.
        make_codec: Makes the codec of the next connection.
        make_wire: Makes its wire.
        clock: Tells the time.
        reconnect: How often to try, and how long to wait between attempts and for each of them.
        origin: The public object that has made it, whose options it has.
    """

    def __init__(
        self,
        name: str,
        *,
        make_codec: Callable[[], C],
        make_wire: Callable[[], NonBlockingWire[M]],
        clock: Clock,
        reconnect: ReconnectPolicy | None,
        origin: object | None,
    ) -> None:
        self.origin = origin
        self.border: Border | None = None
        self._name = name
        self._make_codec = make_codec
        self._make_wire = make_wire
        self._clock = TimerSwitch(clock)
        self._real_clock = clock
        self._policy = reconnect or ReconnectPolicy()
        self._wire: NonBlockingWire[M] | None = None
        self._unsent: deque[M] = deque()
        self._wake_writer = asyncio.Event()
        self._sent_at = 0.0
        """When the newest message was sent, in clock seconds."""
        self._attempts = 0
        """Attempts since a connection was stable."""
        self._random = random.Random()  # noqa: S311 - spreads attempts, guards no secret
        self.connections = 0
        """Connections so far."""

    @abstractmethod
    def _connected(self, codec: C) -> None:
        """Begin a connection: queue its first messages."""

    @abstractmethod
    def _take(self, message: M) -> None:
        """Process a message; raise the `SessionError` that ends the connection, if it has one."""

    @abstractmethod
    async def _watch(self, codec: C) -> None:
        """Watch a connection until cancelled; raise the `SessionError` that ends it."""

    def _closing(self, codec: C) -> Sequence[M]:
        """Return the messages to send before a connection that works is closed."""
        del codec
        return ()

    @contextmanager
    def _bordered(self) -> Generator[Border | None]:
        """Let the border of the conversation see this part while it runs."""
        outer = BORDER.get()
        border = self.border = None if outer is None else outer.part(self)
        if border is not None:
            self._clock.use(border.clock(self._real_clock))
        try:
            yield border
        except asyncio.CancelledError:
            self._leave()
            raise

    def _leave(self) -> None:
        if self.border is not None:
            self.border.note_input("leave")

    async def _connect_and_serve(self) -> SessionError:
        """Run one connection; return the error that ended it."""
        opened_at = float("inf")
        wire, codec = bordered_part_wire(self.border, self._make_wire), self._make_codec()
        working = False
        try:
            async with asyncio.timeout(self._policy.connect_timeout_s):
                await wire.open()
            self.connections += 1
            opened_at = self._clock.now()
            working = True
            await self._serve(wire, codec)
            error = self._error("ended the connection", ErrorKind.RECYCLE)
        except TimeoutError:
            error = self._error("can't be reached", ErrorKind.RETRY)
        except SessionError as reason:
            working, error = False, reason
        except asyncio.CancelledError:
            self._leave()
            raise
        except DuologueError as reason:  # A package that is not installed, for example.
            error = SessionError(str(reason), kind=ErrorKind.FATAL)
        finally:
            self._wire = None
            self._unsent.clear()
            with suppress(TimeoutError, SessionError):
                async with asyncio.timeout(CLOSING_TIMEOUT_S):
                    for message in self._closing(codec) if working else ():
                        await wire.send(message)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await wire.close()
        log.info("a connection of %s ended: %s", self._name, error)
        lasted = self._clock.now() - opened_at >= STABLE_S
        self._attempts = 1 if lasted else self._attempts + 1
        return error

    async def _wait_to_retry(self) -> None:
        """Wait before the next connection: not at all if the last one was stable."""
        if self._attempts > 1:
            await self._clock.sleep(self._policy.wait_s(self._attempts - 1, self._random))

    def _send(self, messages: Iterable[M]) -> None:
        """Send messages at once, or queue them for a service that does not read."""
        wire = self._wire
        for message in messages:
            if wire is None or self._unsent or not wire.try_send(message):
                self._unsent.append(message)
                self._wake_writer.set()
            else:
                self._sent_at = self._clock.now()

    def _error(self, text: str, kind: ErrorKind, code: str = "") -> SessionError:
        return SessionError(f"{self._name} {text}", code=code, kind=kind)

    async def _serve(self, wire: NonBlockingWire[M], codec: C) -> None:
        self._wire = wire
        self._sent_at = self._clock.now()
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [
                    tasks.create_task(self._write(wire), name=f"{self._name}: writer"),
                    tasks.create_task(self._watch(codec), name=f"{self._name}: watch"),
                ]
                self._connected(codec)
                await wire.run(self._take)
                for helper in helpers:
                    helper.cancel()
        except* DuologueError as errors:
            raise errors.exceptions[0] from None

    async def _write(self, wire: NonBlockingWire[M]) -> None:
        while True:
            self._wake_writer.clear()
            while self._unsent:
                await wire.send(self._unsent[0])
                self._unsent.popleft()
                self._sent_at = self._clock.now()
            await self._wake_writer.wait()
