"""All uses of private parts of aiortc and aioice.

aiortc does ICE, DTLS, SRTP, SCTP and video. Its audio path holds back 80 ms, spends most of its CPU
on a Python loop over samples, and can't be replaced through its public API. Therefore this module
reaches into its internals, the minor version is pinned, `verify` raises a clear error for other
versions, and a test fails when the internals change.
"""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import logging
import queue
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from importlib.metadata import version
from typing import Any

from duologue._optional import optional
from duologue.errors import UnsupportedError
from duologue.rtc.udp_ports import bind_in_range

with optional("webrtc"):
    import aiortc  # noqa: F401 - checked early

TESTED_VERSIONS = "'aiortc>=1.16,<1.17' 'aioice>=0.12,<0.14'"
"""Versions whose internals this module knows, in pip's syntax."""

_PINNED = "1.16."


def _message(found: str, wrong: str) -> str:
    return (
        f"aiortc {found} is not built as this library needs it ({wrong}): "
        f"pip install {TESTED_VERSIONS}"
    )


try:
    from aioice import Candidate, stun
    from aioice.candidate import candidate_foundation, candidate_priority
    from aioice.ice import Connection, StunProtocol, server_reflexive_candidate
    from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCRtpSender, RTCRtpTransceiver
    from aiortc.rtcdtlstransport import SRTP_PROFILES, RTCCertificate, RTCDtlsTransport, RtpRouter
    from aiortc.rtcicetransport import RTCIceGatherer, RTCIceTransport
    from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
    from aiortc.rtcrtpreceiver import NackGenerator, StreamStatistics
    from aiortc.rtcsctptransport import (
        DataChunk,
        ForwardTsnChunk,
        InboundStream,
        RTCSctpTransport,
        SackChunk,
        tsn_plus_one,
    )
    from aiortc.rtp import RtpPacket
    from pylibsrtp import Error as SrtpError
except ImportError as error:
    raise UnsupportedError(_message(version("aiortc"), str(error))) from error

logger = logging.getLogger(__name__)

_RTP = struct.Struct("!BBHII")
"""The fixed part of an RTP header (RFC 3550, section 5.1)."""

_MAX_GAP = 512
"""Most consecutive missing video packets that are requested again; aiortc keeps the same number."""

_MAX_DATAGRAM = 65536
"""Size of a read in bytes, which is more than any datagram has."""

_NTP_EPOCH = 2208988800
"""Seconds from 1900 to 1970 (RFC 5905, section 6)."""


_METHODS: tuple[tuple[object, str, tuple[str, ...]], ...] = (
    (RTCRtpReceiver, "_handle_rtp_packet", ("packet", "arrival_time_ms")),
    (RTCDtlsTransport, "_send_rtp", ("data",)),
    (RTCSctpTransport, "_handle_data", ("data",)),
    (RTCSctpTransport, "_receive_data_chunk", ("chunk",)),
    (RTCSctpTransport, "_receive_forward_tsn_chunk", ("chunk",)),
    (RTCSctpTransport, "_receive_sack_chunk", ("chunk",)),
    (NackGenerator, "add", ("packet",)),
    (RtpRouter, "route_rtp", ("packet",)),
    (Connection, "get_component_candidates", ("component", "addresses", "timeout")),
    (Connection, "data_received", ("data", "component")),
    (Connection, "query_consent", ()),
    (Connection, "build_request", ("pair", "nominate")),
    (Connection, "check_incoming", ("message", "addr", "protocol")),
)
"""Methods that this module calls or replaces, and their parameters."""

