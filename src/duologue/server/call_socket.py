"""The WebSocket of one call: signalling with limits on sizes, rates and times."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import cast

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from duologue.errors import DuologueError
from duologue.json_types import Json, JsonObject
from duologue.rtc.call_request import CallRequest
from duologue.rtc.config import IceServer
from duologue.server._rate_limits import TokenBucket
from duologue.server.call_control import CallControl
from duologue.server.config import ServerConfig

_MAX_INBOX = 64
"""Most messages that may wait for the call; more mean that the call does not read, and it is
refused.
"""

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
LOADING = Refusal("loading", 1013, "This server is still loading: try again in a moment.")
FAILED = Refusal("failed", 1011, "Something failed on the server and the call ended: try again.")


class CallRefusedError(DuologueError):
    """Raise this to refuse a call; the page shows its text, which should be a sentence.

    A text over 120 bytes is shortened.
    """


class CallSocket:
    """The `Signalling` of one accepted WebSocket.

    The server runs `read` while the socket is open. `receive` returns the messages that it has
    read, in order, and None after the end. At most 64 messages wait; the call is refused if there
    are more.
    """

    def __init__(self, websocket: WebSocket, config: ServerConfig) -> None:
        self.request = _call_request(websocket)
        self.call_id = ""
        self.ice_servers: tuple[IceServer, ...] = ()
        self.control: CallControl | None = None
        self.after_call: Callable[[], Awaitable[None]] | None = None
        self.end_requested = asyncio.Event()
        """Set by `end`."""
        self.end_reason: Refusal | None = None
        """What `end` was given."""
        self._websocket = websocket
        self._config = config
        self._inbox: asyncio.Queue[Mapping[str, Json] | None] = asyncio.Queue(_MAX_INBOX + 2)
        now = asyncio.get_running_loop().time()
        self._budget = TokenBucket(config.messages_per_s, now, _MIN_BURST)
        self._closed = False
        self._hello_timeout: asyncio.Timeout | None = None
        self._evicted = False

    @property
    def closed(self) -> bool:
        """Whether the socket has ended."""
        return self._closed

    async def receive_hello(self) -> str:
        """Receive the page's first message, ``{"type": "hello", "token": ...}``, and return the
        token.

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
        token = message.get("token")
        return token if isinstance(token, str) else ""

    def evict(self) -> None:
        """Stop waiting for the hello, because another socket needs the place."""
        if self._hello_timeout is not None and not self._hello_timeout.expired():
            self._evicted = True
            self._hello_timeout.reschedule(0.0)

    async def read(self) -> None:
        """Read messages until the socket ends.

        The page has a limited time until it sends an offer with a description.

        Raises:
            RefusedError: The page breaks a limit.
        """
        try:
            async with asyncio.timeout(self._config.offer_timeout_s) as deadline:
                while (message := await self._receive_message()) is not None:
                    if message["type"] == "offer" and isinstance(message.get("sdp"), str):
                        deadline.reschedule(None)
                    if self._inbox.qsize() >= _MAX_INBOX:
                        raise RefusedError(TOO_FAST)
                    self._inbox.put_nowait(message)
        except TimeoutError:
            raise RefusedError(NO_OFFER) from None
        finally:
            self._inbox.put_nowait(None)

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
        """Return the page's next message, or None after the end of the socket."""
        message = await self._inbox.get()
        if message is None:
            self._inbox.put_nowait(None)
        return message

    async def send(self, message: Mapping[str, Json]) -> None:
        """Send the page a message; do nothing after the end of the socket."""
        if self._closed:
            return
        try:
            await self._websocket.send_text(json.dumps(message, separators=(",", ":")))
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
                elif refusal is RESTARTING:
                    # Without an error message, the page takes it for a lost connection.
                    await self._websocket.close(refusal.close_code, refusal.message)
                else:
                    reason: JsonObject = {"code": refusal.code, "message": refusal.message}
                    await self.send({"type": "error"} | reason)
                    await self._websocket.close(refusal.close_code, refusal.message)
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            pass  # The socket has ended already, or accepts nothing any more
        self._closed = True

    async def _receive_message(self) -> Mapping[str, Json] | None:
        event = await self._websocket.receive()
        if event["type"] == "websocket.disconnect":
            self._closed = True
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


def _call_request(websocket: WebSocket) -> CallRequest:
    scope = websocket.scope
    headers: dict[str, str] = {}
    for name, value in websocket.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return CallRequest(
        headers=headers,
        query=dict(websocket.query_params),
        cookies=dict(websocket.cookies),
        client=websocket.client.host if websocket.client is not None else None,
        user=scope.get("user"),
        session=scope.get("session") or {},
        state=scope.get("state") or {},
    )
