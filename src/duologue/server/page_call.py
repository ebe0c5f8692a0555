"""A call of a page, which outlives its socket.

The page's WebSocket carries the messages of a call and nothing else: audio and video go their own
way. So a socket that is lost need not end the call:

    socket 1 ──> carry ──┐                            ┌─> receive ──> the handler of the call
    socket 2 ──> carry ──┴─> inbox (at most 64) ──────┘
                     <── outbox <── send <── answers, errors
                     <── event log <── send <── events, numbered

`carry` runs in the ASGI task of each socket. When a socket ends without a hang-up, the call waits
``keep_s`` seconds for the next one, which must show the ticket (see `tickets`); the handler notices
nothing. A socket with a valid ticket replaces one that is still open, since a dead socket may look
open for minutes. Events that the page has missed are sent again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from duologue.json_types import Json
from duologue.rtc.call_request import CallRequest
from duologue.rtc.config import IceServer
from duologue.rtc.signalling import AGENT, BYE, EVENT, TEXT
from duologue.server._event_log import EventLog
from duologue.server._rate_limits import TokenBucket
from duologue.server.call_control import CallControl
from duologue.server.call_socket import GONE, REPLACED, RESTARTING, TOO_FAST, Refusal, RefusedError
from duologue.server.tickets import TicketKeeper, new_session_id

MAX_INBOX = 64
"""Most messages that may wait for the call; more mean that the call does not read, and it is
refused.
"""

MAX_OUTBOX = 64
"""Most messages, besides events, that may wait for a page that does not read."""

LEAVING_S = 10.0
"""Most seconds that a call waits for a page that was closed or is being loaded again."""

RESUMES_PER_S = 0.5
"""How often a call may be taken up again, each second."""

MAX_RESUMES = 10.0
"""How often a call may be taken up again at once."""

_GOING_AWAY = 1001
_ABNORMAL = 1006
_LOST = (_GOING_AWAY, 1005, _ABNORMAL, 1011)
"""Close codes of a socket after which the page may come back; with any other one, the call ends."""

WROTE = "wrote"
"""Type of the message by which the page gets its own text again, for its transcript."""

TICKET = "ticket"
"""Type of the message by which the page confirms that it has its new ticket."""


class PageSocket(Protocol):
    """One socket of a page."""

    async def read(
        self, deliver: Callable[[Mapping[str, Json]], None], *, offer_due: bool = False
    ) -> int:
        """Read messages until the socket ends; return its close code."""
        ...

    async def send(self, text: str) -> None:
        """Send a message."""

    async def close(self, refusal: Refusal | None = None) -> None:
        """Close the socket soon."""


class _Carrier:
    """The socket that carries a call now."""

    def __init__(self, socket: PageSocket, received: int) -> None:
        self.socket = socket
        self.received = received
        """Number of the last event that it was sent."""
        self.outbox: deque[str] = deque(maxlen=MAX_OUTBOX)
        self.replaced = asyncio.Event()


class PageCall:
    """The `Signalling` of one call, over one socket after another.

    Args:
        request: The request that began the call.
        keep_s: Seconds that the call waits for its page after its socket was lost; 0 ends it.
        session_id: Id of the conversation if another process had it before.
    """

    def __init__(
        self, request: CallRequest, *, keep_s: float, session_id: str | None = None
    ) -> None:
        self.request = request
        self.keep_s = keep_s
        self.session_id = session_id if session_id is not None else new_session_id()
        self.resumed = session_id is not None
        self.call_id = ""
        self.ice_servers: tuple[IceServer, ...] = ()
        self.control: CallControl | None = None
        self.after_call: Callable[[], Awaitable[None]] | None = None
        self.end_requested = asyncio.Event()
        """Set by `end`."""
        self.end_reason: Refusal | None = None
        """What `end` was given."""
        self.over = asyncio.Event()
        """Set when the page has left for good."""
        self.refusal: Refusal | None = None
        """Which limit the page has broken."""
        self.released = False
        """Whether the conversation is left to another process."""
        self.sockets = 0
        """Sockets that have carried the call."""
        self._tickets: TicketKeeper | None = None
        self._inbox: asyncio.Queue[Mapping[str, Json] | None] = asyncio.Queue(MAX_INBOX + 2)
        self._carrier: _Carrier | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._stopped = False
        self._log = EventLog()
        self._news = asyncio.Event()
        self._introduction: str | None = None
        self._resumes = TokenBucket(RESUMES_PER_S, asyncio.get_running_loop().time(), MAX_RESUMES)

    @property
    def tickets(self) -> TicketKeeper:
        """The valid tickets; only when the call has its id."""
        if self._tickets is None:
            self._tickets = TicketKeeper(self.call_id, self.session_id)
        return self._tickets

    @property
    def connected(self) -> bool:
        """Whether a socket carries the call."""
        return self._carrier is not None

    def check_resume(self) -> None:
        """Raise `RefusedError` if the call is taken up again too often."""
        if not self._resumes.spend(asyncio.get_running_loop().time()):
            raise RefusedError(TOO_FAST)

    async def carry(self, socket: PageSocket, *, received: int = 0, offer_due: bool) -> None:
        """Let a socket carry the call until it is lost or replaced.

        Args:
            socket: The socket.
            received: Number of the last event that the page has.
            offer_due: Whether the page must send an offer in time.

        Raises:
            RefusedError: The call has ended meanwhile.
        """
        if self.over.is_set():
            raise RefusedError(GONE)
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        earlier, self._carrier = self._carrier, _Carrier(socket, received)
        carrier = self._carrier
        self.sockets += 1
        if earlier is not None:
            earlier.replaced.set()
        if self.sockets > 1 and self._introduction is not None:
            carrier.outbox.append(self._introduction)
        self._news.set()
        code = _ABNORMAL
        try:
            code = await self._carry(carrier, offer_due)
        finally:
            if self._carrier is carrier:
                self._carrier = None
                self._lost(code)

    async def _carry(self, carrier: _Carrier, offer_due: bool) -> int:
        code = _ABNORMAL
        refusals: list[RefusedError] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(
                    carrier.socket.read(self._deliver, offer_due=offer_due), name="socket"
                )
                writing = tasks.create_task(self._write(carrier), name="write")
                replaced = tasks.create_task(carrier.replaced.wait(), name="replaced")
                await asyncio.wait({reading, replaced}, return_when=asyncio.FIRST_COMPLETED)
                for task in (reading, writing, replaced):
                    task.cancel()
            if reading.done() and not reading.cancelled():
                code = reading.result()
        except* RefusedError as errors:
            refusals = [error for error in errors.exceptions if isinstance(error, RefusedError)]
        if refusals and self._carrier is carrier:
            self.refusal = refusals[0].refusal
            await carrier.socket.close(self.refusal)
        if carrier.replaced.is_set():
            await carrier.socket.close(REPLACED)
        return code

    def _lost(self, code: int) -> None:
        """Wait for the next socket, or end."""
        if self.over.is_set():
            return
        if code == RESTARTING.close_code:
            self.released = True  # This server ends; the page shows its ticket to the next one.
        keep_s = self.keep_s if code in _LOST else 0.0
        if code == _GOING_AWAY:
            keep_s = min(keep_s, LEAVING_S)
        ends = self._stopped or self.refusal is not None or self.end_requested.is_set()
        if keep_s and not ends:
            self._expiry = asyncio.get_running_loop().call_later(keep_s, self._end_signalling)
        else:
            self._end_signalling()

    def _end_signalling(self) -> None:
        if not self.over.is_set():
            self.over.set()
            self._inbox.put_nowait(None)

    def _deliver(self, message: Mapping[str, Json]) -> None:
        if message["type"] == TICKET:
            self.tickets.confirm()
            return
        if self._inbox.qsize() >= MAX_INBOX:
            raise RefusedError(TOO_FAST)
        self._inbox.put_nowait(message)
        if message["type"] == TEXT and self.keep_s and isinstance(message.get("text"), str):
            # What the person wrote is no event of the agent's, but belongs to the transcript.
            self._log.add({"type": WROTE, "text": message["text"]})
            self._news.set()
        if message["type"] == BYE:
            self._end_signalling()

    async def _write(self, carrier: _Carrier) -> None:
        while True:
            self._news.clear()
            while carrier.outbox:
                await carrier.socket.send(carrier.outbox.popleft())
            while carrier.received < self._log.last:
                for number, text in self._log.after(carrier.received):
                    carrier.received = number
                    await carrier.socket.send(text)
                    break
            if not self._news.is_set():
                await self._news.wait()

    def stop_keeping(self) -> None:
        """Wait no longer for a page that is away, now and later."""
        self._stopped = True
        if self._expiry is not None:
            self._expiry.cancel()
            self.released = True
            self._end_signalling()

    def end(self, reason: Refusal | None = None) -> None:
        """End the call from this side: `receive` returns None after the messages that wait.

        Args:
            reason: What the page gets; None is an ordinary end.
        """
        if not self.end_requested.is_set():
            self.end_reason = reason
            self.end_requested.set()
            self._inbox.put_nowait(None)

    async def warn(self, seconds: float) -> None:
        """Tell the page that the call ends in ``seconds``."""
        await self.send({"type": "ending", "seconds": round(seconds, 1)})

    async def receive(self) -> Mapping[str, Json] | None:
        """Return the page's next message, or None after the end of the signalling."""
        message = await self._inbox.get()
        if message is None:
            self._inbox.put_nowait(None)
        return message

    async def send(self, message: Mapping[str, Json]) -> None:
        """Send the page a message.

        Events wait for a page that is away, up to the limits of `EventLog`. Other messages are for
        the current socket, and are dropped without one.
        """
        carrier = self._carrier
        if message["type"] == EVENT and self.keep_s:
            self._log.add(message)
            self._news.set()
            return
        text = json.dumps(message, separators=(",", ":"))
        if message["type"] == AGENT:
            self._introduction = text
        if carrier is None:
            return
        if self.keep_s:
            carrier.outbox.append(text)
            self._news.set()
        else:
            await carrier.socket.send(text)

    async def close(self, refusal: Refusal | None = None) -> None:
        """Close the current socket, with the reason if there is one, and wait for no other one."""
        if self._expiry is not None:
            self._expiry.cancel()
        self.over.set()
        if self._carrier is not None:
            await self._carrier.socket.close(refusal)
