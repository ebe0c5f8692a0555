"""Connect a person at a browser over WebRTC; any channel of messages can carry the signalling."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from duologue._optional import optional
from duologue.audio import FRAME_MS, AudioFrame
from duologue.clock import Clock, LoopClock
from duologue.edges.protocol import AgentInput, EdgeStats
from duologue.errors import ConfigError
from duologue.json_types import Json
from duologue.quality import Quality
from duologue.rtc.call_request import CallRequest as CallRequest

# The page needs more than a call does, so the error names the extra that contains both.
with optional("browser"):
    from duologue.rtc.audio_path import FRAME_TICKS
    from duologue.rtc.config import RATES, Application, IceServer, PeerConfig, PeerError, PeerState
    from duologue.rtc.peer import Peer
    from duologue.rtc.signalling import (
        AGENT,
        ANSWER,
        BYE,
        CHANNEL,
        ERROR,
        EVENT,
        MUTE,
        OFFER,
        PLAYED,
        TEXT,
        Signalling,
    )


if TYPE_CHECKING:
    from duologue.edges.browser import Edge as Edge

logger = logging.getLogger(__name__)

MAX_WAITING_EVENTS = 256
"""Most events that may wait for the page; the oldest is dropped and counted."""

MAX_TEXT_CHARS = 4000
"""Longest text message that the agent accepts from the page, in characters."""

UNCONFIRMED_AFTER = 3.0
"""Seconds of a connection without a report of played audio after which it is estimated."""

_ERROR_TIMEOUT = 0.2
"""Seconds that sending the reason of a failure to the page may take."""

_MAX_REPORT_AGE = 30 * 48000
"""Oldest timestamp that a report may name, in 48 kHz samples before the last frame: 30 s."""


class PlayedCounter:
    """Converts the RTP timestamp that a page played last into a number of sent samples.

    The count survives the wrap of timestamps, never decreases, and never exceeds what was sent. The
    frame that is being played counts up to its start.

    Args:
        frame_samples: Samples of one frame.
    """

    __slots__ = ("frame_samples", "ignored", "samples")

    def __init__(self, frame_samples: int) -> None:
        self.frame_samples = frame_samples
        self.samples = 0
        """Samples played so far."""
        self.ignored = 0
        """Reports that could not be true."""

    def update(self, rtp: int, next_rtp: int, frames: int) -> bool:
        """Process a report; return True if ``samples`` has grown.

        Args:
            rtp: Timestamp that the page has played last, 32 bits.
            next_rtp: Timestamp of the frame after the last sent one, 32 bits.
            frames: Frames sent so far.
        """
        behind = (next_rtp - rtp) & 0xFFFFFFFF
        back = -(-behind // FRAME_TICKS)
        if not 0 < behind <= _MAX_REPORT_AGE or back > frames:
            self.ignored += 1
            return False
        samples = (frames - back) * self.frame_samples
        if samples <= self.samples:
            return False
        self.samples = samples
        return True


class CallEdge:
    """One call from a page.

    ``mute`` from the page replaces the person's audio by silence.

    Args:
        signalling: Carries the messages of the call, beginning with the page's offer.
        rate: Rate in Hz of the frames that `play` accepts.
        receive_rate: Rate in Hz of the person's audio; by default the same as ``rate``.
        ice_servers: STUN and TURN servers.
        video: Accept the page's camera.
        loopback: Offer 127.0.0.1 as an address; use it if the page is on this machine.
        udp_ports: First and last local UDP port; None is any.
        public_addresses: Addresses by which this machine is reached from outside; see `PeerConfig`.
        application: Opus mode; see `PeerConfig`.
        request: The HTTP request that began the call.
        session_id: Id of the conversation, by which a store may keep it.
        resumed: Whether another process had the conversation before.
        keep_s: Seconds that the call waits for a page that has lost its network; 0 ends it.
        offer_timeout: Seconds in which the page must send its offer.
        connect_timeout: Seconds in which the connection must be established.
        clock: Clock of the call; by default that of the event loop.

    Raises:
        ConfigError: Opus does not support the rate.
    """

    def __init__(
        self,
        signalling: Signalling,
        *,
        rate: int = 24000,
        receive_rate: int | None = None,
        ice_servers: Sequence[IceServer] = (),
        video: bool = True,
        loopback: bool = False,
        udp_ports: tuple[int, int] | None = None,
        public_addresses: Sequence[str] = (),
        application: Application = "voip",
        request: CallRequest | None = None,
        session_id: str = "",
        resumed: bool = False,
        keep_s: float = 0.0,
        offer_timeout: float = 10.0,
        connect_timeout: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        if rate not in RATES:
            raise ConfigError(f"rate must be {', '.join(map(str, RATES))} Hz, not {rate}")
        self.request = request if request is not None else CallRequest()
        """The request that began the call: headers, query, cookies, and the user of the web app."""
        self.session_id = session_id
        """Id of the conversation; it stays the same in another process that takes it up."""
        self.resumed = resumed
        """Whether another process had the conversation before; a store may have its history."""
        self._keep_s = keep_s
        self._signalling = signalling
        self._clock = clock if clock is not None else LoopClock()
        self._config = PeerConfig(
            send_rate=rate,
            receive_rate=receive_rate if receive_rate is not None else rate,
            application=application,
            video=video,
            channel=CHANNEL,
            ice_servers=tuple(ice_servers),
            loopback=loopback,
            udp_ports=udp_ports,
            public_addresses=tuple(public_addresses),
            connect_timeout=connect_timeout,
        )
        self._offer_timeout = offer_timeout
        self._peer: Peer | None = None
        self._agent: AgentInput | None = None
        self._on_ready: Callable[[], None] | None = None
        self._failure: str | None = None
        self._ended = asyncio.Event()
        self._connected_at: float | None = None
        self._muted = False
        self._silence = AudioFrame(np.zeros(0, np.int16), self._config.receive_rate)
        self._frames_before_peer = 0
        self._played_counter = PlayedCounter(rate * FRAME_MS // 1000)
        self._has_report = False
        self._events: deque[Mapping[str, Json]] = deque()
        self._events_waiting = asyncio.Event()
        self.events_dropped = 0
        """Events dropped because the page did not read fast enough."""

    def __repr__(self) -> str:
        return f"<CallEdge {self.state} {self._config.send_rate} Hz>"

    @property
    def output_rate(self) -> int:
        """Rate in Hz of the frames that `play` accepts."""
        return self._config.send_rate

    @property
    def quality(self) -> Quality:
        """``confirmed`` if the page reports what it has played; see `UNCONFIRMED_AFTER`."""
        since = self._connected_at
        if self._has_report or since is None or self._clock.now() - since < UNCONFIRMED_AFTER:
            return "confirmed"
        return "estimated"

    @property
    def lead_ms(self) -> int:
        """0, because each frame is sent when `play` is called."""
        return 0

    @property
    def latency_ms(self) -> float:
        """60 ms from `play` to the ear: look-ahead, the browser's jitter buffer and its device."""
        return 60.0

    @property
    def state(self) -> PeerState:
        """State of the WebRTC connection."""
        return self._peer.state if self._peer is not None else "new"

    @property
    def counters(self) -> dict[str, int]:
        """Counters of packets, video frames, messages, reports and events."""
        own = {
            "reports_ignored": self._played_counter.ignored,
            "events_dropped": self.events_dropped,
        }
        return own if self._peer is None else {**self._peer.counters, **own}

    def stats(self) -> EdgeStats:
        """Return the counters that `Agent.stats` includes; `counters` has more."""
        counters = self.counters
        return EdgeStats(
            lost_packets=counters.get("lost", 0),
            dropped_video_packets=counters.get("video_dropped", 0),
            dropped_messages=counters.get("messages_dropped", 0),
            dropped_events=self.events_dropped,
        )

    async def run(self, agent: AgentInput, ready: Callable[[], None]) -> None:
        """Answer the page's offer and carry the call until the page or its signalling ends.

        Raises:
            PeerError: No connection could be established, or it was lost. The page gets the reason
                first.
        """
        if self._peer is not None:
            raise ConfigError("a call runs once: make a new CallEdge for the next page")
        self._agent = agent
        self._on_ready = ready
        if not agent.wants_video:
            # Don't even decode video that is not used.
            self._config = replace(self._config, video=False)
        peer = self._peer = Peer(
            self._config,
            on_audio=self._receive_audio,
            on_video=agent.push_video if self._config.video else None,
            on_message=self._handle_channel_message,
            on_state=self._state_changed,
            clock=self._clock,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read_signalling(peer, agent))
                writing = tasks.create_task(self._send_events())
                await self._ended.wait()
                reading.cancel()
                writing.cancel()
            if self._failure is not None:
                async with asyncio.timeout(_ERROR_TIMEOUT):
                    await self._send_error("call_failed", self._failure)
        except TimeoutError:
            logger.info("the page did not accept the reason of its failed call in time")
        finally:
            await peer.close()
        if self._failure is not None:
            raise PeerError(self._failure)

    async def introduce(self, name: str) -> None:
        """Send the agent's name, which the page shows beside its words."""
        await self._signalling.send({"type": AGENT, "name": name})

    def play(self, frame: AudioFrame | None) -> None:
        """Send the next 20 ms at once; None is silence.

        Raises:
            ValueError: The frame has another rate or another length than 20 ms.
        """
        if self._peer is None:
            self._frames_before_peer += 1
            return
        self._peer.send_audio(frame)

    def clear(self) -> None:
        """Drop audio that was accepted and not sent: the encoder's look-ahead of 6.5 ms."""
        if self._peer is not None:
            self._peer.flush()

    def send_event(self, event: Mapping[str, Json]) -> None:
        """Send the page an event; if `MAX_WAITING_EVENTS` wait already, drop the oldest."""
        if len(self._events) >= MAX_WAITING_EVENTS:
            self._events.popleft()
            self.events_dropped += 1
        self._events.append(event)
        self._events_waiting.set()

    def _end(self, failure: str | None = None) -> None:
        if self._failure is None and not self._ended.is_set():
            self._failure = failure
        self._ended.set()

    async def _read_signalling(self, peer: Peer, agent: AgentInput) -> None:
        try:
            async with asyncio.timeout(self._offer_timeout) as limit:
                while (message := await self._signalling.receive()) is not None:
                    if message.get("type") == BYE:
                        break
                    await self._handle_message(message, peer, agent)
                    if peer.state != "new":
                        limit.reschedule(None)
            self._end()
        except TimeoutError:
            self._end(f"the page made no offer within {self._offer_timeout:g} s")
        except PeerError as error:
            self._end(str(error))

    async def _handle_message(
        self, message: Mapping[str, Json], peer: Peer, agent: AgentInput
    ) -> None:
        match message:
            case {"type": "offer", "sdp": str(sdp)}:
                answer = await peer.accept(sdp)
                await self._signalling.send({"type": ANSWER, "sdp": answer})
            case {"type": "text", "text": str(text)} if 0 < len(text) <= MAX_TEXT_CHARS:
                agent.push_text(text)
            case {"type": "mute", "muted": bool(muted)}:
                self._muted = muted
            case {"type": str(kind)} if kind in (OFFER, TEXT, MUTE):
                limit = f" of 1 to {MAX_TEXT_CHARS} characters" if kind == TEXT else ""
                await self._send_error("bad_message", f"a {kind} message lacks its value{limit}")
            case _:
                await self._send_error("bad_message", "unknown type of message")

    async def _send_events(self) -> None:
        while True:
            await self._events_waiting.wait()
            self._events_waiting.clear()
            while self._events:
                await self._signalling.send({"type": EVENT, "event": dict(self._events.popleft())})

    async def _send_error(self, code: str, message: str) -> None:
        await self._signalling.send({"type": ERROR, "code": code, "message": message})

    def _state_changed(self, state: PeerState, reason: str) -> None:
        match state:
            case "connected":
                ready, self._on_ready = self._on_ready, None
                if ready is not None:
                    self._connected_at = self._clock.now()
                    ready()
            case "failed":
                self._end(reason)
            case "closed":
                self._end()
            case _:
                pass

    def _receive_audio(self, frame: AudioFrame) -> None:
        if self._agent is None:
            return
        if self._muted:
            if len(self._silence) != len(frame):
                self._silence = AudioFrame(np.zeros(len(frame), np.int16), frame.rate)
            frame = self._silence
        self._agent.push_audio(frame)

    def _handle_channel_message(self, text: str) -> None:
        peer, agent = self._peer, self._agent
        if peer is None or agent is None or len(text) > 1000:
            return
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            self._played_counter.ignored += 1
            return
        match message:
            case {"type": kind, "rtp": int(rtp)} if kind == PLAYED and 0 <= rtp <= 0xFFFFFFFF:
                if self._played_counter.update(rtp, peer.timestamp, peer.frames):
                    self._has_report = True
                    agent.report_played(
                        self._played_counter.samples
                        + self._frames_before_peer * self._played_counter.frame_samples
                    )
            case _:
                self._played_counter.ignored += 1