_NAMES_IN_SOURCE: tuple[tuple[object, str, tuple[str, ...]], ...] = (
    (RTCRtpReceiver, "_run_rtcp", ("fraction_lost", "packets_lost", "max_seq", "jitter")),
    (RTCRtpSender, "_run_rtcp", ("__ntp_timestamp", "__rtp_timestamp", "__packet_count")),
    (RTCRtpReceiver, "__init__", ("__remote_streams", "__decoder_queue", "__decoder_error")),
    (RTCRtpReceiver, "__init__", ("__nack_generator",)),
    (RTCRtpReceiver, "receive", ("__started", "__rtcp_task", "__codecs", "__rtx_ssrc")),
    (RTCRtpReceiver, "_handle_rtp_packet", ("__decoder_queue.put((codec,", "__decoder_thread")),
    (RTCRtpReceiver, "stop", ("self.__stop_decoder()",)),
    (RTCRtpTransceiver, "__init__", ("_codecs",)),
    (StreamStatistics, "__init__", ("packets_received",)),
    (RTCDtlsTransport, "__init__", ("_rx_srtp", "_rtp_router")),
    (RTCDtlsTransport, "_recv_next", ("_data_receiver._handle_data(data)",)),
    (RTCSctpTransport, "__init__", ("_sack_misordered", "_inbound_streams", "_advertised_rwnd")),
    (RTCSctpTransport, "_mark_received", ("_last_received_tsn",)),
    (InboundStream, "__init__", ("reassembly",)),
    (SackChunk, "__init__", ("gaps",)),
    (NackGenerator, "__init__", ("max_seq", "missing")),
    (DataChunk, "__init__", ("tsn", "stream_id", "user_data")),
    (RtpRouter, "__init__", ("ssrc_table",)),
    (RTCIceGatherer, "__init__", ("_connection",)),
    (Connection, "__init__", ("_nominated", "_query_consent_task", "_remote_candidates")),
    (Connection, "get_component_candidates", ("StunProtocol(self)", "self._protocols +=")),
    (Connection, "connect", ("self.query_consent()", "self.check_incoming(")),
    (Connection, "request_received", ("self.check_incoming(",)),
)
"""Names that this module reads or sets, and the methods whose source contains them."""


def verify() -> None:
    """Raise `UnsupportedError` unless the installed aiortc has the internals that this module
    needs.
    """
    found = version("aiortc")
    wrong = [] if found.startswith(_PINNED) else ["its version"]
    for owner, name, parameters in _METHODS:
        method = getattr(owner, name, None)
        if method is None or list(inspect.signature(method).parameters)[1:] != list(parameters):
            wrong.append(f"{getattr(owner, '__name__', owner)}.{name}")
    for owner, name, words in _NAMES_IN_SOURCE:
        method = getattr(owner, name, None)
        source = "" if method is None else inspect.getsource(method)
        wrong += [
            f"{word} in {getattr(owner, '__name__', owner)}.{name}"
            for word in words
            if word not in source
        ]
    if wrong:
        raise UnsupportedError(_message(found, ", ".join(wrong)))


def warm_up() -> None:
    """Run whatever is slow only the first time (20 ms of late imports), so that no call has to
    wait.
    """
    RTCCertificate.generateCertificate()._create_ssl_context(SRTP_PROFILES)


def ice_transports(peer: RTCPeerConnection) -> list[RTCIceTransport]:
    """Return each ICE transport of a peer connection once."""
    dtls = [transceiver.receiver.transport for transceiver in peer.getTransceivers()]
    if peer.sctp is not None:
        dtls.append(peer.sctp.transport)
    return list({id(t.transport): t.transport for t in dtls}.values())


