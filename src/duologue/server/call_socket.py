"""A WebSocket of a page: messages with limits on sizes, rates and times."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from duologue.errors import DuologueError
from duologue.json_types import Json, JsonObject
from duologue.rtc.call_request import CallRequest
from duologue.server._rate_limits import TokenBucket
from duologue.server.config import ServerConfig

_COST = {"offer": 10.0, "text": 5.0}
"""How many messages one of this type counts for in ``messages_per_s``, by the work that it causes.

A text counts for one more with every 100 characters, because the history keeps it.
"""

_MIN_BURST = 20.0
"""Messages that may always arrive at once, such as a hello and an offer."""

CLOSE_S = 0.5
"""Seconds that closing a socket may take."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call is refused or ended; sent to the page and in the close frame.

    Args:
        code: Short name of the reason.
        close_code: Close code of the WebSocket (RFC 6455, section 7.4; 4000 and above are ours).
        message: A sentence that a person can act on.
    """

    code: str
    close_code: int
    message: str


class RefusedError(DuologueError):
    """A call is refused, or can't continue."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


BAD_TOKEN = Refusal(
    "token", 4401, "This page needs the right token: open the whole address that was printed."
)
NO_HELLO = Refusal("hello", 4408, "The page did not introduce itself in time: reload it.")
BUSY = Refusal("busy", 1013, "Too many connections are waiting: try again in a moment.")
NO_OFFER = Refusal("offer", 4408, "The browser did not begin a call in time: try again.")
TOO_BIG = Refusal("too_big", 1009, "That message was too long for one piece.")
TOO_FAST = Refusal("too_fast", 4429, "The page sent too many messages at once: try again.")
NOT_JSON = Refusal("format", 1003, "The server did not understand the page: reload it.")
RESTARTING = Refusal(
    "restarting", 1012, "This server is restarting: the page calls again by itself."
)
"""Close code 1012, "service restart", makes the page call again without asking."""
GONE = Refusal("gone", 4410, "The call is over: press Talk to begin again.")
"""A ticket is wrong or has expired; the page may begin a new call."""
REPLACED = Refusal("replaced", 4409, "The call goes on in another window.")
"""Another socket has shown the newest ticket."""
LOADING = Refusal("loading", 1013, "This server is still loading: try again in a moment.")
FAILED = Refusal("failed", 1011, "Something failed on the server and the call ended: try again.")


class CallRefusedError(DuologueError):
    """Raise this to refuse a call; the page shows its text, which should be a sentence.

    A text over 120 bytes is shortened.
    """


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a page.

    Args:
        token: The token of the server; empty without one.
        ticket: The ticket of the call to take up; empty for a new call, and None if the client
            does not understand tickets.
        received: Number of the last event that the page has.
    """

    token: str = field(repr=False)
    ticket: str | None = field(repr=False)
    received: int


class CallSocket:
    """One accepted WebSocket of a page: messages, with limits on sizes, rates and times.

    Args:
        websocket: The socket.
        config: The limits.
    """

    def __init__(self, websocket: WebSocket, config: ServerConfig) -> None:
        self.request = call_request(websocket)
        self._websocket = websocket
        self._config = config
        now = asyncio.get_running_loop().time()
        self._budget = TokenBucket(config.messages_per_s, now, _MIN_BURST)
        self._closed = False
        self._close_code = 1006
        self._hello_timeout: asyncio.Timeout | None = None
        self._evicted = False

    @property
    def closed(self) -> bool:
        """Whether the socket has ended."""
        return self._closed

    async def receive_hello(self) -> Hello:
        """Receive the page's first message: ``{"type": "hello", "token", "ticket", "received"}``.

        Raises:
            RefusedError: It does not come in time, or not before `evict`, or is another message.
        """
        try:
            async with asyncio.timeout(self._config.hello_timeout_s) as self._hello_timeout:
                message = await self._receive_message()
        except TimeoutError:
            raise RefusedError(BUSY if self._evicted else NO_HELLO) from None
        if message is None or message["type"] != "hello":
            raise RefusedError(NO_HELLO)
        token, ticket = message.get("token"), message.get("ticket")
        received = message.get("received")
        return Hello(
            token if isinstance(token, str) else "",
            ticket if isinstance(ticket, str) else None,
            received if isinstance(received, int) else 0,
        )

    def evict(self) -> None:
        """Stop waiting for the hello, because another socket needs the place."""
        if self._hello_timeout is not None and not self._hello_timeout.expired():
            self._evicted = True
            self._hello_timeout.reschedule(0.0)

    async def read(
        self, deliver: Callable[[Mapping[str, Json]], None], *, offer_due: bool = False
    ) -> int:
        """Read messages until the socket ends; return its close code.

        Args:
            deliver: Called with each message; may raise `RefusedError`.
            offer_due: Whether the page must send an offer with a description in time.

        Raises:
            RefusedError: The page breaks a limit.
        """
        try:
            async with asyncio.timeout(
                self._config.offer_timeout_s if offer_due else None
            ) as deadline:
                while (message := await self._receive_message()) is not None:
                    if message["type"] == "offer" and isinstance(message.get("sdp"), str):
                        deadline.reschedule(None)
                    deliver(message)
        except TimeoutError:
            raise RefusedError(NO_OFFER) from None
        return self._close_code

    async def send(self, text: str) -> None:
        """Send the page a message; do nothing after the end of the socket."""
        if self._closed:
            return
        try:
            await self._websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            self._closed = True

    async def close(self, refusal: Refusal | None = None) -> None:
        """Close the socket within half a second, with the reason if there is one."""
        if self._closed or self._websocket.client_state is WebSocketState.DISCONNECTED:
            return
        try:
            async with asyncio.timeout(CLOSE_S):
                if refusal is None:
                    await self._websocket.close(1000)
                elif refusal.close_code == RESTARTING.close_code:
                    # Without an error message, the page calls again by itself.
                    await self._websocket.close(refusal.close_code, refusal.message)
                else:
                    reason = {"type": "error", "code": refusal.code, "message": refusal.message}
                    await self.send(json.dumps(reason))
                    await self._websocket.close(refusal.close_code, refusal.message)
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            pass  # The socket has ended already, or accepts nothing any more
        self._closed = True

    async def _receive_message(self) -> Mapping[str, Json] | None:
        event = await self._websocket.receive()
        if event["type"] == "websocket.disconnect":
            self._closed = True
            self._close_code = event.get("code") or 1006
            return None
        text = event.get("text")
        if not isinstance(text, str):
            raise RefusedError(NOT_JSON)
        if len(text) > self._config.max_message_bytes or (
            len(text.encode("utf-8", "surrogatepass")) > self._config.max_message_bytes
        ):
            raise RefusedError(TOO_BIG)
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise RefusedError(NOT_JSON) from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise RefusedError(NOT_JSON)
        cost = _COST.get(message["type"], 1.0)
        if isinstance(message.get("text"), str):
            cost += len(message["text"]) / 100
        if not self._budget.spend(asyncio.get_running_loop().time(), cost):
            raise RefusedError(TOO_FAST)
        return cast("JsonObject", message)


def call_request(connection: HTTPConnection) -> CallRequest:
    """Return what a program gets of the request that begins a call."""
    scope, client = connection.scope, connection.client
    headers: dict[str, str] = {}
    for name, value in connection.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return CallRequest(
        headers=headers,
        query=dict(connection.query_params),
        cookies=dict(connection.cookies),
        client=None if client is None else client.host.removeprefix("::ffff:"),
        user=scope.get("user"),
        session=scope.get("session") or {},
        state=scope.get("state") or {},
    )
