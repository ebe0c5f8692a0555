"""Hostile input from a far side, and how much it can make us do and keep."""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("av", reason="the webrtc extra is not installed")
pytest.importorskip("aiortc", reason="the webrtc extra is not installed")

import av
from aiortc.rtcsctptransport import DataChunk, SackChunk, tsn_plus_one
from aiortc.rtp import RtpPacket
from test_peer import CONFIG, TONE, connected, nothing, pace, until

from duologue.audio import AudioFrame
from duologue.rtc import sdp as descriptions
from duologue.rtc._candidates import MAX_CANDIDATES, CandidateGate
from duologue.rtc._video_decoder import MAX_PIXELS, VideoDecoder, vp8_key_size
from duologue.rtc.config import IceServer, PeerConfig, PeerError
from duologue.rtc.peer import MAX_FRAGMENTS, MAX_SOURCES, MAX_STREAMS, Peer
from duologue.video import VideoFrame


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture):
    """Assert that input from a far side causes no warning and no traceback."""
    yield caplog
    assert not [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def candidate(host: str, port: int = 5000, transport: str = "udp", component: int = 1) -> str:
    return f"1 {component} {transport} 2130706431 {host} {port} typ host"


@pytest.mark.parametrize(
    ("host", "outside", "here"),
    [
        ("192.0.2.1", True, True),
        ("10.0.0.5", True, True),
        ("2001:db8::1", True, True),
        ("fd00::1", True, True),
        ("127.0.0.1", False, True),
        ("127.8.8.8", False, True),
        ("::1", False, True),
        ("::ffff:127.0.0.1", False, True),
        ("2002:7f00:1::", False, True),
        ("169.254.169.254", False, False),
        ("fe80::1", False, False),
        ("fe80::1%eth0", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("64:ff9b::a9fe:a9fe", False, False),
        ("224.0.0.251", False, False),
        ("ff02::fb", False, False),
        ("255.255.255.255", False, False),
        ("0.0.0.0", False, False),  # noqa: S104
        ("0.0.0.1", False, False),
        ("::", False, False),
        ("printer.local", False, False),
        ("example.org", False, False),
        ("2130706433", False, False),
        ("0x7f000001", False, False),
        ("", False, False),
    ],
)
def test_only_some_addresses_may_be_named(host: str, outside: bool, here: bool) -> None:
    assert CandidateGate(loopback=False).admits(candidate(host)) is outside
    assert CandidateGate(loopback=True).admits(candidate(host)) is here


@pytest.mark.parametrize(
    "text",
    [
        candidate("192.0.2.1", 0),
        candidate("192.0.2.1", 65536),
        candidate("192.0.2.1", transport="tcp"),
        candidate("192.0.2.1", component=2),
        "1 1 udp 1 192.0.2.1 -5 typ host",
        "1 1 udp 1 192.0.2.1 ٣ typ host",
        "1 1 udp 1 192.0.2.1 " + "9" * 9999 + " typ host",
        "1",
        "",
    ],
)
def test_invalid_candidates_are_left_out(text: str) -> None:
    gate = CandidateGate(loopback=False)
    assert not gate.admits(text)
    assert gate.refused == 1


def test_a_call_may_name_few_addresses_over_all_its_descriptions() -> None:
    gate = CandidateGate(loopback=False)
    named = [gate.admits(candidate(f"192.0.2.{number}")) for number in range(40)]
    assert named == [True] * MAX_CANDIDATES + [False] * (40 - MAX_CANDIDATES)
    assert gate.admits(candidate("192.0.2.0"))


AUDIO = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 opus/48000/2\r\n"


@pytest.mark.parametrize("separator", ["\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_no_candidate_hides_behind_an_unusual_line_end(separator: str) -> None:
    hidden = f"a=x:y{separator}a=candidate:{candidate('127.0.0.1')}\r\n"
    text = descriptions.sanitize(AUDIO + hidden, CandidateGate(loopback=False))
    assert "127.0.0.1" not in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("a=x\r\n" * 2000, "over 1500 lines"),
        ("m=video 9 UDP/TLS/RTP/SAVPF 97\r\n" * 9, "over 8 sections"),
        ("a=rtpmap:97 x/1\r\n" * 300, "over 256 codecs"),
        ("a=candidate:1\r\n" * 80, "over 64 candidates"),
        ("m=video 9 UDP/TLS/RTP/SAVPF" + " 97" * 9999 + "\r\n", "over 256 words"),
    ],
)
def test_a_description_that_takes_long_to_parse_is_refused(more: str, message: str) -> None:
    with pytest.raises(PeerError, match=message):
        descriptions.sanitize(AUDIO + more, CandidateGate(loopback=False))


class Witness(asyncio.DatagramProtocol):
    """Yield a socket that a stranger names, and the packets that it receives."""

    def __init__(self) -> None:
        self.packets = 0

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.packets += 1


@pytest.mark.parametrize("loopback", [True, False])
async def test_packets_go_to_few_named_addresses_and_to_loopback_only_from_this_machine(
    loopback: bool,
) -> None:
    loop = asyncio.get_running_loop()
    named = [
        await loop.create_datagram_endpoint(Witness, local_addr=("127.0.0.1", 0))
        for _ in range(MAX_CANDIDATES + 6)
    ]
    caller = Peer(CONFIG, on_audio=nothing)
    callee = Peer(replace(CONFIG, loopback=loopback), on_audio=nothing)
    try:
        lines = (await caller.offer()).splitlines()
        head = [line for line in lines if not line.startswith(("a=candidate", "a=end-of"))]
        ports = [transport.get_extra_info("sockname")[1] for transport, _ in named]
        offer = head + [f"a=candidate:{candidate('127.0.0.1', port)}" for port in ports]
        await callee.accept("\r\n".join(offer) + "\r\n")
        await asyncio.sleep(0.6)
        reached = sum(witness.packets > 0 for _, witness in named)
        assert reached == (MAX_CANDIDATES if loopback else 0)
        refused = len(named) - reached
        assert callee.counters["candidates_refused"] == refused
    finally:
        await caller.close()
        await callee.close()
        for transport, _ in named:
            transport.close()


async def test_the_number_of_addresses_learnt_from_checks_is_limited(quiet) -> None:
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=nothing)
    async with connected(caller, callee):
        ours = caller._transceiver.receiver.transport.transport.iceGatherer._connection
        theirs = callee._transceiver.receiver.transport.transport.iceGatherer._connection
        (pair,) = ours._nominated.values()
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(60)]
        for number, stranger in enumerate(sockets):
            check = ours.build_request(pair, nominate=False)
            if number % 2:
                del check.attributes["PRIORITY"]
            check.add_message_integrity(ours.remote_password.encode())
            stranger.sendto(bytes(check), pair.remote_addr)
        await asyncio.sleep(0.3)
        assert len(theirs._remote_candidates) <= 32
        assert callee.state == "connected"
        for stranger in sockets:
            stranger.close()


