"""The private parts of aiortc and aioice that the media path leans on, all in one place.

aiortc keeps ICE, DTLS, SRTP, SCTP and video; its audio path holds 80 ms and spends most of its
CPU on a Python loop over samples, and it offers no door beside it. Hence the pinned minor
version, `verify` with a clear message, and a test that fails when the inside changes.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import struct
from collections.abc import Awaitable, Callable, Coroutine
from importlib.metadata import version
from typing import Any

from aioice import Candidate, stun
from aioice.ice import Connection
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCRtpSender
from aiortc.rtcdtlstransport import SRTP_PROFILES, RTCCertificate, RTCDtlsTransport
from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import RemoteStreamTrack, StreamStatistics
from aiortc.rtp import RtpPacket
from pylibsrtp import Error as SrtpError

from duologue.realtime.errors import UnsupportedError

PINNED = "1.16."
"""Versions of aiortc whose inside is known here."""

_RTP = struct.Struct("!BBHII")
"""The fixed part of an RTP header (RFC 3550, section 5.1)."""

_NTP_EPOCH = 2208988800
"""Seconds from 1900 to 1970 (RFC 5905, section 6)."""


def verify() -> None:
    """Raise `UnsupportedError` unless the installed aiortc is built as this module needs it."""
    found = version("aiortc")
    wrong = [] if found.startswith(PINNED) else ["its version"]
    expected: tuple[tuple[object, str, list[str]], ...] = (
        (RTCRtpReceiver, "_handle_rtp_packet", ["self", "packet", "arrival_time_ms"]),
        (RTCDtlsTransport, "_send_rtp", ["self", "data"]),
        (Connection, "get_component_candidates", ["self", "component", "addresses", "timeout"]),
        (Connection, "data_received", ["self", "data", "component"]),
        (Connection, "query_consent", ["self"]),
        (Connection, "build_request", ["self", "pair", "nominate"]),
    )
    for owner, name, parameters in expected:
        method = getattr(owner, name, None)
        if method is None or list(inspect.signature(method).parameters) != parameters:
            wrong.append(f"{getattr(owner, '__name__', owner)}.{name}")
    reads = (
        (RTCRtpReceiver._run_rtcp, ("fraction_lost", "packets_lost", "max_seq", "jitter")),
        (RTCRtpSender._run_rtcp, ("__ntp_timestamp", "__rtp_timestamp", "__packet_count")),
        (RTCRtpReceiver.__init__, ("__remote_streams", "__decoder_queue")),
        (RTCRtpReceiver.receive, ("self._track._queue", "__started", "__rtcp_task")),
        (StreamStatistics.__init__, ("packets_received",)),
        (RemoteStreamTrack.__init__, ("_queue",)),
        (RTCDtlsTransport.__init__, ("_rx_srtp", "_rtp_router")),
        (RTCIceGatherer.__init__, ("_connection",)),
        (Connection.__init__, ("_nominated", "_query_consent_task")),
        (Connection.connect, ("self.query_consent()",)),
    )
    for function, words in reads:
        source = inspect.getsource(function)
        wrong += [f"{word} in {function.__qualname__}" for word in words if word not in source]
    if wrong:
        raise UnsupportedError(
            f"aiortc {found} is not built as this library needs it ({', '.join(wrong)}): "
            "pip install 'aiortc>=1.16,<1.17'"
        )


def warm_up() -> None:
    """Do what is slow only the first time (20 ms of late imports), so that no call is held up."""
    RTCCertificate.generateCertificate()._create_ssl_context(SRTP_PROFILES)


def ice_transports(peer: RTCPeerConnection) -> list[RTCIceTransport]:
    """The ICE transports that a peer connection uses, each once."""
    dtls = [transceiver.receiver.transport for transceiver in peer.getTransceivers()]
    if peer.sctp is not None:
        dtls.append(peer.sctp.transport)
    return list({id(t.transport): t.transport for t in dtls}.values())


def set_candidates(ice: RTCIceTransport, *, loopback: bool, wait: int) -> None:
    """Wait at most ``wait`` s for STUN and TURN, and offer 127.0.0.1 too if ``loopback``.

    aioice leaves loopback out always and waits 5 s. Both are put right on this one connection;
    nothing is changed for others in the process. Also 127.0.0.1 is offered where the machine has
    no other address.
    """
    connection = ice.iceGatherer._connection
    gather = connection.get_component_candidates

    async def get_component_candidates(component: int, addresses: list[str]) -> list[Candidate]:
        if loopback or not addresses:
            addresses = ["127.0.0.1", *addresses]
        return await gather(component=component, addresses=addresses, timeout=wait)

    vars(connection)["get_component_candidates"] = get_component_candidates


def set_consent(
    ice: RTCIceTransport, check: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
) -> None:
    """Check consent (RFC 7675) by ``check`` instead of aioice's fixed 5 s and 6 failures.

    ``check`` gets a function that asks the far side once and says within 0.5 s if it answered.
    It runs in aioice's own task, from when the connection is there until it closes.
    """
    connection = ice.iceGatherer._connection

    async def ask() -> bool:
        key = (connection.remote_password or "").encode()
        pairs = list(connection._nominated.values())
        try:
            for pair in pairs:
                await pair.protocol.request(
                    connection.build_request(pair, nominate=False),
                    pair.remote_addr,
                    integrity_key=key,
                    retransmissions=0,
                )
        except stun.TransactionError:
            return False
        return bool(pairs)

    async def query_consent() -> None:
        await check(ask)

    vars(connection)["query_consent"] = query_consent


def take_rtp(
    transport: RTCDtlsTransport, kind: int, take: Callable[[int, int, int, bytes], None]
) -> None:
    """Decrypt RTP of payload type ``kind`` on arrival and hand it to ``take``, all in one call.

    ``take`` gets SSRC, sequence number, timestamp and payload. Everything else goes aiortc's way;
    there each packet waits in a queue for a task (a third more CPU) and then in a jitter buffer.
    Packets that fail decryption or are cut short are dropped, as aiortc does.
    """
    connection = transport.transport.iceGatherer._connection
    pass_on = connection.data_received
    unprotect = transport._rx_srtp.unprotect

    def data_received(data: bytes, component: int) -> None:
        if len(data) < _RTP.size or data[0] >> 6 != 2 or data[1] & 0x7F != kind:
            pass_on(data, component)
            return
        try:
            data = unprotect(data)
        except SrtpError:
            return
        first, _, sequence, timestamp, source = _RTP.unpack_from(data)
        start = 12 + 4 * (first & 15)
        if first & 0x10 and len(data) >= start + 4:
            start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4])
        end = len(data) - data[-1] if first & 0x20 else len(data)
        if start <= end:
            take(source, sequence, timestamp, data[start:end])

    vars(connection)["data_received"] = data_received


def receive_without_decoder(receiver: RTCRtpReceiver) -> None:
    """Let ``receiver`` report to the sender, but start no thread to decode what never reaches it.

    Starting one stops the event loop till the system runs it.
    """

    async def receive(parameters: RTCRtpReceiveParameters) -> None:
        inner = vars(receiver)
        if not inner["_RTCRtpReceiver__started"]:
            inner["_RTCRtpReceiver__started"] = True
            receiver.transport._register_rtp_receiver(receiver, parameters)
            # Ended by the receiver's own stop(), like the one that it would have made itself.
            inner["_RTCRtpReceiver__rtcp_task"] = asyncio.ensure_future(receiver._run_rtcp())

    vars(receiver)["receive"] = receive


def set_report(receiver: RTCRtpReceiver, source: int, statistics: object) -> None:
    """Report ``statistics`` for the stream ``source`` (its SSRC), and no other, to the sender."""
    # So that the sender's own reports find the receiver, whose times the next report repeats.
    receiver.transport._rtp_router.ssrc_table[source] = receiver
    streams: dict[int, object] = vars(receiver)["_RTCRtpReceiver__remote_streams"]
    streams.clear()
    streams[source] = statistics


class _FrameDoor:
    """Stands in for a track's unbounded queue: each decoded picture is handed on at once."""

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take

    async def put(self, frame: Any) -> None:
        if frame is not None:
            self._take(frame)


