"""What edges on a socket share: messages on their way out, and audio on its way in."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from duologue.audio import AudioFrame
from duologue.clock import Clock, Timer
from duologue.edges._arrivals import Pacer
from duologue.edges.protocol import AgentInput

logger = logging.getLogger(__name__)

MAX_WAITING = 1000
"""Most messages that may wait for a socket: ten seconds of audio and what is between."""

CLOSE_S = 0.3
"""Seconds that closing a socket may take, because an edge must hang up in half a second."""


class StreamSocket(Protocol):
    """The WebSocket of one call."""

    async def read(self, handle: Callable[[str | bytes], None]) -> None:
        """Pass each message to ``handle``, in order, until the end.

        Raises:
            Exception: ``handle`` raised it; nothing more is passed on.
        """

    def try_send(self, message: str | bytes) -> bool:
        """Send a message at once; return False, without sending, if that has to wait."""
        ...

    async def send(self, message: str | bytes) -> bool:
        """Send a message; wait while the other side does not read; return False after the end."""
        ...

    async def close(self) -> None:
        """Close the socket; may be called again."""


class Outbox:
    """The messages that wait for a socket, in order.

    Args:
        socket: Where they go.
        overflow: Called when `MAX_WAITING` wait and another one comes, which is dropped.
    """

    def __init__(self, socket: StreamSocket, overflow: Callable[[], None]) -> None:
        self._socket = socket
        self._overflow = overflow
        self._waiting: deque[tuple[bool, str | bytes]] = deque()
        self._filled = asyncio.Event()
        self._writing = False
        """Whether `write` is sending a message, which no other may overtake."""

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, message: str | bytes, *, audio: bool = False) -> None:
        """Send a message, or let it wait; `drop_audio` drops those with ``audio`` that wait."""
        if not (self._waiting or self._writing) and self._socket.try_send(message):
            return
        if len(self._waiting) >= MAX_WAITING:
            self._overflow()
            return
        self._waiting.append((audio, message))
        self._filled.set()

    def drop_audio(self) -> None:
        """Drop what belongs to audio that was not sent."""
        self._waiting = deque(entry for entry in self._waiting if not entry[0])

    async def write(self) -> None:
        """Send messages until the socket has ended."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                self._writing = True
                if not await self._socket.send(self._waiting.popleft()[1]):
                    return  # The reader finds the end as well, and knows the reason.
                self._writing = False


class PacedInput:
    """Passes the person's audio on to the agent, bursts at a bearable pace (see `Pacer`)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pacer = Pacer()
        self._timer: Timer | None = None
        self._agent: AgentInput | None = None

    @property
    def dropped_s(self) -> float:
        """Seconds of audio dropped because too much was waiting."""
        return self._pacer.dropped_s

    def start(self, agent: AgentInput) -> None:
        """Pass audio on to ``agent`` from now on."""
        self._agent = agent

    def stop(self) -> None:
        """Pass nothing on any more."""
        self._agent = None
        if self._timer is not None:
            self._timer.cancel()

    def push(self, frame: AudioFrame) -> None:
        """Add audio, and pass on what is due."""
        self._pacer.push(frame)
        self._pass_on()

    def _pass_on(self) -> None:
        if self._agent is None:
            return
        for frame in self._pacer.take(self._clock.now()):
            self._agent.push_audio(frame)
        if self._timer is None and (due := self._pacer.next_at) is not None:
            self._timer = self._clock.call_at(due, self._timer_due)

    def _timer_due(self) -> None:
        self._timer = None
        self._pass_on()


async def run_until(
    over: asyncio.Event,
    read: Callable[[], Awaitable[None]],
    write: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]],
) -> None:
    """Read and write until ``over`` is set; then close, in `CLOSE_S`.

    When this is cancelled, the socket is left to the server, which knows why the call ends, and
    closes it with that reason.
    """

    async def run(work: Callable[[], Awaitable[None]]) -> None:
        await work()

    cancelled = False
    try:
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(run(read), name="socket reading")
            writing = tasks.create_task(run(write), name="socket writing")
            await over.wait()
            reading.cancel()
            writing.cancel()
    except asyncio.CancelledError:
        cancelled = True
        raise
    finally:
        over.set()
        if not cancelled:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await close()
            except TimeoutError:
                logger.info("the other side did not close its socket in time")