async def test_the_number_of_kept_sources_is_limited(quiet) -> None:
    received: list[AudioFrame] = []
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=received.append)
    async with connected(caller, callee):
        await pace(caller, 5, TONE)
        transport = caller._transceiver.sender.transport
        kind = caller._transceiver._codecs[0].payloadType
        for number in range(300):
            head = struct.pack("!BBHII", 0x80, kind, number, number * 960, 1000 + number)
            await transport._send_rtp(head + b"\xf8\xff\xfe")
        await asyncio.sleep(0.2)
        assert callee.counters["packets"] <= MAX_SOURCES + 5
        table = callee._transceiver.receiver.transport._rtp_router.ssrc_table
        assert len(table) <= MAX_SOURCES
        before = len(received)
        await pace(caller, 10, TONE)
        await until(lambda: len(received) >= before + 9)


def chunk(tsn: int, stream: int, data: bytes, flags: int = 3) -> DataChunk:
    chunk = DataChunk(flags=flags)
    chunk.tsn, chunk.stream_id, chunk.stream_seq = tsn, stream, 0
    chunk.protocol, chunk.user_data = 51, data
    return chunk


async def test_a_data_channel_keeps_few_parts_of_incomplete_messages(quiet) -> None:
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=nothing)
    async with connected(caller, callee):
        ours, theirs = caller._connection.sctp, callee._connection.sctp
        await until(lambda: ours.state == theirs.state == "connected")
        await asyncio.sleep(0.1)
        tsn = ours._local_tsn
        for number in range(1500):  # every second part is missing, and no message is ever complete
            await ours._send_chunk(chunk(tsn + 2 * number + 1, 1, b"x", flags=6))
            if number % 10 == 0:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert 100 < len(theirs._sack_misordered) <= MAX_FRAGMENTS
        assert len(theirs._inbound_streams[1].reassembly) <= MAX_FRAGMENTS
        for number in range(200):
            await ours._send_chunk(chunk(tsn, 100 + number, b"x", flags=2))
            tsn = tsn_plus_one(tsn)
        await asyncio.sleep(0.2)
        assert len(theirs._inbound_streams) <= MAX_STREAMS
        assert callee.state == "connected"


