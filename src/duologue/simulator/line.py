"""The way out of a session: a bounded line of events, and what can go wrong with it."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from duologue.clock import Clock
from duologue.simulator import faults
from duologue.simulator.fields import new_id

MOST_UNSENT = 64 * 1024 * 1024
"""Characters that may wait for a client that does not read; then it is cut off."""


@dataclass(frozen=True, slots=True)
class _Close:
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Entry:
    due: float
    data: str | bytes | _Close


class EventLine(ABC):
    """Carries a session's events to its client, in order, as late as the faults want."""

    def __init__(self, plan: faults.FaultPlan, clock: Clock, seed: int) -> None:
        self.clock = clock
        self._random = random.Random(seed)  # noqa: S311 - a bad network, not a secret
        self._waiting: deque[_Entry] = deque()
        self._unsent = 0
        self._wake = asyncio.Event()
        self._last = ""
        self._late: faults.Delay | None = None
        self._held_until = 0.0
        self.deaf_until = 0.0
        """Nothing is read before that time, in clock seconds."""
        self.over = False
        self.broken = False
        """Whether it was cut."""
        self.close_code: int | None = None
        """The code by which the session was ended from here."""
        self.complain: Callable[[faults.Error], None] = lambda _: None
        """Tell the client an error; set by who owns the session."""
        self.runner = plan.run(self, clock)

    def send(self, kind: str, text: str) -> None:
        """Send an event, in order; never waits."""
        self._last = text
        self._put(text)
        self.runner.saw(kind)

    def close(self, code: int, reason: str) -> None:
        """End the line, behind what was sent."""
        if self.close_code is None:
            self.close_code = code
            self._put(_Close(code, reason))

    async def write(self) -> None:
        """Send what is to be sent, until the line ends."""
        while not self.over:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            entry = self._waiting[0]
            wait = max(entry.due, self._held_until) - self.clock.now()
            if wait > 0:
                await self.clock.sleep(wait)
                continue
            self._waiting.popleft()
            match entry.data:
                case _Close(code, reason):
                    self.over = True
                    await self.end(code, reason)
                case data:
                    self._unsent -= len(data)
                    try:
                        await self.deliver(data)
                    except ConnectionError:
                        self.over = True

    def fault(self, action: faults.Action) -> None:
        """Let something go wrong."""
        now = self.clock.now()
        match action:
            case faults.Close(code, reason):
                self.close(code, reason)
            case faults.Reset() | faults.Ice():
                self.cut()
            case faults.Stall("reading", seconds):
                self.deaf_until = now + seconds
            case faults.Stall(_, seconds) | faults.Burst(seconds):
                self._held_until = now + seconds
            case faults.Delay():
                self._late = action
            case faults.Duplicate():
                self._put(self._last)
            case faults.Unknown(kind):
                self._put(self.surprise(kind))
            case faults.Garbage(kind):
                self._put(b"\x00\xff\x00" if kind == "binary" else "{not JSON")
            case faults.Error():
                self.complain(action)
            case faults.Loss(fraction):
                self.lose(fraction)
            case faults.Handshake():
                """It comes before there is a line."""

    def cut(self) -> None:
        """End without a word."""
        if self.broken:
            return
        self.over = self.broken = True
        self._wake.set()
        self.break_off()

    def forget(self) -> None:
        """Drop all references to the session, because it is over."""
        self.runner.close()
        self._waiting.clear()
        self._unsent = 0
        self._last = ""
        self.complain = lambda _: None

    def surprise(self, kind: str) -> str:
        """An event of a type that nobody knows."""
        event = {"type": kind, "event_id": new_id("event"), "surprise": [1, {"a": None}]}
        return orjson.dumps(event).decode()

    @abstractmethod
    async def deliver(self, data: str | bytes) -> None:
        """Send one message; waits while the client does not read. Raises ``ConnectionError``."""

    @abstractmethod
    async def end(self, code: int, reason: str) -> None:
        """End the connection, politely."""

    @abstractmethod
    def break_off(self) -> None:
        """End the connection, without a word."""

    @abstractmethod
    def lose(self, fraction: float) -> None:
        """Lose that part of the packets of sound, where there are such."""

    def _put(self, data: str | bytes | _Close) -> None:
        if self.over:
            return
        due = self.clock.now()
        if self._late is not None:
            due += (self._late.ms + self._random.random() * self._late.jitter_ms) / 1000
        self._waiting.append(_Entry(due, data))
        self._wake.set()
        if not isinstance(data, _Close):
            self._unsent += len(data)
            if self._unsent > MOST_UNSENT:
                self.cut()
