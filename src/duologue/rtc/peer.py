"""One WebRTC connection: aiortc's ICE, DTLS, SRTP and SCTP, and our own audio path."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import numpy as np
from numpy.typing import NDArray

from duologue._optional import optional
from duologue._user_code import FailureReports
from duologue.audio import AudioFrame
from duologue.clock import Clock, LoopClock, Timer
from duologue.rtc import sdp as descriptions
from duologue.rtc._candidates import CandidateGate
from duologue.rtc._consent import ConsentMonitor
from duologue.rtc._rtcp import ReceptionStatistics
from duologue.rtc.audio_path import AudioIn, AudioOut
from duologue.rtc.config import IceServer, PeerConfig, PeerError, PeerState
from duologue.video import VideoFrame

with optional("webrtc"):
    import av
    from aiortc import (
        RTCConfiguration,
        RTCIceServer,
        RTCPeerConnection,
        RTCRtpReceiver,
        RTCRtpSender,
        RTCSessionDescription,
    )
    from aiortc.rtcconfiguration import RTCBundlePolicy
    from aiortc.sdp import candidate_from_sdp

    from duologue.rtc import _aiortc
    from duologue.rtc._data_channel import TextChannel
    from duologue.rtc._rtp_sender import IdleTrack, RtpSender
    from duologue.rtc._video_decoder import MAX_UNDECODED, VideoDecoder
    from duologue.rtc._video_track import VideoTrack


_aiortc.verify()
_aiortc.warm_up()

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 0.4
"""Most seconds that `Peer.close` takes on an event loop that is not busy."""

HANG_UP_TIMEOUT = 5.0
"""Most seconds that closing may continue in the background, for example at a TURN server."""

MAX_DESCRIPTIONS = 8
"""Most descriptions that the far side may send in one call."""

MAX_SOURCES = 16
"""Most RTP sources (SSRC) of each kind that a far side may use."""

MAX_ADDRESSES = 32
"""Most addresses of the far side, from its descriptions or learnt from its checks."""

MAX_STREAMS = 16
"""Most data channels that the far side may open."""

MAX_FRAGMENTS = 512
"""Most parts of messages, and gaps between them, that may wait on a data channel."""

# Connections that are closing in the background, kept so that none is garbage-collected.
_hang_ups: set[asyncio.Future[None]] = set()

_MID = "urn:ietf:params:rtp-hdrext:sdes:mid"


def _rtc_ice_server(server: IceServer) -> RTCIceServer:
    urls = [server.urls] if isinstance(server.urls, str) else list(server.urls)
    return RTCIceServer(urls=urls, username=server.username, credential=server.credential)


def _pixels(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


class Peer:
    """A WebRTC connection with an audio stream each way, a data channel, and video.

    Answer an offer with `accept`, or make one with `offer` and pass its answer to `answer`. All
    callbacks run on the event loop. A peer that is never closed leaks its sockets.

    Args:
        config: How to connect, and what to send and accept.
        on_audio: Called with received audio at ``config.receive_rate``.
        on_video: Called with a function that makes the newest video frame; call it only if the
            frame is needed.
        on_message: Called with each text from the data channel.
        on_state: Called with each new state and, for ``failed``, the reason.
        clock: Clock of the connection; by default that of the event loop.
    """

    def __init__(
        self,
        config: PeerConfig,
        *,
        on_audio: Callable[[AudioFrame], None],
        on_video: Callable[[Callable[[], VideoFrame]], None] | None = None,
        on_message: Callable[[str], None] | None = None,
        on_state: Callable[[PeerState, str], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self._clock = clock if clock is not None else LoopClock()
        self._on_video = on_video
        self._on_message = on_message
        self._on_state = on_state
        self._failures = FailureReports(self._clock.now)
        self._state: PeerState = "new"
        self._reason = ""
        self._audio_out = AudioOut(
            config.send_rate, bitrate=config.bitrate, application=config.application
        )
        self._audio_in = AudioIn(config.receive_rate, on_audio, self._clock)
        self._statistics: tuple[int, ReceptionStatistics] | None = None
        self._last_received: int | None = None
        self._rtp_sender: RtpSender | None = None
        self._channel = TextChannel(config.channel, self._receive_message)
        self._video_track = VideoTrack(self._clock) if config.send_video else None
        self._video_receivers: set[RTCRtpReceiver] = set()
        self._candidate_gate = CandidateGate(loopback=config.loopback)
        self._descriptions = 0
        self._channel_limited = False
        self._connect_timer: Timer | None = None
        self._closing: asyncio.Future[None] | None = None
        self.video_frames = 0
        self.video_dropped = 0
        """Video packets dropped because the decoder was too slow."""
        self._connection = RTCPeerConnection(
            RTCConfiguration(
                iceServers=[_rtc_ice_server(server) for server in config.ice_servers],
                bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
            )
        )
        self._transceiver = self._connection.addTransceiver(IdleTrack(), direction="sendrecv")
        self._transceiver.setCodecPreferences(
            [c for c in RTCRtpSender.getCapabilities("audio").codecs if c.name == "opus"]
        )
        _aiortc.receive_without_decoder(self._transceiver.receiver)
        self._connection.on("connectionstatechange", self._connection_changed)
        self._connection.on("datachannel", self._channel.adopt)

    @property
    def state(self) -> PeerState:
        """State of the connection."""
        return self._state

    @property
    def reason(self) -> str:
        """Why the connection failed; empty if it did not."""
        return self._reason

    @property
    def frames(self) -> int:
        """Frames given to `send_audio` so far, None included."""
        return self._audio_out.frames

    @property
    def timestamp(self) -> int:
        """RTP timestamp of the next frame to send: 32 bits of 48 kHz samples."""
        return self._audio_out.timestamp

    @property
    def last_received(self) -> int | None:
        """RTP timestamp of the last audio packet received; None before the first."""
        return self._last_received

    @property
    def last_packet_at(self) -> float:
        """Clock time in seconds of the last audio packet; minus infinity before the first."""
        return self._audio_in.last_packet_at

    @property
    def counters(self) -> dict[str, int]:
        """Counters of received and sent packets, messages and video frames."""
        return {
            **self._audio_in.counters,
            "sent": self._rtp_sender.packets if self._rtp_sender else 0,
            "messages_dropped": self._channel.dropped,
            "video_frames": self.video_frames,
            "video_dropped": self.video_dropped,
            "candidates_refused": self._candidate_gate.refused,
            "video_skipped": self._video_track.skipped if self._video_track else 0,
        }

    async def accept(self, sdp: str) -> str:
        """Accept the offer ``sdp``, begin to connect, and return the answer.

        Raises:
            PeerError: The offer can't be used.
        """
        await self._set_remote_description(sdp, "offer")
        for transceiver in self._connection.getTransceivers():
            if transceiver is not self._transceiver:
                wanted = transceiver.receiver in self._video_receivers
                transceiver.direction = "recvonly" if wanted else "inactive"
        return await self._make_description()

    async def add_candidate(self, candidate: str, mid: str | None, index: int | None) -> None:
        """Add an address of the far side that came after its description (trickle ICE, RFC 8838).

        It is counted and dropped if it may not be used (`CandidateGate`), or is of no use any more.

        Args:
            candidate: As in a description, with or without ``a=`` and ``candidate:``; "" after the
                last one.
            mid: Name of the media section.
            index: Number of the media section, where ``mid`` is None.
        """
        text = candidate.removeprefix("a=").removeprefix("candidate:")
        if not text or (mid is None and index is None) or self._closing is not None:
            return
        if self.config.loopback:
            text = descriptions.replace_mdns_name(text)
        if not self._candidate_gate.admits(text):
            return
        try:
            found = candidate_from_sdp(text)
            found.sdpMid, found.sdpMLineIndex = mid, index
            await self._connection.addIceCandidate(found)
        except (ValueError, IndexError, AssertionError) as error:
            logger.info("an address of the far side could not be used: %s", error)

    async def offer(self) -> str:
        """Return an offer that includes a data channel; pass its answer to `answer`."""
        if self._video_track is not None:
            self._connection.addTransceiver(self._video_track, direction="sendonly")
        self._channel.adopt(self._connection.createDataChannel(self.config.channel))
        return await self._make_description()

    async def answer(self, sdp: str) -> None:
        """Accept the answer to our offer and begin to connect.

        Raises:
            PeerError: The answer can't be used.
        """
        await self._set_remote_description(sdp, "answer")

    def send_audio(self, frame: AudioFrame | None) -> int:
        """Send the next 20 ms at once, None as silence; return the frame's RTP timestamp.

        A frame given while there is no connection is counted and not sent.

        Raises:
            ValueError: The frame has another rate or another length than 20 ms.
        """
        out = self._audio_out
        timestamp = out.timestamp
        sending = self._rtp_sender
        if sending is None:
            out.skip()
            return timestamp
        payload = out.encode(frame)
        try:
            sending.send(payload, timestamp)
        except ConnectionError:
            self._rtp_sender = None
        return timestamp

    def send_video(self, frame: VideoFrame) -> None:
        """Send a frame on our own video track; a newer frame replaces one that still waits.

        Raises:
            ValueError: ``config.send_video`` is False.
        """
        if self._video_track is None:
            raise ValueError("this connection offers no video: set send_video in its PeerConfig")
        self._video_track.show(frame)

    def flush(self) -> None:
        """Drop audio that `send_audio` accepted and did not send: 6.5 ms of look-ahead, nothing
        else.
        """
        self._audio_out.flush()

    def send_message(self, text: str) -> bool:
        """Send a text on the data channel; return False if it was dropped (see `TextChannel`).

        Raises:
            MessageTooLongError: The text is longer than the far side accepts.
        """
        return self._channel.send(text)

    async def drain(self, max_bytes: int) -> bool:
        """Wait until the data channel is open and at most ``max_bytes`` wait; return False if
        closed.
        """
        return await self._channel.drain(max_bytes)

    async def close(self) -> None:
        """Close the connection and free every socket, task and thread within `CLOSE_TIMEOUT`
        seconds.

        May be called again. Closing that takes longer (a TURN server that does not answer)
        continues in the background, also if the caller is cancelled, because a half-closed
        connection would leak.
        """
        if self._closing is None:
            if self._connect_timer is not None:
                self._connect_timer.cancel()
            self._rtp_sender = None
            self._audio_in.close()
            self._closing = asyncio.ensure_future(self._hang_up())
            _hang_ups.add(self._closing)
            self._closing.add_done_callback(_hang_ups.discard)
            self._set_state("closed")
        await asyncio.wait([self._closing], timeout=CLOSE_TIMEOUT)

    def abort(self) -> None:
        """Close the sockets without telling the far side; both sides notice the silence later."""
        for ice in _aiortc.ice_transports(self._connection):
            _aiortc.abort_sockets(ice)

    async def _hang_up(self) -> None:
        try:
            async with asyncio.timeout(HANG_UP_TIMEOUT):
                await self._connection.close()
        except TimeoutError:
            logger.warning("a connection did not close in time; its sockets were aborted")
            self.abort()

    async def _set_remote_description(self, text: str, kind: str) -> None:
        self._descriptions += 1
        if self._descriptions > MAX_DESCRIPTIONS:
            raise PeerError(f"over {MAX_DESCRIPTIONS} descriptions in one call")
        if self.config.loopback:
            text = descriptions.replace_mdns_names(text)
        text = descriptions.sanitize(text, self._candidate_gate)
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(text, kind))
        except Exception as error:
            # The text comes from a stranger, and the parser raises arbitrary errors for nonsense.
            raise PeerError(f"the {kind} could not be used: {error or type(error)}") from error
        for transceiver in self._connection.getTransceivers():
            receiver = transceiver.receiver
            if receiver in self._video_receivers or receiver.track is None:
                continue
            if transceiver.kind != "video" or not self.config.video or self._video_receivers:
                continue
            if _aiortc.restrict_codec(transceiver, descriptions.VP8):
                self._video_receivers.add(receiver)
                decoder = VideoDecoder(
                    asyncio.get_running_loop(), self._receive_video, self._count_dropped_video
                )
                _aiortc.receive_with_decoder(
                    receiver, decoder.run, self._count_dropped_video, MAX_UNDECODED
                )
        self._start_connecting()

    async def _make_description(self) -> str:
        for ice in _aiortc.ice_transports(self._connection):
            if ice.iceGatherer.state == "new":
                _aiortc.set_candidates(
                    ice,
                    loopback=self.config.loopback,
                    wait=self.config.gather_timeout,
                    udp_ports=self.config.udp_ports,
                    public_addresses=self.config.public_addresses,
                )
                _aiortc.replace_consent_check(ice, self._monitor_consent)
                _aiortc.limit_checks(ice, MAX_ADDRESSES)
        if self._connection.sctp is not None and not self._channel_limited:
            self._channel_limited = True
            _aiortc.limit_channel(
                self._connection.sctp, streams=MAX_STREAMS, fragments=MAX_FRAGMENTS
            )
        await self._connection.setLocalDescription()
        sdp: str = self._connection.localDescription.sdp
        return descriptions.add_opus_parameters(sdp, self.config.receive_rate)

    def _start_connecting(self) -> None:
        if self._state == "new":
            self._set_state("connecting")
            self._connect_timer = self._clock.call_at(
                self._clock.now() + self.config.connect_timeout, self._connect_timed_out
            )

    def _connect_timed_out(self) -> None:
        if self._state in ("new", "connecting"):
            self._fail(f"no connection within {self.config.connect_timeout:g} s")

    def _set_state(self, state: PeerState, reason: str = "") -> None:
        if state == self._state or self._state == "closed":
            return
        if self._state == "failed" and state != "closed":
            return
        self._state = state
        self._reason = reason
        if self._on_state is not None:
            self._notify(self._on_state, state, reason)

    def _fail(self, reason: str) -> None:
        self._rtp_sender = None
        self._set_state("failed", reason)

    def _connection_changed(self) -> None:
        match self._connection.connectionState:
            case "connected":
                self._connected()
            case "failed":
                dtls = self._transceiver.receiver.transport.state == "failed"
                self._fail("the encryption handshake failed" if dtls else "no way to the far side")
            case "closed":
                self._rtp_sender = None
                self._set_state("closed")

    def _connected(self) -> None:
        if self._connect_timer is not None:
            self._connect_timer.cancel()
        kind, name = self._transceiver._codecs[0].payloadType, self._transceiver.mid
        if kind is None or self._state == "failed":
            return
        transport = self._transceiver.receiver.transport
        _aiortc.receive_rtp(transport, kind, self._receive_rtp, MAX_SOURCES)
        _aiortc.limit_sources(transport, MAX_SOURCES)
        number = next((e.id for e in self._transceiver._headerExtensions if e.uri == _MID), None)
        mid = (number, name) if number is not None and name is not None else None
        self._rtp_sender = RtpSender(self._transceiver.sender, kind, mid)
        self._set_state("connected")

    async def _monitor_consent(self, check: Callable[[], Awaitable[bool]]) -> None:
        watch = ConsentMonitor(
            self._clock,
            interrupted_after=self.config.interrupted_after,
            failed_after=self.config.failed_after,
            last_packet=lambda: self._audio_in.last_packet_at,
            on_change=lambda there: self._set_state("connected" if there else "interrupted"),
        )
        # aioice may start this after a `close` that came while it was connecting.
        silent = await watch.run(check, lambda: self._closing is None)
        if self._closing is None:
            self._fail(f"the far side has been silent for {silent:.0f} s")

    def _receive_rtp(self, source: int, sequence: int, timestamp: int, payload: bytes) -> None:
        if self._closing is not None:
            return
        statistics = self._statistics
        if statistics is None or statistics[0] != source:
            statistics = self._statistics = (source, ReceptionStatistics())
            _aiortc.set_receiver_statistics(self._transceiver.receiver, source, statistics[1])
        statistics[1].add(sequence, timestamp, time.time())
        if payload:
            self._last_received = timestamp
            self._audio_in.receive(source, sequence, timestamp, payload)

    def _receive_video(self, frame: av.VideoFrame) -> None:
        self.video_frames += 1
        at = self._clock.now()
        if self._on_video is not None:
            self._notify(self._on_video, lambda: VideoFrame(_pixels(frame), at))

    def _count_dropped_video(self) -> None:
        self.video_dropped += 1

    def _notify[**P](self, callback: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        # An error here would end aiortc's transport, and with it the call, without a log line.
        try:
            callback(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - any error of the owner
            self._failures.report("a callback of a call", error)

    def _receive_message(self, text: str) -> None:
        if self._on_message is not None:
            self._notify(self._on_message, text)
