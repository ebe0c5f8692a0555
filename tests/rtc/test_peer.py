"""Two real peers on loopback: audio both ways, loss, reports, video, messages, bounded ends."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

pytest.importorskip("av", reason="the webrtc extra is not installed")
pytest.importorskip("aiortc", reason="the webrtc extra is not installed")

import av
from aioice.ice import get_host_addresses
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)

from duologue.audio import AudioFrame
from duologue.clock import LoopClock
from duologue.errors import ConfigError, UnsupportedError
from duologue.rtc import _aiortc
from duologue.rtc.config import IceServer, PeerConfig, PeerError
from duologue.rtc.peer import Peer
from duologue.testing.network import BadNetwork
from duologue.ticker import ticker_for
from duologue.video import VideoFrame

CONFIG = PeerConfig(loopback=True)
RATE = 24000
TONE = AudioFrame((8000 * np.sin(np.arange(480) * 0.2)).astype(np.int16), RATE)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def nothing(frame: AudioFrame) -> None:
    pass


@asynccontextmanager
async def connected(
    caller: Peer, callee: Peer, network: BadNetwork | None = None
) -> AsyncIterator[None]:
    reroute = network.reroute if network else lambda kind, sdp: sdp
    try:
        offer = reroute("offer", await caller.offer())
        await caller.answer(reroute("answer", await callee.accept(offer)))
        await until(lambda: caller.state == callee.state == "connected")
        yield
    finally:
        await caller.close()
        await callee.close()


async def pace(peer: Peer, frames: int, frame: AudioFrame | None) -> None:
    done = asyncio.Event()
    left = frames

    def tick(_: float) -> None:
        nonlocal left
        peer.send_audio(frame)
        left -= 1
        if left == 0:
            done.set()

    subscription = ticker_for(LoopClock()).subscribe(tick)
    await done.wait()
    subscription.cancel()


async def test_an_echo_returns_in_order_and_at_once() -> None:
    received: list[tuple[float, AudioFrame]] = []
    caller = Peer(CONFIG, on_audio=lambda f: received.append((time.perf_counter(), f)))
    callee = Peer(CONFIG, on_audio=lambda f: callee.send_audio(f) and None)
    async with connected(caller, callee):
        trips = []
        for i in range(60):
            loud = i % 12 == 11
            received.clear()
            sent = time.perf_counter()
            caller.send_audio(TONE if loud else None)
            await asyncio.sleep(0.02)
            if loud:
                trips += [t - sent for t, f in received if np.abs(f.samples).max() > 3000][:1]
        assert len(trips) == 5
        assert sorted(trips)[2] < 0.02
        assert caller.counters["packets"] == callee.counters["packets"] == 60
        assert caller.counters["lost"] == 0
        assert {f.rate for _, f in received} == {RATE}
        assert {len(f) for _, f in received} == {480}


async def test_rates_may_differ_in_each_direction() -> None:
    received: list[AudioFrame] = []
    caller = Peer(replace(CONFIG, send_rate=48000), on_audio=nothing)
    callee = Peer(replace(CONFIG, receive_rate=16000), on_audio=received.append)
    wide = AudioFrame(np.repeat(TONE.samples, 2), 48000)
    async with connected(caller, callee):
        await pace(caller, 10, wide)
        await until(lambda: len(received) == 10)
        assert {(f.rate, len(f)) for f in received} == {(16000, 320)}
        with pytest.raises(ValueError, match="48000"):
            caller.send_audio(TONE)


async def test_timestamps_advance_whatever_is_sent() -> None:
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=nothing)
    before = caller.send_audio(TONE)  # not connected: counted, not sent
    async with connected(caller, callee):
        stamps = [caller.send_audio(TONE if i % 3 else None) for i in range(40)]
        assert [(s - before) & 0xFFFFFFFF for s in stamps] == [960 * (i + 1) for i in range(40)]
        assert caller.timestamp == (before + 960 * 41) & 0xFFFFFFFF
        assert caller.frames == 41
        await until(lambda: callee.last_received == stamps[-1])


async def test_loss_is_filled_counted_and_reported_correctly() -> None:
    received: list[int] = []
    caller = Peer(CONFIG, on_audio=nothing)
    callee = Peer(CONFIG, on_audio=lambda f: received.append(len(f)))
    async with BadNetwork(loss=0.1) as network, connected(caller, callee, network):
        await pace(caller, 150, TONE)
        await pace(caller, 5, None)
        await asyncio.sleep(0.1)
        counters = callee.counters
        assert network.lost > 5
        assert counters["packets"] == network.passed
        assert counters["packets"] + counters["lost"] == pytest.approx(155, abs=2)
        assert counters["fec"] > 0
        # There is no gap and no growth: as much audio frames_received out as went in.
        assert sum(received) == pytest.approx(155 * 480, abs=2 * 480)
        # What the far side reports about its stream, received by RTCP.
        reports: list[Any] = []
        async with asyncio.timeout(4):
            while not reports or reports[0].packetsLost < network.lost:
                await asyncio.sleep(0.1)
                stats = (await caller._connection.getStats()).values()
                reports = [s for s in stats if s.type == "remote-inbound-rtp"]
        assert reports[0].packetsLost == pytest.approx(network.lost, abs=2)
        assert reports[0].packetsReceived == pytest.approx(network.passed, abs=2)


async def test_reordered_packets_are_put_in_order() -> None:
    received: list[AudioFrame] = []
    caller = Peer(CONFIG, on_audio=nothing)
    callee = Peer(CONFIG, on_audio=received.append)
    async with BadNetwork(jitter=0.035, seed=3) as network, connected(caller, callee, network):
        await pace(caller, 75, TONE)
        await asyncio.sleep(0.1)
        assert callee.counters["packets"] == 75
        assert callee.counters["lost"] == callee.counters["late"] == 0
        assert len(received) == 75


async def test_a_dead_connection_is_noticed_and_an_interrupted_one_recovers() -> None:
    states: list[str] = []
    config = replace(CONFIG, interrupted_after=2.0, failed_after=4.0)
    caller = Peer(config, on_audio=nothing)
    callee = Peer(config, on_audio=nothing, on_state=lambda s, _: states.append(s))
    async with BadNetwork() as network, connected(caller, callee, network):
        network.cut = True
        start = time.perf_counter()
        await until(lambda: callee.state == "interrupted", 3)
        assert time.perf_counter() - start < 2.2
        network.cut = False
        await until(lambda: callee.state == "connected", 3)
        network.cut = True
        await until(lambda: callee.state == "failed", 6)
        assert "silent" in callee.reason
        assert time.perf_counter() - start < 9
    assert states == ["connecting", "connected", "interrupted", "connected", "interrupted",
                      "failed", "closed"]  # fmt: skip


async def test_a_call_without_an_answerer_fails_in_time() -> None:
    states: list[tuple[str, str]] = []
    peer = Peer(
        replace(CONFIG, connect_timeout=0.3),
        on_audio=nothing,
        on_state=lambda s, r: states.append((s, r)),
    )
    other = Peer(CONFIG, on_audio=nothing)
    async with BadNetwork() as network:
        network.cut = True
        offer = network.reroute("offer", await other.offer())
        await peer.accept(offer)
        await until(lambda: peer.state == "failed", 1)
        assert peer.reason == "no connection within 0.3 s"
        start = time.perf_counter()
        await peer.close()
        await other.close()
        assert time.perf_counter() - start < 0.5


async def test_close_ends_both_sides_and_leaves_nothing() -> None:
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=nothing)
    async with connected(caller, callee):
        start = time.perf_counter()
        await caller.close()
        await until(lambda: callee.state == "closed", 1)
        await asyncio.gather(callee.close(), callee.close(), caller.close())
        assert time.perf_counter() - start < 0.5
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() <= tasks
    assert threading.active_count() == threads


async def test_many_calls_leave_no_task_thread_or_socket() -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counting open files needs /proc")
    counts = []
    for _ in range(12):
        caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=nothing)
        async with connected(caller, callee):
            caller.send_audio(TONE)
        await asyncio.sleep(0.02)
        counts.append((len(asyncio.all_tasks()), threading.active_count(), open_files()))
    assert counts[-1] == counts[1]


@pytest.mark.parametrize("step", range(3))
async def test_close_works_in_any_state(step: int) -> None:
    tasks = asyncio.all_tasks()
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=nothing)
    offer = await caller.offer() if step > 0 else ""
    if step > 1:
        await caller.answer(await callee.accept(offer))
        await asyncio.sleep(0.01)
    start = time.perf_counter()
    await caller.close()
    await callee.close()
    assert time.perf_counter() - start < 0.5
    await asyncio.sleep(0.1)
    assert asyncio.all_tasks() <= tasks


async def test_messages_go_both_ways_and_early_ones_wait() -> None:
    at_caller: list[str] = []
    at_callee: list[str] = []
    caller = Peer(CONFIG, on_audio=nothing, on_message=at_caller.append)
    callee = Peer(CONFIG, on_audio=nothing, on_message=at_callee.append)
    for i in range(70):
        assert caller.send_message(f"early {i}")
    assert caller.counters["messages_dropped"] == 6
    async with connected(caller, callee):
        await until(lambda: len(at_callee) == 64)
        assert at_callee[0] == "early 6"
        assert callee.send_message("ä")
        await until(lambda: at_caller == ["ä"])
        results = [callee.send_message("x" * 60000) for _ in range(20)]
        assert results[0]
        assert not results[-1]
        assert callee.counters["messages_dropped"] == results.count(False)


class Pictures(MediaStreamTrack):
    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    async def recv(self) -> Any:
        await asyncio.sleep(0.03)
        image = np.full((120, 160, 3), (200, 40, 40), np.uint8)
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = self.count * 2700, Fraction(1, 90000)
        self.count += 1
        return frame


@pytest.mark.parametrize("wanted", [True, False])
async def test_video_frames_are_sent_only_when_wanted_and_never_queue(wanted: bool) -> None:
    frames_received: list[Callable[[], VideoFrame]] = []
    callee = Peer(replace(CONFIG, video=wanted), on_audio=nothing, on_video=frames_received.append)
    stock = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    stock.addTransceiver("audio")
    track = Pictures()
    stock.addTrack(track)
    try:
        await stock.setLocalDescription(await stock.createOffer())
        answer = await callee.accept(stock.localDescription.sdp)
        await stock.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await until(lambda: callee.state == "connected")
        threads = [t for t in threading.enumerate() if t.name.startswith("audio-decoder")]
        assert len(threads) <= 1  # the unmodified peer's own tasks
        if wanted:
            await until(lambda: len(frames_received) >= 3)
            image = frames_received[-1]()
            assert image.pixels.shape == (120, 160, 3)
            assert np.abs(image.pixels[60, 80].astype(int) - (200, 40, 40)).max() < 12
        else:
            assert "a=inactive" in answer
            await asyncio.sleep(0.3)
            assert frames_received == []
            assert callee.counters["video_frames"] == 0
    finally:
        await callee.close()
        await stock.close()


async def test_a_camera_may_be_added_later_by_a_second_offer() -> None:
    frames_received: list[Callable[[], VideoFrame]] = []
    received: list[AudioFrame] = []
    callee = Peer(
        replace(CONFIG, video=True), on_audio=received.append, on_video=frames_received.append
    )
    stock = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    stock.addTransceiver("audio")

    async def agree() -> None:
        await stock.setLocalDescription(await stock.createOffer())
        answer = await callee.accept(stock.localDescription.sdp)
        await stock.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    try:
        await agree()
        await until(lambda: callee.state == "connected")
        stock.addTrack(Pictures())
        await agree()
        await until(lambda: len(frames_received) >= 3)
        assert callee.state == "connected"
    finally:
        await callee.close()
        await stock.close()


async def test_a_callback_that_fails_does_not_end_the_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the user's own mistake")

    received: list[AudioFrame] = []

    def hear(frame: AudioFrame) -> None:
        received.append(frame)
        fail()

    caller = Peer(CONFIG, on_audio=nothing)
    callee = Peer(CONFIG, on_audio=hear, on_message=fail, on_state=fail)
    async with connected(caller, callee):
        caller.send_message("a")
        caller.send_message("b")
        await pace(caller, 5, TONE)
        await until(lambda: len(received) == 5)
        assert callee.state == "connected"
    assert "the call continues" in caplog.text


@pytest.mark.parametrize(
    ("sdp", "message"),
    [
        ("", "no audio"),
        ("v=0\r\nm=video 9 x 1\r\n", "no audio"),
        ("v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=rtpmap:0 PCMU/8000\r\n", "no Opus"),
        ("v=0\r\nm=audio 9 x 96\r\na=rtpmap:96 opus/48000/2\r\n", "could not be used"),
        ("x" * 70000, "65536"),
        ("a=candidate:1\r\n" * 80, "64 candidates"),
    ],
)
async def test_an_invalid_offer_is_refused_with_a_sentence(sdp: str, message: str) -> None:
    peer = Peer(CONFIG, on_audio=nothing)
    with pytest.raises(PeerError, match=message):
        await peer.accept(sdp)
    await peer.close()


async def test_the_answer_requests_fec_and_no_more_bandwidth_than_is_decoded() -> None:
    caller = Peer(CONFIG, on_audio=nothing)
    callee = Peer(replace(CONFIG, receive_rate=16000), on_audio=nothing)
    answer = await callee.accept(await caller.offer())
    assert "useinbandfec=1" in answer
    assert "maxplaybackrate=16000" in answer
    assert "127.0.0.1" in answer
    await callee.close()
    await caller.close()


async def test_loopback_is_offered_only_on_request() -> None:
    if not get_host_addresses(use_ipv4=True, use_ipv6=True):
        pytest.skip("this machine has no address but loopback")
    peer = Peer(PeerConfig(), on_audio=nothing)
    assert "127.0.0.1" not in await peer.offer()
    await peer.close()


async def test_datagrams_are_read_into_a_small_buffer_that_holds_the_largest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caller, callee = Peer(CONFIG, on_audio=nothing), Peer(CONFIG, on_audio=nothing)
    async with connected(caller, callee):
        [ice] = _aiortc.ice_transports(callee._connection)
        protocols = ice.iceGatherer._connection._protocols
        assert protocols
        assert {getattr(p.transport, "max_size", None) for p in protocols} == {65536}

        received: list[bytes] = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

            def data_received(data: bytes, component: int) -> None:
                received.append(data)

            monkeypatch.setattr(protocols[0].receiver, "data_received", data_received)
            sender.sendto(bytes(65507), protocols[0].transport.get_extra_info("sockname"))
            await until(lambda: any(len(data) == 65507 for data in received))


async def test_transports_of_other_event_loops_are_left_alone() -> None:
    transport = asyncio.DatagramTransport()
    _aiortc.shrink_reads(transport)
    assert not hasattr(transport, "max_size")


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="44100"):
        PeerConfig(send_rate=44100)
    with pytest.raises(ConfigError, match="stun:"):
        IceServer("http://example.org")


def test_changed_internals_of_aiortc_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _aiortc.verify()
    monkeypatch.setattr(_aiortc, "version", lambda _: "1.17.0")
    monkeypatch.delattr(_aiortc.RTCRtpReceiver, "_handle_rtp_packet")
    with pytest.raises(UnsupportedError, match=r"1\.17\.0.*_handle_rtp_packet.*aiortc>=1\.16"):
        _aiortc.verify()


def test_a_missing_private_part_names_the_versions_that_work() -> None:
    code = (
        "import aiortc.rtcrtpreceiver as receiver, aioice.ice as ice\n"
        "{change}\n"
        "try: import duologue.rtc.peer\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    for change in ("del receiver.NackGenerator", "del ice.Connection.check_incoming"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(change=change)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.startswith("UnsupportedError aiortc 1.16")
        assert "pip install 'aiortc>=1.16,<1.17' 'aioice>=0.12,<0.14'" in done.stdout
        assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("missing", ["aiortc", "starlette", "uvicorn"])
def test_without_the_extra_the_page_names_the_extra_that_contains_everything(missing: str) -> None:
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "try: from duologue.edges import browser; browser.Edge()\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{missing} is not installed: pip install 'duologue[browser]'"