def set_candidates(
    ice: RTCIceTransport,
    *,
    loopback: bool,
    wait: int,
    udp_ports: tuple[int, int] | None = None,
    public_addresses: Sequence[str] = (),
) -> None:
    """Limit the wait for STUN and TURN servers, and offer other addresses if wanted.

    aioice never offers loopback addresses and waits 5 s. This changes both for one connection and
    for nothing else in the process. 127.0.0.1 is also offered if the machine has no other address.

    Args:
        ice: The transport to change.
        loopback: Offer 127.0.0.1 besides the machine's other addresses.
        wait: Longest wait for the servers, in seconds.
        udp_ports: First and last local port; None is any.
        public_addresses: Addresses by which the machine is reached from outside, with the same
            ports, as in a network that translates addresses one to one.
    """
    connection = ice.iceGatherer._connection
    gather = connection.get_component_candidates

    async def get_component_candidates(component: int, addresses: list[str]) -> list[Candidate]:
        if loopback or not addresses:
            addresses = ["127.0.0.1", *addresses]
        if udp_ports is not None:
            candidates = await _gather_in_range(connection, component, addresses, udp_ports, wait)
            addresses = []
        else:
            candidates = []
        candidates += await gather(component=component, addresses=addresses, timeout=wait)
        candidates += _public_candidates(candidates, public_addresses)
        for protocol in connection._protocols:
            _contain_datagrams(protocol)
            shrink_reads(protocol.transport)
        return candidates

    vars(connection)["get_component_candidates"] = get_component_candidates


async def _gather_in_range(
    connection: Connection,
    component: int,
    addresses: Sequence[str],
    ports: tuple[int, int],
    wait: int,
) -> list[Candidate]:
    """Gather as aioice does, which binds to any port, but within a range."""
    candidates: list[Candidate] = []
    protocols: list[StunProtocol] = []
    for address in addresses:
        try:
            _, protocol = await bind_in_range(lambda: StunProtocol(connection), address, ports)
        except OSError as error:
            logger.warning("a call does without the address %s: %s", address, error.strerror)
            continue
        host, port = protocol.transport.get_extra_info("sockname")[:2]
        protocol.local_candidate = Candidate(
            foundation=candidate_foundation("host", "udp", host),
            component=component,
            transport="udp",
            priority=candidate_priority(component, "host"),
            host=host,
            port=port,
            type="host",
        )
        candidates.append(protocol.local_candidate)
        protocols.append(protocol)
    connection._protocols += protocols
    if connection.stun_server:
        queries = [
            asyncio.ensure_future(server_reflexive_candidate(protocol, connection.stun_server))
            for protocol in protocols
            if ipaddress.ip_address(protocol.local_candidate.host).version == 4
        ]
        if queries:
            done, pending = await asyncio.wait(queries, timeout=wait)
            candidates += [query.result()[0] for query in done if query.exception() is None]
            for query in pending:
                query.cancel()
    return candidates


def _public_candidates(
    candidates: Sequence[Candidate], public_addresses: Sequence[str]
) -> list[Candidate]:
    """Return a server-reflexive candidate for each local one and each address of its kind."""
    return [
        Candidate(
            foundation=candidate_foundation("srflx", "udp", public),
            component=local.component,
            transport="udp",
            priority=candidate_priority(local.component, "srflx"),
            host=public,
            port=local.port,
            type="srflx",
            related_address=local.host,
            related_port=local.port,
        )
        for local in candidates
        if local.type == "host" and not ipaddress.ip_address(local.host).is_loopback
        for public in public_addresses
        if ipaddress.ip_address(public).version == ipaddress.ip_address(local.host).version
    ]


def shrink_reads(transport: asyncio.BaseTransport) -> None:
    """Let asyncio read datagrams into 64 KiB, which holds any of them, instead of 256 KiB.

    The system maps and unmaps a buffer of that size for each datagram: 18 us instead of 5. The
    attribute is undocumented, and only asyncio's own loops have it.
    """
    if isinstance(getattr(transport, "max_size", None), int):
        vars(transport)["max_size"] = _MAX_DATAGRAM


def _contain_datagrams(protocol: StunProtocol) -> None:
    """Drop packets that can't be parsed, because anyone who knows the port can send them.

    Each would log a traceback, and an empty packet ends a call in aiortc.
    """
    take = protocol.datagram_received

    def datagram_received(data: bytes, addr: tuple[str, int]) -> None:
        if not data:
            return
        try:
            take(data, addr)
        except Exception as error:  # noqa: BLE001 - a stranger's packet: anything may be wrong
            logger.debug("a packet could not be used: %r", error)

    vars(protocol)["datagram_received"] = datagram_received


