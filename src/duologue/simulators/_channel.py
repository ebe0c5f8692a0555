"""A simulator's way to one client: a bounded queue of events, and the faults that hit it.

`EventChannel` is the part that WebSocket, WebRTC and HTTP/2 share. A session calls `send` and never
waits; `run_writer` delivers what is queued, in order and no earlier than the faults allow.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import orjson

from duologue.clock import Clock
from duologue.simulators import faults
from duologue.simulators._fault_plan import FaultPlan
from duologue.simulators._fields import new_id

MAX_UNSENT_CHARS = 64 * 1024 * 1024
"""Characters queued for a client that does not read; beyond it the connection is cut."""

_PAUSED_READ_STEP_S = 0.2


@dataclass(frozen=True, slots=True)
class _Close:
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class _QueuedMessage:
    due: float
    data: str | bytes | _Close


class ChannelOwner(Protocol):
    """The session that a channel belongs to."""

    def inject_error(self, error: faults.Error) -> None:
        """Send the client an error event that nothing has caused."""


class EventChannel(ABC):
    """Carries a session's events to its client, in order and as late as the faults demand.

    Args:
        plan: The faults of the simulator.
        clock: The clock of all times.
        seed: Makes random delays the same in every run.
    """

    def __init__(self, plan: FaultPlan, clock: Clock, seed: int) -> None:
        self.clock = clock
        self._random = random.Random(seed)  # noqa: S311 - a bad network, not a secret
        self._queue: deque[_QueuedMessage] = deque()
        self._unsent_chars = 0
        self._wake = asyncio.Event()
        self._last_text = ""
        self._delay: faults.Delay | None = None
        self._writing_paused_until = 0.0
        self.reading_paused_until = 0.0
        """Read nothing before this time, in seconds of the clock."""
        self.ended = False
        self.was_cut = False
        """Whether the connection was cut."""
        self.close_code: int | None = None
        """The code with which this side closed the session."""
        self._session: ChannelOwner | None = None
        self.fault_runner = plan.start(self, clock)

    def attach(self, session: ChannelOwner) -> None:
        """Inject errors into this session, and count the events of its client, until `detach`."""
        self._session = session

    def client_event(self, kind: str) -> None:
        """Carry out the faults that an event of the client triggers."""
        if self._session is not None:
            self.fault_runner.event_passed(kind)

    def send(self, kind: str, text: str) -> None:
        """Queue an event; never waits."""
        self._last_text = text
        self._enqueue(text)
        self.fault_runner.event_passed(kind)

    def send_binary(self, kind: str, data: bytes) -> None:
        """Queue a binary message; never waits."""
        self._enqueue(data)
        self.fault_runner.event_passed(kind)

    def close(self, code: int, reason: str) -> None:
        """Close the connection after everything that is queued."""
        if self.close_code is None:
            self.close_code = code
            self._enqueue(_Close(code, reason))

    async def wait_until_reading(self) -> None:
        """Wait while a fault keeps the service from reading, or until the channel ends."""
        while not self.ended and (wait := self.reading_paused_until - self.clock.now()) > 0:
            # Sleep in short steps, so that a paused session ends when the simulator does.
            await self.clock.sleep(min(wait, _PAUSED_READ_STEP_S))

    async def run_writer(self) -> None:
        """Send the queued messages until the channel ends."""
        while not self.ended:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            entry = self._queue[0]
            wait = max(entry.due, self._writing_paused_until) - self.clock.now()
            if wait > 0:
                await self.clock.sleep(wait)
                continue
            self._queue.popleft()
            match entry.data:
                case _Close(code, reason):
                    self.ended = True
                    await self.close_transport(code, reason)
                case data:
                    self._unsent_chars -= len(data)
                    try:
                        await self.deliver(data)
                    except ConnectionError:
                        self.ended = True

    def apply_fault(self, action: faults.Action) -> None:
        """Carry out a fault."""
        now = self.clock.now()
        match action:
            case faults.Close(code, reason):
                self.close(code, reason)
            case faults.Reset() | faults.Ice():
                self.cut()
            case faults.Stall("reading", seconds):
                self.reading_paused_until = now + seconds
            case faults.Stall(_, seconds) | faults.Burst(seconds):
                self._writing_paused_until = now + seconds
            case faults.Delay():
                self._delay = action
            case faults.Duplicate():
                self._enqueue(self._last_text)
            case faults.Unknown(kind):
                self._enqueue(self.unknown_event(kind))
            case faults.Garbage(kind):
                self._enqueue(b"\x00\xff\x00" if kind == "binary" else "{not JSON")
            case faults.Error():
                if self._session is not None:
                    self._session.inject_error(action)
            case faults.Loss(fraction):
                self.drop_packets(fraction)
            case faults.Handshake():
                pass  # It happens before a channel exists

    def cut(self) -> None:
        """End the connection without a closing handshake, and drop everything that is queued."""
        if self.was_cut:
            return
        self.ended = self.was_cut = True
        self._wake.set()
        self.abort()

    def detach(self) -> None:
        """Drop all references to the session, which is over."""
        self.fault_runner.close()
        self._queue.clear()
        self._unsent_chars = 0
        self._last_text = ""
        self._session = None

    def unknown_event(self, kind: str) -> str:
        """Return an event of a type that no client knows."""
        event = {"type": kind, "event_id": new_id("event"), "surprise": [1, {"a": None}]}
        return orjson.dumps(event).decode()

    @abstractmethod
    async def deliver(self, data: str | bytes) -> None:
        """Send one message; wait while the client does not read.

        Raises:
            ConnectionError: The connection has ended.
        """

    @abstractmethod
    async def close_transport(self, code: int, reason: str) -> None:
        """Close the connection with a closing handshake."""

    @abstractmethod
    def abort(self) -> None:
        """End the connection without a closing handshake."""

    @abstractmethod
    def drop_packets(self, fraction: float) -> None:
        """Lose this fraction of the audio packets, on transports that send packets."""

    def _enqueue(self, data: str | bytes | _Close) -> None:
        if self.ended:
            return
        due = self.clock.now()
        if self._delay is not None:
            due += (self._delay.ms + self._random.random() * self._delay.jitter_ms) / 1000
        self._queue.append(_QueuedMessage(due, data))
        self._wake.set()
        if not isinstance(data, _Close):
            self._unsent_chars += len(data)
            if self._unsent_chars > MAX_UNSENT_CHARS:
                self.cut()
