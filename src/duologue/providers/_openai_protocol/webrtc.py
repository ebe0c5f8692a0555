"""A wire over WebRTC: events on a data channel, audio by RTP, set up by one HTTP request."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from duologue._net import (
    host_and_port_of,
    hostname_of,
    is_loopback,
    proxy_error,
    redirect_error,
    unix_time,
)
from duologue._optional import optional
from duologue.audio import FRAME_MS, AudioFrame, Framer
from duologue.clock import Clock, LoopClock
from duologue.errors import ErrorKind, SessionError
from duologue.json_types import Json
from duologue.providers._openai_protocol.errors import http_error
from duologue.providers._trusted_certificates import trusted_certificates
from duologue.realtime.border import WireFacts
from duologue.realtime.stats import ConnectionStats
from duologue.rtc.config import IceServer, MessageTooLongError, PeerConfig, PeerError, PeerState
from duologue.video import VideoFrame

with optional("openai,webrtc"):
    import httpx
    import orjson

    from duologue.rtc.peer import Peer


if TYPE_CHECKING:
    from duologue.providers._openai_protocol.codec import Message

logger = logging.getLogger(__name__)

CHANNEL = "oai-events"
RATE = 24000
CONNECT_TIMEOUT_S = 10.0
"""Seconds that the request, and then the connection, may each take."""
MAX_UNSENT_BYTES = 64 * 1024
"""Bytes on the data channel above which the next message waits."""
MAX_QUEUED_FRAMES = 250
"""Maximum number of received frames that wait (5 s); beyond it the oldest is dropped."""
MAX_QUEUED_EVENTS = 4096
"""Maximum number of received events that wait; beyond it the connection fails, because none may be
lost.
"""
CATCH_UP_INTERVAL_S = 0.010
"""Seconds between two frames of 20 ms while a backlog is sent: twice real time."""
MAX_QUIET_FRAMES = 40
"""Number of silent frames (0.8 s) of a pause that are sent while a backlog waits: enough to end a
turn.
"""
MAX_AHEAD_S = 0.2
"""How many seconds audio may be ahead of real time, as large chunks are; more is a backlog."""
LOUD_LEVEL = 200

_MAX_MESSAGE_SIZE = re.compile(r"^a=max-message-size:(\d+)", re.MULTILINE)
MAX_MESSAGE_BYTES = 256 * 1024
"""Maximum bytes of a message if the peer accepts any size."""
_DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024
"""Maximum bytes of a message if the peer names no limit (RFC 8841)."""


class WebRTCWire:
    """One call: post the offer and ``session`` to ``url``, and apply the answer.

    Args:
        url: Address of the service's calls.
        headers: Headers of the request, or a coroutine function that returns them.
        session: The session object.
        video: Offer a track for our images.
        ice_servers: STUN and TURN servers.
        proxy: Address of an HTTP proxy for the request; None uses those of the environment, but not
            for this machine.
        ssl_context: Trusted certificates and our own; the system's if None.
        on_message_limit: Called with the maximum bytes of a message once the peer has answered.
        on_server_time: Called with the server's time in Unix seconds.
        clock: The clock.

    Attributes:
        dropped_frames: Received frames that were not read in time.
        dropped_images: Images that were too large for a message.
        skipped_frames: Silent frames that were left out to catch up.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | Callable[[], Awaitable[Mapping[str, str]]],
        session: Mapping[str, Json],
        video: bool = False,
        ice_servers: Sequence[IceServer] = (),
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        on_message_limit: Callable[[int], None] | None = None,
        on_server_time: Callable[[float], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._url = url
        self._on_message_limit = on_message_limit
        self._on_server_time = on_server_time
        self._host = hostname_of(url) or url
        self._shown_host = host_and_port_of(url) or url
        self._headers = headers
        self._proxy = proxy
        self._ssl_context = ssl_context
        self._session = session
        self._clock = clock or LoopClock()
        loopback = is_loopback(self._host)
        self._loopback = loopback
        self._config = PeerConfig(
            send_rate=RATE,
            receive_rate=RATE,
            send_video=video,
            channel=CHANNEL,
            loopback=loopback,
            ice_servers=tuple(ice_servers),
            connect_timeout=CONNECT_TIMEOUT_S,
            # The peer is checked once a second, so a dead connection is noticed within three.
            interrupted_after=1.5,
            failed_after=2.0,
        )
        self._peer: Peer | None = None
        self._inbox: deque[Message] = deque()
        self._queued_frames = 0
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._error: SessionError | None = None
        self._framer = Framer(RATE)
        self._next_frame_at = float("-inf")
        self._quiet_frames = 0
        self._ahead_s = 0.0
        self._last_frame_at = float("-inf")
        self.dropped_frames = 0
        self.dropped_images = 0
        self.skipped_frames = 0
        self.facts = WireFacts()

    def apply(self, facts: WireFacts) -> SessionError | None:
        """Learn facts; return the error that they mean, or None."""
        if facts.message_limit is not None:
            self.facts.message_limit = facts.message_limit
            if self._on_message_limit is not None:
                self._on_message_limit(facts.message_limit)
        if facts.server_time is not None:
            self.facts.server_time = facts.server_time
            if self._on_server_time is not None:
                self._on_server_time(facts.server_time)
        return None if facts.refused is None else http_error(*facts.refused)

    def stats(self) -> ConnectionStats:
        """Return the counters of this connection."""
        return ConnectionStats(
            dropped_images=self.dropped_images,
            dropped_reply_s=self.dropped_frames * FRAME_MS / 1000,
        )

    async def open(self) -> None:
        """Exchange offer and answer, and wait for the connection.

        Raises:
            SessionError: The request or the connection failed.
        """
        peer = self._peer = Peer(
            self._config,
            on_audio=self._audio_received,
            on_message=self._event_received,
            on_state=self._state_changed,
            clock=self._clock,
        )
        try:
            answer = await self._exchange_sdp(await peer.offer())
            await peer.answer(answer)
        except PeerError as error:
            raise self._connection_error(str(error)) from error
        self.apply(WireFacts(message_limit=_max_message_bytes(answer)))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._ready.wait()
                if self._error is None:
                    await peer.drain(MAX_UNSENT_BYTES)
        except TimeoutError:
            raise self._connection_error(f"no connection within {CONNECT_TIMEOUT_S:g} s") from None
        if self._error is not None:
            raise self._error

    async def send(self, message: Message) -> None:
        """Send an event once little is queued before it, or audio at up to twice real time."""
        peer = self._peer
        if peer is None:
            raise self._connection_error("the connection is closed")
        if isinstance(message, VideoFrame):
            peer.send_video(message)
            return
        if isinstance(message, AudioFrame):
            for samples in self._framer.push(message.samples):
                await self._send_frame(peer, AudioFrame(samples, RATE))
            return
        try:
            sent = await peer.drain(MAX_UNSENT_BYTES) and peer.send_message(message.decode())
        except MessageTooLongError as error:
            self._drop_message(message, str(error))
            return
        if not sent:
            raise self._error or self._connection_error("the data channel is closed")

    async def run(self, receive: Callable[[Message], None]) -> None:
        """Pass on each event until the stream ends, by an error."""
        while (message := await self.receive()) is not None:
            receive(message)

    async def receive(self) -> Message | None:
        """Return the next event or audio frame in order of arrival; never None."""
        while not self._inbox:
            if self._error is not None:
                raise self._error
            self._wake.clear()
            await self._wake.wait()
        message = self._inbox.popleft()
        self._queued_frames -= isinstance(message, AudioFrame)
        return message

    async def close(self) -> None:
        """Hang up within half a second."""
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()

    async def _exchange_sdp(self, offer: str) -> str:
        """Post the offer, and return the answer."""
        parts = {
            "sdp": (None, offer.encode(), "application/sdp"),
            "session": (None, orjson.dumps(self._session), "application/json"),
        }
        # Skip loading certificates only without TLS; schemes are case-insensitive (RFC 3986).
        trusted: ssl.SSLContext | bool = False
        if urlsplit(self._url).scheme != "http":
            trusted = self._ssl_context or await trusted_certificates(httpx.create_ssl_context)
        headers = await self._headers() if callable(self._headers) else self._headers
        try:
            client = httpx.AsyncClient(
                verify=trusted,
                proxy=self._proxy,
                timeout=CONNECT_TIMEOUT_S,
                trust_env=not self._loopback,
                follow_redirects=False,  # The key would be sent along.
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            # httpx reads the proxies of the environment; its message must not show a password.
            raise proxy_error(str(error), given=self._proxy is not None) from error
        try:
            async with client:
                response = await client.post(
                    self._url, files=parts, headers={"Accept": "application/sdp", **headers}
                )
        except httpx.TimeoutException:
            raise self._connection_error(f"no answer within {CONNECT_TIMEOUT_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._connection_error(str(error) or type(error).__name__) from error
        if response.is_redirect:
            location = response.headers.get("location", "")
            raise redirect_error(self._host, response.status_code, location)
        if response.status_code not in (200, 201):
            self.facts.refused = response.status_code, response.content
            raise http_error(*self.facts.refused)
        self.apply(WireFacts(server_time=unix_time(response.headers.get_list("date"))))
        return response.text

    async def _send_frame(self, peer: Peer, frame: AudioFrame) -> None:
        now = self._clock.now()
        samples = frame.samples
        quiet = int(samples.max()) <= LOUD_LEVEL and int(samples.min()) >= -LOUD_LEVEL
        self._quiet_frames = self._quiet_frames + 1 if quiet else 0
        self._ahead_s = max(0.0, self._ahead_s - (now - self._last_frame_at))
        self._last_frame_at = now
        if now < self._next_frame_at:
            # A backlog is waiting: audio that was kept while there was no connection.
            if self._quiet_frames > MAX_QUIET_FRAMES and self._ahead_s > MAX_AHEAD_S:
                self.skipped_frames += 1
                return
            await self._clock.sleep(self._next_frame_at - now)
        self._ahead_s += frame.duration
        self._next_frame_at = max(now, self._next_frame_at) + CATCH_UP_INTERVAL_S
        peer.send_audio(frame)

    def _drop_message(self, message: bytes, why: str) -> None:
        """Drop a message that is too long, and report it as the server would.

        Of images report only the first, because the next ones will be no smaller.
        """
        event = orjson.loads(message)
        if _is_image(event):
            self.dropped_images += 1
            if self.dropped_images > 1:
                return
        error = {
            "type": "message_too_long",
            "code": "message_too_long",
            "message": f"{event.get('type')} was not sent: {why}; a WebSocket takes more",
            "event_id": event.get("event_id"),
        }
        self._event_received(orjson.dumps({"type": "error", "error": error}).decode())

    def _event_received(self, text: str) -> None:
        if len(self._inbox) - self._queued_frames >= MAX_QUEUED_EVENTS:
            self._fail(self._connection_error("too many received events are waiting"))
            return
        self._inbox.append(text.encode())
        self._wake.set()

    def _audio_received(self, frame: AudioFrame) -> None:
        if self._queued_frames >= MAX_QUEUED_FRAMES:
            oldest = next(i for i, m in enumerate(self._inbox) if isinstance(m, AudioFrame))
            del self._inbox[oldest]
            self._queued_frames -= 1
            self.dropped_frames += 1
        self._inbox.append(frame)
        self._queued_frames += 1
        self._wake.set()

    def _state_changed(self, state: PeerState, reason: str) -> None:
        match state:
            case "connected":
                self._ready.set()
            case "failed":
                self._fail(self._connection_error(reason))
            case "closed":
                self._fail(self._connection_error("the connection was closed"))
            case "interrupted":
                logger.debug("the server does not respond; waiting for it")

    def _fail(self, error: SessionError) -> None:
        if self._error is None:
            self._error = error
        self._ready.set()
        self._wake.set()

    def _connection_error(self, why: str) -> SessionError:
        return SessionError(f"{self._shown_host}: {why}", code="connection", kind=ErrorKind.RECYCLE)


def _max_message_bytes(answer: str) -> int:
    """Return the maximum bytes of a message by an answer, in which 0 means any size."""
    match = _MAX_MESSAGE_SIZE.search(answer)
    return int(match[1]) or MAX_MESSAGE_BYTES if match else _DEFAULT_MAX_MESSAGE_BYTES


def _is_image(event: object) -> bool:
    match event:
        case {"item": {"content": [{"type": "input_image"}]}}:
            return True
        case _:
            return False