async def test_an_invalid_data_channel_packet_is_dropped(quiet) -> None:
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=nothing)
    async with connected(caller, callee):
        ours, theirs = caller._connection.sctp, callee._connection.sctp
        await until(lambda: ours.state == theirs.state == "connected")
        await asyncio.sleep(0.1)
        opening = struct.pack("!BBHLHH", 3, 0, 0, 0, 1, 0) + b"x"
        for data in (opening, opening, b"\x02", struct.pack("!BBHLHH", 3, 0, 0, 0, 1, 0) + b"\xff"):
            sent = chunk(ours._local_tsn, 9, data, flags=7)
            sent.protocol = 50
            ours._local_tsn = tsn_plus_one(ours._local_tsn)
            await ours._send_chunk(sent)
        await asyncio.sleep(0.3)
        assert callee.state == "connected"


async def test_an_acknowledgement_of_unsent_data_takes_no_time(quiet) -> None:
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=nothing)
    async with connected(caller, callee):
        ours, theirs = caller._connection.sctp, callee._connection.sctp
        await until(lambda: ours.state == theirs.state == "connected")
        await asyncio.sleep(0.1)
        sack = SackChunk()
        sack.cumulative_tsn = theirs._last_sacked_tsn
        sack.advertised_rwnd = 1 << 20
        sack.gaps = [(1, 65535)] * 250
        began = time.perf_counter()
        await theirs._receive_chunk(sack)
        assert time.perf_counter() - began < 1.0  # 5 s without the limit


async def test_jumping_numbers_of_video_packets_take_no_time(quiet) -> None:
    caller = Peer(replace(CONFIG, send_video=True), on_audio=nothing)
    callee = Peer(replace(CONFIG, video=True), on_audio=nothing)
    async with connected(caller, callee):
        camera = caller._connection.getTransceivers()[1]
        kind = next(c.payloadType for c in camera._codecs if c.name == "VP8")
        receiver = callee._connection.getTransceivers()[1].receiver
        took = 0.0
        for number in range(100):
            packet = RtpPacket(
                payload_type=kind, sequence_number=number * 32000 & 0xFFFF, timestamp=0, ssrc=7
            )
            packet.payload = b"\x10\x01"
            began = time.perf_counter()
            await receiver._handle_rtp_packet(packet, arrival_time_ms=0)
            took += time.perf_counter() - began
        assert took < 2.0  # 6 s without the limit


async def test_packets_from_strangers_who_know_the_port_do_nothing(quiet) -> None:
    received: list[AudioFrame] = []
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=received.append)
    async with connected(caller, callee):
        ours = caller._transceiver.receiver.transport.transport.iceGatherer._connection
        (pair,) = ours._nominated.values()
        check = bytes(ours.build_request(pair, nominate=False))
        odd = [b"", b"\x00", b"\x16", b"\x80", b"\x80\xc8", b"\x3f" * 50, b"\xff" * 50]
        odd += [check[:size] for size in range(0, len(check), 3)]
        for at in range(len(check)):
            odd += [check[:at] + bytes([value]) + check[at + 1 :] for value in (0, 1, 255)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for number, packet in enumerate(odd):
                stranger.sendto(packet, pair.remote_addr)
                if number % 20 == 0:
                    await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        assert callee.state == "connected"
        await pace(caller, 10, TONE)
        await until(lambda: len(received) >= 9)


async def test_endless_descriptions_end_the_call() -> None:
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=nothing)
    try:
        offer = await caller.offer()
        for _ in range(8):
            await callee.accept(offer)
        with pytest.raises(PeerError, match="over 8 descriptions"):
            await callee.accept(offer)
    finally:
        await caller.close()
        await callee.close()