def replace_consent_check(
    ice: RTCIceTransport, check: Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]
) -> None:
    """Replace aioice's consent check (RFC 7675), which fails after 6 requests, 5 s apart.

    Args:
        ice: The transport to change.
        check: Runs in aioice's own task while the connection is open. It gets a function that sends
            one request and returns within 0.5 s whether the far side answered.
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


def receive_rtp(
    transport: RTCDtlsTransport,
    payload_type: int,
    on_packet: Callable[[int, int, int, bytes], None],
    max_sources: int,
) -> None:
    """Decrypt RTP packets of one payload type on arrival and call ``on_packet`` with them.

    All other packets take aiortc's path, in which each packet waits in a queue for a task (a third
    more CPU) and then in a jitter buffer. Packets that fail decryption or are truncated are
    dropped, as aiortc does. Packets of any source beyond ``max_sources`` are dropped too, because
    libsrtp keeps and searches all sources.

    Args:
        transport: The transport to change.
        payload_type: Payload type of the wanted packets.
        on_packet: Called with SSRC, sequence number, timestamp and payload.
        max_sources: Most sources (SSRC) that are decrypted.
    """
    connection = transport.transport.iceGatherer._connection
    pass_on = connection.data_received
    unprotect = transport._rx_srtp.unprotect
    sources: set[int] = set()

    def data_received(data: bytes, component: int) -> None:
        if len(data) < _RTP.size or data[0] >> 6 != 2 or data[1] & 0x7F != payload_type:
            pass_on(data, component)
            return
        first, _, sequence, timestamp, source = _RTP.unpack_from(data)
        if source not in sources and len(sources) >= max_sources:
            return
        try:
            data = unprotect(data)
        except SrtpError:
            return
        sources.add(source)
        start = 12 + 4 * (first & 15)
        if first & 0x10 and len(data) >= start + 4:
            start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4])
        end = len(data) - data[-1] if first & 0x20 else len(data)
        if start <= end:
            on_packet(source, sequence, timestamp, data[start:end])

    vars(connection)["data_received"] = data_received


def receive_without_decoder(receiver: RTCRtpReceiver) -> None:
    """Let ``receiver`` report to the sender, but start no decoder thread, because it gets no
    packets.

    Starting a thread would block the event loop until the system runs it.
    """

    async def receive(parameters: RTCRtpReceiveParameters) -> None:
        inner = vars(receiver)
        if not inner["_RTCRtpReceiver__started"]:
            inner["_RTCRtpReceiver__started"] = True
            receiver.transport._register_rtp_receiver(receiver, parameters)
            # The receiver's own stop() ends this task, as it would end its own.
            inner["_RTCRtpReceiver__rtcp_task"] = asyncio.ensure_future(receiver._run_rtcp())

    vars(receiver)["receive"] = receive


def set_receiver_statistics(receiver: RTCRtpReceiver, source: int, statistics: object) -> None:
    """Report ``statistics`` to the sender, for the stream ``source`` (its SSRC) only."""
    # This lets the sender's reports find the receiver, whose next report repeats their times.
    table = receiver.transport._rtp_router.ssrc_table
    streams: dict[int, object] = vars(receiver)["_RTCRtpReceiver__remote_streams"]
    for earlier in streams:
        table.pop(earlier, None)
    table[source] = receiver
    streams.clear()
    streams[source] = statistics


def receive_with_decoder(
    receiver: RTCRtpReceiver,
    run: Callable[[queue.Queue[Any], threading.Event], None],
    on_drop: Callable[[], None],
    max_frames: int,
) -> None:
    """Decode the video frames that ``receiver`` assembles by ``run``, in a thread of its own.

    Args:
        receiver: The receiver to change.
        run: Takes pairs of a codec and a frame from the queue until it gets None, and sets the
            event to request a key frame.
        on_drop: Called when a packet is dropped.
        max_frames: Frames that may wait; further packets are dropped.
    """
    inner = vars(receiver)
    waiting: queue.Queue[Any] = inner["_RTCRtpReceiver__decoder_queue"]
    lost: threading.Event = inner["_RTCRtpReceiver__decoder_error"]
    handle = receiver._handle_rtp_packet

    async def receive(parameters: RTCRtpReceiveParameters) -> None:
        if inner["_RTCRtpReceiver__started"]:
            return
        inner["_RTCRtpReceiver__started"] = True
        for codec in parameters.codecs:
            inner["_RTCRtpReceiver__codecs"][codec.payloadType] = codec
        for encoding in parameters.encodings:
            if encoding.rtx:
                inner["_RTCRtpReceiver__rtx_ssrc"][encoding.rtx.ssrc] = encoding.ssrc
        # The receiver's own stop() ends and joins the thread, and ends the task.
        thread = threading.Thread(target=run, args=(waiting, lost), name="video-decoder")
        inner["_RTCRtpReceiver__decoder_thread"] = thread
        thread.start()
        receiver.transport._register_rtp_receiver(receiver, parameters)
        inner["_RTCRtpReceiver__rtcp_task"] = asyncio.ensure_future(receiver._run_rtcp())

    async def bounded(packet: RtpPacket, arrival_time_ms: int) -> None:
        if waiting.qsize() >= max_frames:
            on_drop()
            return
        await handle(packet, arrival_time_ms)

    inner["receive"] = receive
    inner["_handle_rtp_packet"] = bounded
    _limit_gap(inner["_RTCRtpReceiver__nack_generator"])


def _limit_gap(nacks: NackGenerator) -> None:
    """Restart after a gap in the packet numbers that no retransmission can fill.

    aiortc iterates over every number of the gap, which takes 20 ms, and a far side can repeat it.
    """
    add = nacks.add

    def add_bounded(packet: RtpPacket) -> bool:
        last = nacks.max_seq
        if last is not None and _MAX_GAP < (packet.sequence_number - last) & 0xFFFF < 0x8000:
            nacks.missing.clear()
            nacks.max_seq = (packet.sequence_number - 1) & 0xFFFF
        missing: bool = add(packet)
        return missing

    vars(nacks)["add"] = add_bounded


def restrict_codec(transceiver: RTCRtpTransceiver, name: str) -> bool:
    """Answer only with the codec ``name`` and its retransmission; return False if it was not
    offered.

    This can't be done through the public API, because aiortc reads the preferences of a transceiver
    while it processes the offer that creates it.
    """
    codecs = transceiver._codecs
    kinds = {codec.payloadType for codec in codecs if codec.name.upper() == name}
    transceiver._codecs = [
        codec
        for codec in codecs
        if codec.payloadType in kinds or codec.parameters.get("apt") in kinds
    ]
    return bool(kinds)


def limit_checks(ice: RTCIceTransport, max_addresses: int) -> None:
    """Learn at most ``max_addresses`` addresses from the far side's checks.

    aioice keeps every address that a check comes from, and sends checks to it. Malformed checks
    are dropped.
    """
    connection = ice.iceGatherer._connection
    check = connection.check_incoming

    def check_incoming(
        message: stun.Message, addr: tuple[str, int], protocol: StunProtocol
    ) -> None:
        known = connection._remote_candidates
        if len(known) >= max_addresses and all((c._network_host, c.port) != addr for c in known):
            return
        try:
            check(message, addr, protocol)
        except (KeyError, AssertionError) as error:
            logger.debug("a check without a required attribute: %r", error)

    vars(connection)["check_incoming"] = check_incoming


def limit_sources(transport: RTCDtlsTransport, max_sources: int) -> None:
    """Route RTP of ``max_sources`` sources (SSRC) at most, because aiortc forgets none."""
    router = transport._rtp_router
    route = router.route_rtp

    def route_rtp(packet: RtpPacket) -> object:
        if packet.ssrc not in router.ssrc_table and len(router.ssrc_table) >= max_sources:
            return None
        return route(packet)

    vars(router)["route_rtp"] = route_rtp


def limit_channel(sctp: RTCSctpTransport, *, streams: int, fragments: int) -> None:
    """Limit how much a far side can make the data channel keep and search.

    aiortc sorts and searches its buffers with each packet and has no limit. Dropped parts are sent
    again, as if they had been lost. A packet for which aiortc raises an error is dropped too;
    otherwise it would end the call with a traceback.

    Args:
        sctp: The transport to change.
        streams: Most channels.
        fragments: Most parts of incomplete messages in each channel, and most gaps between received
            parts.
    """
    handle, take, skip, acknowledge = (
        sctp._handle_data,
        sctp._receive_data_chunk,
        sctp._receive_forward_tsn_chunk,
        sctp._receive_sack_chunk,
    )

    async def handle_data(data: bytes) -> None:
        try:
            await handle(data)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 - a stranger's packet: anything may be wrong
            logger.debug("a packet of a data channel could not be used: %r", error)

    async def receive_data_chunk(chunk: DataChunk) -> None:
        stream = sctp._inbound_streams.get(chunk.stream_id)
        if stream is None and len(sctp._inbound_streams) >= streams:
            return
        if len(sctp._sack_misordered) >= fragments:
            if chunk.tsn != tsn_plus_one(sctp._last_received_tsn or 0):
                return
        elif stream is not None and len(stream.reassembly) >= fragments:
            return
        if len(chunk.user_data) > sctp._advertised_rwnd:
            return
        await take(chunk)

    async def receive_forward_tsn_chunk(chunk: ForwardTsnChunk) -> None:
        chunk.streams = [pair for pair in chunk.streams if pair[0] in sctp._inbound_streams]
        await skip(chunk)

    async def receive_sack_chunk(chunk: SackChunk) -> None:
        # Blocks beyond what was sent are false, and aiortc iterates over each number of a block.
        sent = len(sctp._sent_queue)
        chunk.gaps = [block for block in chunk.gaps if block[0] <= block[1] <= sent]
        await acknowledge(chunk)

    vars(sctp).update(
        _handle_data=handle_data,
        _receive_sack_chunk=receive_sack_chunk,
        _receive_data_chunk=receive_data_chunk,
        _receive_forward_tsn_chunk=receive_forward_tsn_chunk,
    )


def send_packet(transport: RTCDtlsTransport, data: bytes) -> None:
    """Encrypt and send one RTP packet before returning.

    aiortc's `_send_rtp` is a coroutine that never waits, because a datagram goes straight to the
    socket. So it is run here without a task: one packet a tick, without a wake-up.

    Raises:
        ConnectionError: The transport is not connected.
    """
    sending: Coroutine[object, None, None] = transport._send_rtp(data)
    try:
        sending.send(None)
    except StopIteration:
        return
    sending.close()
    raise ConnectionError("the transport was not ready to send")


def set_sender_statistics(
    sender: RTCRtpSender, packets: int, octets: int, timestamp: int, at: float
) -> None:
    """Set what aiortc's sender reports say; ``at`` is the ``time.time()`` of the last packet."""
    inner = vars(sender)
    inner["_RTCRtpSender__ntp_timestamp"] = int((at + _NTP_EPOCH) * 4294967296)
    inner["_RTCRtpSender__rtp_timestamp"] = timestamp
    inner["_RTCRtpSender__packet_count"] = packets
    inner["_RTCRtpSender__octet_count"] = octets


def abort_sockets(ice: RTCIceTransport) -> None:
    """Close an ICE transport's sockets without closing messages."""
    for protocol in list(ice.iceGatherer._connection._protocols):
        protocol.transport.abort()
