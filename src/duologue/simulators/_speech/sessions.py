"""What the sessions of simulated voices and recognisers share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine

import orjson

from duologue.clock import Clock
from duologue.json_types import JsonObject
from duologue.simulators import faults
from duologue.simulators._channel import EventChannel

MAX_JOBS = 256
"""Things to do that may wait in a session; beyond it the connection is cut."""


class SpeechSession(ABC):
    """One connection of a client.

    What takes time is queued by `do`, and done in order by `run_backend`.

    Args:
        channel: Carries the messages to the client.
        clock: Tells the time.
        idle_s: Seconds without a message of the client after which `idle` is called.
    """

    def __init__(self, channel: EventChannel, clock: Clock, *, idle_s: float | None = None) -> None:
        self._channel = channel
        self._clock = clock
        self._idle_s = idle_s
        self._heard_at = clock.now()
        self._jobs: asyncio.Queue[Coroutine[object, object, None]] = asyncio.Queue(MAX_JOBS)
        self._tasks: asyncio.TaskGroup | None = None
        self._closed = False
        self.received: list[JsonObject] = []
        """The JSON messages of the client, oldest first."""

    async def run_backend(self) -> None:
        """Do what is queued, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._watch_idle(), name="simulator idle")
                while True:
                    await (await self._jobs.get())
        finally:
            while not self._jobs.empty():
                self._jobs.get_nowait().close()

    async def begin(self) -> None:
        """Send the first event; by default there is none."""
        await self._clock.sleep(0)

    def receive(self, text: str | bytes) -> None:
        """Process a message of the client."""
        if self._closed:
            return
        self._heard_at = self._clock.now()
        if isinstance(text, bytes):
            self.binary(text)
            return
        try:
            event = orjson.loads(text)
        except orjson.JSONDecodeError:
            self.plain_text(text)
            return
        if not isinstance(event, dict):
            self.plain_text(text)
            return
        self.received.append(event)
        self._channel.client_event(self.kind_of(event))
        self.message(event)

    def close(self) -> None:
        """Take no more messages; the channel cancels `run_backend`."""
        self._closed = True

    @abstractmethod
    def message(self, event: JsonObject) -> None:
        """Process a JSON message."""

    @abstractmethod
    def inject_error(self, error: faults.Error) -> None:
        """Send the client an error event that nothing has caused."""

    def binary(self, data: bytes) -> None:
        """Refuse a binary message; a subclass takes audio here."""
        del data
        self._channel.close(1003, "binary messages are not accepted")

    def plain_text(self, text: str) -> None:
        """Refuse a text that is no JSON object."""
        del text
        self._channel.close(1007, "messages must be JSON objects")

    def idle(self) -> None:
        """Close the connection, because the client has been silent for too long."""
        self._channel.close(1000, "connection idle timeout")

    def kind_of(self, event: JsonObject) -> str:
        """Return the name of a client's message in faults."""
        kind = event.get("type")
        return kind if isinstance(kind, str) else "message"

    def send(self, kind: str, event: JsonObject) -> None:
        """Send an event; ``kind`` is its name in faults."""
        self._channel.send(kind, orjson.dumps(event).decode())

    def send_audio(self, data: bytes) -> None:
        """Send audio as a binary message; faults refer to it as ``audio``."""
        self._channel.send_binary("audio", data)

    def close_when_done(self) -> None:
        """Close the connection once everything that is queued is done."""

        async def close() -> None:
            self._channel.close(1000, "")

        self.do(close())

    def do(self, job: Coroutine[object, object, None]) -> None:
        """Queue something that takes time."""
        try:
            self._jobs.put_nowait(job)
        except asyncio.QueueFull:
            job.close()
            self._channel.cut()

    def start(self, job: Coroutine[object, object, None]) -> None:
        """Do something beside the queue, until the connection ends. Call it from a job."""
        if self._tasks is None:
            job.close()
        else:
            self._tasks.create_task(job, name="simulator job")

    async def _watch_idle(self) -> None:
        if self._idle_s is None:
            return
        while True:
            wait = self._heard_at + self._idle_s - self._clock.now()
            if wait <= 0:
                self.idle()
                return
            await self._clock.sleep(wait)