def vp8(width: int, height: int, images: int = 1) -> list[bytes]:
    """Return a key frame and the frames after it."""
    codec = av.CodecContext.create("libvpx", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.time_base = Fraction(1, 30)
    codec.options = {"lag-in-frames": "0", "deadline": "realtime"}
    frames = []
    for number in range(images):
        pixels = np.full((height, width, 3), 10 + 60 * number, np.uint8)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts = number
        frames += [bytes(packet) for packet in codec.encode(frame)]
    return frames + [bytes(packet) for packet in codec.encode(None)]


def claiming(data: bytes, width: int, height: int) -> bytes:
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def test_the_size_of_a_video_frame_is_known_before_decoding() -> None:
    key, *later = vp8(32, 16, 3)
    assert vp8_key_size(key) == (32, 16)
    assert [vp8_key_size(data) for data in later] == [None, None]
    assert vp8_key_size(claiming(key, 0xFFFF, 0x7FFF)) == (16383, 16383)
    assert vp8_key_size(key[:9]) == vp8_key_size(b"") == (0, 0)


async def decoded(*frames: bytes, name: str = "VP8") -> tuple[list[tuple[int, int]], int]:
    """Return the sizes of the decoded frames and the number of dropped ones."""
    frames_received: list[tuple[int, int]] = []
    dropped: list[None] = []
    waiting: queue.Queue[object] = queue.Queue()
    decoder = VideoDecoder(
        asyncio.get_running_loop(),
        lambda image: frames_received.append((image.width, image.height)),
        lambda: dropped.append(None),
    )
    thread = threading.Thread(target=decoder.run, args=(waiting, threading.Event()))
    thread.start()
    for number, data in enumerate(frames):
        seen = len(frames_received) + len(dropped)
        frame = SimpleNamespace(data=data, timestamp=number * 3000)
        waiting.put((SimpleNamespace(name=name), frame))
        await until(lambda seen=seen: len(frames_received) + len(dropped) > seen)
    waiting.put(None)
    await asyncio.to_thread(thread.join)
    return frames_received, len(dropped)


async def test_a_video_frame_that_is_too_large_is_dropped_with_all_that_refer_to_it(quiet) -> None:
    key, *later = vp8(32, 16, 3)
    bomb = claiming(key, 16383, 16383)
    assert MAX_PIXELS < 16383 * 16383
    assert await decoded(bomb, *later, key, *later) == ([(32, 16)] * 3, 3)


async def test_invalid_video_frames_are_dropped_silently(quiet) -> None:
    key, *later = vp8(32, 16, 3)
    frames_received, dropped = await decoded(
        key, b"\x00" * 40, b"", b"\x01", later[0], key, later[0]
    )
    assert frames_received == [(32, 16)] * 3
    assert dropped == 4
    assert await decoded(key, name="H264") == ([], 1)


async def test_video_frames_are_decoded_at_a_limited_rate() -> None:
    key, *_ = vp8(32, 16)
    frames_received, dropped = await decoded(*[key] * 200)
    assert 60 <= len(frames_received) < 150
    assert dropped == 200 - len(frames_received)


async def test_a_decompression_bomb_takes_no_memory_and_the_camera_continues(quiet) -> None:
    frames_received: list[Callable[[], VideoFrame]] = []
    caller = Peer(replace(CONFIG, send_video=True), on_audio=nothing)
    callee = Peer(replace(CONFIG, video=True), on_audio=nothing, on_video=frames_received.append)
    async with connected(caller, callee):
        image = VideoFrame(np.zeros((16, 32, 3), np.uint8), 0.0)
        async with asyncio.timeout(10):
            while not frames_received:
                caller.send_video(image)
                await asyncio.sleep(0.03)
        camera = caller._connection.getTransceivers()[1]
        kind = next(c.payloadType for c in camera._codecs if c.name == "VP8")
        bomb = claiming(vp8(32, 16)[0], 16383, 16383)
        for number in range(40):
            head = struct.pack("!BBHII", 0x80, 0x80 | kind, 3000 + number, number * 3000, 77)
            await camera.sender.transport._send_rtp(head + b"\x10" + bomb)
        await until(lambda: callee.counters["video_dropped"] > 10)
        assert {frame().pixels.shape for frame in frames_received} == {(16, 32, 3)}
        assert callee.state == "connected"


def test_the_repr_of_a_configuration_hides_its_credentials() -> None:
    turn = IceServer("turn:relay.example", "me", "hidden")
    assert "hidden" not in repr(PeerConfig(ice_servers=(turn,)))
