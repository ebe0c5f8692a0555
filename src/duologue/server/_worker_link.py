"""The control channel between a supervisor and one worker: JSON, one message a line.

Either side tells (`tell`) or asks (`ask`). The end of the channel is the end of the other process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import cast

from duologue.errors import DuologueError
from duologue.json_types import JsonObject

log = logging.getLogger(__name__)

ASK_S = 2.0
"""Seconds in which the other side must answer."""

MAX_LINE = 4 * 1024 * 1024
"""Most bytes of a message: a list of thousands of calls."""

MAX_ANSWERING = 256
"""Most questions of the other side that are being answered; further ones get no answer."""


class LinkClosedError(DuologueError):
    """The other process has ended, or does not answer in time."""


class WorkerLink:
    """One end of the channel.

    Args:
        on_tell: Called with each message that wants no answer.
        on_ask: Returns the answer to a question.
    """

    def __init__(
        self,
        on_tell: Callable[[JsonObject], None],
        on_ask: Callable[[JsonObject], Awaitable[JsonObject]],
    ) -> None:
        self._on_tell = on_tell
        self._on_ask = on_ask
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[int, asyncio.Future[JsonObject]] = {}
        self._next_id = 0
        self._answering: set[asyncio.Task[None]] = set()

    async def open(self, channel: socket.socket) -> None:
        """Take over the channel; from now on `tell` works."""
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=channel, limit=MAX_LINE
        )

    async def run(self) -> None:
        """Read messages until the other process ends; closes the channel."""
        reader = self._reader
        if reader is None:
            raise LinkClosedError("open the channel first")
        try:
            while line := await reader.readline():
                self._receive(cast("JsonObject", json.loads(line)))
        except (OSError, ValueError) as error:
            log.debug("the channel to another process broke: %s", error)
        finally:
            if self._writer is not None:
                self._writer.close()
            self._reader = self._writer = None
            for waiting in self._pending.values():
                if not waiting.done():
                    waiting.set_exception(LinkClosedError("the other process has ended"))
            for task in self._answering:
                task.cancel()

    def tell(self, message: JsonObject) -> None:
        """Send a message; drop it after the end of the other process."""
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def ask(self, question: JsonObject, *, within_s: float = ASK_S) -> JsonObject:
        """Return the answer to a question.

        Raises:
            LinkClosedError: The other process has ended, or does not answer in time.
        """
        if self._writer is None:
            raise LinkClosedError("the other process has ended")
        self._next_id += 1
        number = self._next_id
        answer: asyncio.Future[JsonObject] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        self.tell({"ask": number, "body": question})
        try:
            async with asyncio.timeout(within_s):
                return await answer
        except TimeoutError:
            raise LinkClosedError("the other process does not answer") from None
        finally:
            del self._pending[number]

    def _receive(self, message: JsonObject) -> None:
        match message:
            case {"ask": int(number), "body": dict(question)}:
                if len(self._answering) < MAX_ANSWERING:
                    task = asyncio.get_running_loop().create_task(self._answer(number, question))
                    self._answering.add(task)
                    task.add_done_callback(self._answering.discard)
            case {"answer": int(number), "body": dict(body)}:
                waiting = self._pending.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(body)
            case _:
                self._on_tell(message)

    async def _answer(self, number: int, question: JsonObject) -> None:
        try:
            answer = await self._on_ask(question)
        except LinkClosedError as error:
            answer = {"error": str(error)}
        self.tell({"answer": number, "body": answer})
