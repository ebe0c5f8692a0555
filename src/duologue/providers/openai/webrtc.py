"""A wire over WebRTC: events on a data channel, sound by RTP, set up by one HTTP request."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from duologue.audio import AudioFrame, Framer
from duologue.clock import Clock, LoopClock
from duologue.extras import require
from duologue.items import Json
from duologue.providers.addresses import LOOPBACK, bad_proxy, redirected, unix_time
from duologue.providers.openai.errors import http_error
from duologue.realtime.errors import ErrorKind, SessionError
from duologue.rtc.config import (
    IceServer,
    MessageTooLongError,
    PeerConfig,
    PeerError,
    PeerState,
)
from duologue.video import VideoFrame

require("orjson", "openai")
require("httpx", "openai")
require("aiortc", "openai")

import httpx  # noqa: E402
import orjson  # noqa: E402

from duologue.rtc.peer import Peer  # noqa: E402

if TYPE_CHECKING:
    from duologue.providers.openai.codec import Message

logger = logging.getLogger(__name__)

CHANNEL = "oai-events"
RATE = 24000
CONNECT_S = 10.0
"""What the request, and then the connection, may each take."""
MOST_UNSENT = 64 * 1024
"""Bytes that may wait on the data channel before the next message does."""
MOST_SOUND = 250
"""Received frames that may wait, 5 s; beyond it the oldest is dropped."""
MOST_EVENTS = 4096
"""Received events that may wait; beyond it the connection fails, for none may be lost."""
CATCH_UP_S = 0.010
"""Time between two frames of 20 ms of which more wait: twice real time."""
PAUSE_FRAMES = 40
"""Frames of silence (0.8 s) that are sent of a pause while more waits: enough to end a turn."""
AHEAD_S = 0.2
"""Sound that may come before its time, as it does in large chunks; with more, much must wait."""
LOUD = 200

_LIMIT = re.compile(r"^a=max-message-size:(\d+)", re.MULTILINE)
MOST_MESSAGE = 256 * 1024
"""Bytes of a message where the far side takes any."""
_USUAL_LIMIT = 64 * 1024
"""Bytes of a message that a far side takes which names no limit (RFC 8841)."""

_contexts: list[ssl.SSLContext] = []


class WebRTCWire:
    """One call: ``session`` goes to ``url`` with our offer, and the answer comes back.

    With ``video`` it offers a track for our pictures. ``on_limit`` is told how many bytes a message
    may have, once the far side has answered, ``on_time`` gets the server's time in Unix seconds.

    ``dropped_sound`` counts received frames that nobody took in time, ``dropped_pictures`` those
    that are longer than a message may be, ``skipped`` frames of silence left out to catch up.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        session: Mapping[str, Json],
        video: bool = False,
        ice_servers: Sequence[IceServer] = (),
        on_limit: Callable[[int], None] | None = None,
        on_time: Callable[[float], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._url = url
        self._on_limit = on_limit
        self._on_time = on_time
        self._host = urlsplit(url).hostname or url
        self._headers = {"Accept": "application/sdp", **headers}
        self._session = session
        self._clock = clock or LoopClock()
        loopback = self._host in LOOPBACK
        self._loopback = loopback
        self._config = PeerConfig(
            send_rate=RATE,
            receive_rate=RATE,
            send_video=video,
            channel=CHANNEL,
            loopback=loopback,
            ice_servers=tuple(ice_servers),
            connect_timeout=CONNECT_S,
            # Asked once a second, a dead line is then known to be one within three.
            interrupted_after=1.5,
            failed_after=2.0,
        )
        self._peer: Peer | None = None
        self._inbox: deque[Message] = deque()
        self._sounds = 0
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._error: SessionError | None = None
        self._framer = Framer(RATE)
        self._next_at = float("-inf")
        self._quiet = 0
        self._ahead_s = 0.0
        self._last_at = float("-inf")
        self.dropped_sound = 0
        self.dropped_pictures = 0
        self.skipped = 0

    async def open(self) -> None:
        """Offer, ask, and wait for the connection; raises `SessionError`."""
        peer = self._peer = Peer(
            self._config,
            on_audio=self._take_sound,
            on_message=self._take_event,
            on_state=self._take_state,
            clock=self._clock,
        )
        try:
            answer = await self._ask(await peer.offer())
            await peer.answer(answer)
        except PeerError as error:
            raise self._lost(str(error)) from error
        if self._on_limit is not None:
            self._on_limit(_limit_of(answer))
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._settled.wait()
                if self._error is None:
                    await peer.drain(MOST_UNSENT)
        except TimeoutError:
            raise self._lost(f"no connection within {CONNECT_S:g} s") from None
        if self._error is not None:
            raise self._error

    async def send(self, message: Message) -> None:
        """Send an event, once little waits before it, or sound, at most at twice its pace."""
        peer = self._peer
        if peer is None:
            raise self._lost("the connection is closed")
        if isinstance(message, VideoFrame):
            peer.send_picture(message)
            return
        if isinstance(message, AudioFrame):
            for samples in self._framer.push(message.samples):
                await self._send_frame(peer, AudioFrame(samples, RATE))
            return
        try:
            sent = await peer.drain(MOST_UNSENT) and peer.send_message(message.decode())
        except MessageTooLongError as error:
            self._drop(message, str(error))
            return
        if not sent:
            raise self._error or self._lost("the data channel is closed")

    async def receive(self) -> Message | None:
        """The next event or piece of sound, in the order they came; never None."""
        while not self._inbox:
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        message = self._inbox.popleft()
        self._sounds -= isinstance(message, AudioFrame)
        return message

    async def close(self) -> None:
        """Hang up, in less than half a second."""
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()

    async def _ask(self, offer: str) -> str:
        """Send the offer, and return the answer."""
        parts = {
            "sdp": (None, offer.encode(), "application/sdp"),
            "session": (None, orjson.dumps(self._session), "application/json"),
        }
        # Only where there surely is no TLS is nothing looked up; schemes have no case (RFC 3986).
        trusted = False if urlsplit(self._url).scheme == "http" else await _trusted()
        try:
            client = httpx.AsyncClient(
                verify=trusted,
                timeout=CONNECT_S,
                trust_env=not self._loopback,
                follow_redirects=False,  # The key would be sent along.
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            # httpx reads the proxies of the environment; the message must not show a password.
            raise bad_proxy(str(error)) from error
        try:
            async with client:
                response = await client.post(self._url, files=parts, headers=self._headers)
        except httpx.TimeoutException:
            raise self._lost(f"no answer within {CONNECT_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._lost(str(error) or type(error).__name__) from error
        if response.is_redirect:
            location = response.headers.get("location", "")
            raise redirected(self._host, response.status_code, location)
        if response.status_code not in (200, 201):
            raise http_error(response.status_code, response.content)
        told = unix_time(response.headers.get_list("date"))
        if self._on_time is not None and told is not None:
            self._on_time(told)
        return response.text

    async def _send_frame(self, peer: Peer, frame: AudioFrame) -> None:
        now = self._clock.now()
        samples = frame.samples
        quiet = int(samples.max()) <= LOUD and int(samples.min()) >= -LOUD
        self._quiet = self._quiet + 1 if quiet else 0
        self._ahead_s = max(0.0, self._ahead_s - (now - self._last_at))
        self._last_at = now
        if now < self._next_at:
            # More waits than is spoken: sound that was kept while there was no connection.
            if self._quiet > PAUSE_FRAMES and self._ahead_s > AHEAD_S:
                self.skipped += 1
                return
            await self._clock.sleep(self._next_at - now)
        self._ahead_s += frame.duration
        self._next_at = max(now, self._next_at) + CATCH_UP_S
        peer.send_audio(frame)

    def _drop(self, message: bytes, why: str) -> None:
        """Leave out a message that is too long, and tell it as the server would.

        Of pictures only the first: the next ones will be no shorter.
        """
        event = orjson.loads(message)
        if _is_picture(event):
            self.dropped_pictures += 1
            if self.dropped_pictures > 1:
                return
        error = {
            "type": "message_too_long",
            "code": "message_too_long",
            "message": f"{event.get('type')} was not sent: {why}; a WebSocket takes more",
            "event_id": event.get("event_id"),
        }
        self._take_event(orjson.dumps({"type": "error", "error": error}).decode())

    def _take_event(self, text: str) -> None:
        if len(self._inbox) - self._sounds >= MOST_EVENTS:
            self._fail(self._lost("more events came than could be taken"))
            return
        self._inbox.append(text.encode())
        self._wake.set()

    def _take_sound(self, frame: AudioFrame) -> None:
        if self._sounds >= MOST_SOUND:
            oldest = next(i for i, m in enumerate(self._inbox) if isinstance(m, AudioFrame))
            del self._inbox[oldest]
            self._sounds -= 1
            self.dropped_sound += 1
        self._inbox.append(frame)
        self._sounds += 1
        self._wake.set()

    def _take_state(self, state: PeerState, reason: str) -> None:
        match state:
            case "connected":
                self._settled.set()
            case "failed":
                self._fail(self._lost(reason))
            case "closed":
                self._fail(self._lost("the connection was closed"))
            case "interrupted":
                logger.debug("nothing is heard of the server; waiting for it")

    def _fail(self, error: SessionError) -> None:
        if self._error is None:
            self._error = error
        self._settled.set()
        self._wake.set()

    def _lost(self, why: str) -> SessionError:
        return SessionError(f"{self._host}: {why}", code="connection", kind=ErrorKind.RECYCLE)


async def _trusted() -> ssl.SSLContext:
    """Whom TLS trusts: read once, in a thread, for it takes more than 20 ms."""
    return _contexts[0] if _contexts else await asyncio.to_thread(_read_trusted)


def _read_trusted() -> ssl.SSLContext:
    _contexts[:] = [httpx.create_ssl_context()]
    return _contexts[0]


def _limit_of(answer: str) -> int:
    """Bytes that a message may have by an answer, in which 0 is any number."""
    found = _LIMIT.search(answer)
    return int(found[1]) or MOST_MESSAGE if found else _USUAL_LIMIT


def _is_picture(event: object) -> bool:
    match event:
        case {"item": {"content": [{"type": "input_image"}]}}:
            return True
        case _:
            return False
