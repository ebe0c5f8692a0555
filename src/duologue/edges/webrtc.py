"""Connect a person at a browser over WebRTC; any channel of messages can carry the signalling.

A call outlives its network if it is kept (``keep_s``). WebRTC can restart ICE within one
connection; aiortc can't, and a page that was loaded again has no connection any more. So the page
makes an offer of a new connection (``restart``), and the call moves to it:

    path 1  ====================X  silent for 0.6 s: the agent pauses
    path 2              offer ......answer ...connected ===================
    agent   plays on path 1     |  paused, speaks and hears nothing  | goes on, on path 2

While no audio of the person arrives, the agent's audio is held back, and what went out and was not
reported as played is taken back, so that nothing that went into a dead connection counts as heard,
and nothing is lost. The earlier path stays until the next one is connected.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from duologue._optional import optional
from duologue.audio import FRAME_MS, AudioFrame
from duologue.clock import Clock, LoopClock, Timer
from duologue.edges.protocol import AgentInput, EdgeStats
from duologue.errors import ConfigError
from duologue.json_types import Json
from duologue.quality import Quality
from duologue.rtc.call_request import CallRequest as CallRequest
from duologue.video import VideoFrame

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

SILENT_AFTER = 0.6
"""Seconds without a packet of the person's audio after which the agent pauses, if the call is
kept; a page sends packets also while it is muted."""

RESUME_AFTER = 1.0
"""Seconds after which the agent goes on over a new connection that brings no audio."""

MIN_RESTART_INTERVAL = 0.4
"""Seconds that must be between two new connections of one call."""

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


class _MediaPath:
    """One WebRTC connection of a call.

    Attributes:
        frames_before: Frames that the edge was given before the first one of this connection.
        played: Counts what the page has played of this connection.
        connected_at: When it was connected; None before.
        has_report: Whether the page has reported what it has played.
    """

    def __init__(
        self,
        config: PeerConfig,
        frame_samples: int,
        *,
        on_audio: Callable[[AudioFrame], None],
        on_video: Callable[[Callable[[], VideoFrame]], None] | None,
        on_message: Callable[[_MediaPath, str], None],
        on_state: Callable[[_MediaPath, PeerState, str], None],
        clock: Clock,
    ) -> None:
        self.played = PlayedCounter(frame_samples)
        self.frames_before = 0
        self.connected_at: float | None = None
        self.has_report = False
        self.patience: Timer | None = None
        self.peer = Peer(
            config,
            on_audio=on_audio,
            on_video=on_video,
            on_message=lambda text: on_message(self, text),
            on_state=lambda state, reason: on_state(self, state, reason),
            clock=clock,
        )

    async def close(self) -> None:
        """Close the connection."""
        if self.patience is not None:
            self.patience.cancel()
        await self.peer.close()

    def silent_s(self, now: float) -> float:
        """Return the seconds since the last packet of audio; 0 before the first."""
        last = self.peer.last_packet_at
        return 0.0 if last == float("-inf") else now - last


class CallEdge:
    """One call from a page.

    ``mute`` from the page replaces the person's audio by silence.

    Args:
        signalling: Carries the messages of the call, beginning with the page's offer.
        rate: Rate in Hz of the frames that `play` accepts.
        receive_rate: Rate in Hz of the person's audio; by default the same as ``rate``.
        ice_servers: STUN and TURN servers; a function is called for each connection of the call,
            because credentials may have expired.
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
        ice_servers: Sequence[IceServer] | Callable[[], Sequence[IceServer]] = (),
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
        self._ice_servers = ice_servers
        self._signalling = signalling
        self._clock = clock if clock is not None else LoopClock()
        self._config = PeerConfig(
            send_rate=rate,
            receive_rate=receive_rate if receive_rate is not None else rate,
            application=application,
            video=video,
            channel=CHANNEL,
            loopback=loopback,
            udp_ports=udp_ports,
            public_addresses=tuple(public_addresses),
            connect_timeout=connect_timeout,
        )
        self._offer_timeout = offer_timeout
        self._path: _MediaPath | None = None
        self._next_path: _MediaPath | None = None
        self._restarted_at = float("-inf")
        self._tasks: asyncio.TaskGroup | None = None
        self._suspended = False
        self._expiry: Timer | None = None
        self._agent: AgentInput | None = None
        self._on_ready: Callable[[], None] | None = None
        self._failure: str | None = None
        self._ended = asyncio.Event()
        self._muted = False
        self._silence = AudioFrame(np.zeros(0, np.int16), self._config.receive_rate)
        self._frames = 0
        self._frame_samples = rate * FRAME_MS // 1000
        self._earlier_counters: Counter[str] = Counter()
        self._events: deque[Mapping[str, Json]] = deque()
        self._events_waiting = asyncio.Event()
        self.events_dropped = 0
        """Events dropped because the page did not read fast enough."""
        self.restarts = 0
        """How often the call has moved to another connection."""

    def __repr__(self) -> str:
        return f"<CallEdge {self.state} {self._config.send_rate} Hz>"

    @property
    def output_rate(self) -> int:
        """Rate in Hz of the frames that `play` accepts."""
        return self._config.send_rate

    @property
    def quality(self) -> Quality:
        """``confirmed`` if the page reports what it has played; see `UNCONFIRMED_AFTER`."""
        path = self._path
        if path is None or path.connected_at is None or path.has_report:
            return "confirmed"
        unconfirmed_s = self._clock.now() - path.connected_at
        return "confirmed" if unconfirmed_s < UNCONFIRMED_AFTER else "estimated"

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
        """State of the WebRTC connection; ``interrupted`` while the page is away."""
        if self._path is None:
            return "new"
        state = self._path.peer.state
        lost = self._suspended or state in ("failed", "closed")
        return "interrupted" if lost and self._keep_s and not self._ended.is_set() else state

    @property
    def counters(self) -> dict[str, int]:
        """Counters of packets, video frames, messages, reports and events."""
        counted = Counter(self._earlier_counters)
        if self._path is not None:
            counted.update(self._path.peer.counters)
            counted["reports_ignored"] += self._path.played.ignored
        return {
            **counted,
            "reports_ignored": counted["reports_ignored"],
            "events_dropped": self.events_dropped,
            "restarts": self.restarts,
        }

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
        if self._path is not None:
            raise ConfigError("a call runs once: make a new CallEdge for the next page")
        self._agent = agent
        self._on_ready = ready
        if not agent.wants_video:
            # Don't even decode video that is not used.
            self._config = replace(self._config, video=False)
        self._path = self._new_path(agent)
        self._path.frames_before = self._frames
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                reading = tasks.create_task(self._read_signalling(agent))
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
            self._ended.set()
            if self._expiry is not None:
                self._expiry.cancel()
            next_path, self._next_path = self._next_path, None
            async with asyncio.TaskGroup() as closing:
                for path in (self._path, next_path):
                    if path is not None:
                        closing.create_task(path.close())
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
        self._frames += 1
        path = self._path
        if path is None:
            return
        path.peer.send_audio(frame)
        if self._keep_s and not self._suspended and path.silent_s(self._clock.now()) > SILENT_AFTER:
            self._suspend()

    def clear(self) -> None:
        """Drop audio that was accepted and not sent: the encoder's look-ahead of 6.5 ms."""
        if self._path is not None:
            self._path.peer.flush()

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

    def _new_path(self, agent: AgentInput) -> _MediaPath:
        path: _MediaPath

        def on_audio(frame: AudioFrame) -> None:
            self._receive_audio(path, frame)

        servers = self._ice_servers() if callable(self._ice_servers) else self._ice_servers
        path = _MediaPath(
            replace(self._config, ice_servers=tuple(servers)),
            self._frame_samples,
            on_audio=on_audio,
            on_video=agent.push_video if self._config.video else None,
            on_message=self._handle_channel_message,
            on_state=self._state_changed,
            clock=self._clock,
        )
        return path

    async def _read_signalling(self, agent: AgentInput) -> None:
        try:
            async with asyncio.timeout(self._offer_timeout) as limit:
                while (message := await self._signalling.receive()) is not None:
                    if message.get("type") == BYE:
                        break
                    await self._handle_message(message, agent)
                    if self._path is not None and self._path.peer.state != "new":
                        limit.reschedule(None)
            self._end()
        except TimeoutError:
            self._end(f"the page made no offer within {self._offer_timeout:g} s")
        except PeerError as error:
            self._end(str(error))

    async def _handle_message(self, message: Mapping[str, Json], agent: AgentInput) -> None:
        match message:
            case {"type": "offer", "sdp": str(sdp)}:
                await self._accept_offer(sdp, message, agent)
            case {"type": "text", "text": str(text)} if 0 < len(text) <= MAX_TEXT_CHARS:
                agent.push_text(text)
            case {"type": "mute", "muted": bool(muted)}:
                self._muted = muted
            case {"type": str(kind)} if kind in (OFFER, TEXT, MUTE):
                limit = f" of 1 to {MAX_TEXT_CHARS} characters" if kind == TEXT else ""
                await self._send_error("bad_message", f"a {kind} message lacks its value{limit}")
            case _:
                await self._send_error("bad_message", "unknown type of message")

    async def _accept_offer(self, sdp: str, message: Mapping[str, Json], agent: AgentInput) -> None:
        path = self._path
        if path is None:
            return
        if path.peer.state == "new" or not self._keep_s or message.get("restart") is not True:
            answer = await path.peer.accept(sdp)
        else:
            now = self._clock.now()
            if now - self._restarted_at < MIN_RESTART_INTERVAL:
                await self._send_error("bad_message", "too many offers: wait before the next one")
                return
            self._restarted_at = now
            self._drop_next_path()
            path = self._next_path = self._new_path(agent)
            try:
                answer = await path.peer.accept(sdp)
            except PeerError as error:
                self._drop_next_path()
                await self._send_error("bad_message", str(error))
                return
        reply: dict[str, Json] = {"type": ANSWER, "sdp": answer}
        if isinstance(message.get("id"), int):
            reply["id"] = message["id"]
        await self._signalling.send(reply)

    def _drop_next_path(self) -> None:
        path, self._next_path = self._next_path, None
        if path is not None:
            self._close_path(path)

    def _close_path(self, path: _MediaPath) -> None:
        if self._tasks is not None:
            self._tasks.create_task(path.close(), name="close connection")

    def _move_to(self, path: _MediaPath) -> None:
        """Carry the call over the next connection from now on."""
        earlier, self._path, self._next_path = self._path, path, None
        path.frames_before = self._frames
        self.restarts += 1
        self._suspend()
        if earlier is not None:
            self._earlier_counters.update(earlier.peer.counters)
            self._earlier_counters["reports_ignored"] += earlier.played.ignored
            self._close_path(earlier)

    def _suspend(self) -> None:
        """Let the agent pause, because the person does not hear it."""
        if self._suspended or self._agent is None:
            return
        self._suspended = True
        now = self._clock.now()
        self._expiry = self._clock.call_at(now + self._keep_s, self._expired)
        self._agent.connection_lost()

    def _restore(self) -> None:
        """Let the agent go on."""
        if not self._suspended or self._agent is None:
            return
        self._suspended = False
        if self._expiry is not None:
            self._expiry.cancel()
        self._agent.connection_restored()

    def _expired(self) -> None:
        self._end(f"the connection was lost, and did not come back within {self._keep_s:g} s")

    async def _send_events(self) -> None:
        while True:
            await self._events_waiting.wait()
            self._events_waiting.clear()
            while self._events:
                await self._signalling.send({"type": EVENT, "event": dict(self._events.popleft())})

    async def _send_error(self, code: str, message: str) -> None:
        await self._signalling.send({"type": ERROR, "code": code, "message": message})

    def _state_changed(self, path: _MediaPath, state: PeerState, reason: str) -> None:
        if self._ended.is_set():
            return
        if path is self._next_path:
            if state == "connected":
                self._connected(path)
                self._move_to(path)
                self._begin()
            elif state in ("failed", "closed"):
                self._drop_next_path()
            return
        if path is not self._path:
            return
        match state:
            case "connected":
                self._connected(path)
                self._begin()
            case "failed" | "closed" if self._keep_s and path.connected_at is not None:
                self._suspend()
            case "failed":
                self._end(reason)
            case "closed":
                self._end()
            case _:
                pass

    def _begin(self) -> None:
        """Let the agent begin, once: the person is connected."""
        ready, self._on_ready = self._on_ready, None
        if ready is not None:
            ready()

    def _connected(self, path: _MediaPath) -> None:
        if path.connected_at is None:
            path.connected_at = self._clock.now()
            path.patience = self._clock.call_at(
                path.connected_at + RESUME_AFTER, lambda: self._resume_without(path)
            )

    def _resume_without(self, path: _MediaPath) -> None:
        """Go on over a new connection that has brought no audio, as of a page without a source."""
        if path is self._path and path.peer.last_packet_at == float("-inf"):
            self._restore()

    def _receive_audio(self, path: _MediaPath, frame: AudioFrame) -> None:
        if self._agent is None or path is not self._path:
            return
        if self._suspended:
            self._restore()
        if self._muted:
            if len(self._silence) != len(frame):
                self._silence = AudioFrame(np.zeros(len(frame), np.int16), frame.rate)
            frame = self._silence
        self._agent.push_audio(frame)

    def _handle_channel_message(self, path: _MediaPath, text: str) -> None:
        agent = self._agent
        if path is not self._path or agent is None or len(text) > 1000:
            return
        played = path.played
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            played.ignored += 1
            return
        match message:
            case {"type": kind, "rtp": int(rtp)} if kind == PLAYED and 0 <= rtp <= 0xFFFFFFFF:
                if played.update(rtp, path.peer.timestamp, path.peer.frames):
                    path.has_report = True
                    agent.report_played(played.samples + path.frames_before * self._frame_samples)
            case _:
                played.ignored += 1