def take_frames(
    receiver: RTCRtpReceiver, take: Callable[[Any], None], dropped: Callable[[], None], most: int
) -> None:
    """Hand decoded pictures to ``take``; drop packets that find ``most`` pictures undecoded."""
    vars(receiver.track)["_queue"] = _FrameDoor(take)
    handle = receiver._handle_rtp_packet
    waiting: queue.Queue[object] = vars(receiver)["_RTCRtpReceiver__decoder_queue"]

    async def bounded(packet: RtpPacket, arrival_time_ms: int) -> None:
        if waiting.qsize() >= most:
            dropped()
            return
        await handle(packet, arrival_time_ms)

    vars(receiver)["_handle_rtp_packet"] = bounded


def send_now(transport: RTCDtlsTransport, data: bytes) -> None:
    """Encrypt and send one RTP packet before returning. Raises ``ConnectionError``.

    aiortc's `_send_rtp` is a coroutine that never waits (a datagram goes straight to the socket),
    so it is run here without a task: one tick, one packet, no wake-up between.
    """
    sending: Coroutine[object, None, None] = transport._send_rtp(data)
    try:
        sending.send(None)
    except StopIteration:
        return
    sending.close()
    raise ConnectionError("the transport was not ready to send")


def set_sent(sender: RTCRtpSender, packets: int, octets: int, timestamp: int, at: float) -> None:
    """Tell aiortc's sender reports what was sent; ``at`` is the last packet's time.time()."""
    inner = vars(sender)
    inner["_RTCRtpSender__ntp_timestamp"] = int((at + _NTP_EPOCH) * 4294967296)
    inner["_RTCRtpSender__rtp_timestamp"] = timestamp
    inner["_RTCRtpSender__packet_count"] = packets
    inner["_RTCRtpSender__octet_count"] = octets


def cut(ice: RTCIceTransport) -> None:
    """Close an ICE transport's sockets without a farewell."""
    for protocol in list(ice.iceGatherer._connection._protocols):
        protocol.transport.abort()
