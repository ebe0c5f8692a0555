"""A live call while strangers and other callers attack the server in every way they can."""

import asyncio
import json
import logging
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path

import websockets
from server_fixture import Served, serving, until
from test_server_strangers import UPGRADE, frame, upgraded

from duologue.audio import AudioFrame
from duologue.hosting import create_app
from test_hosting import CONFIG, calling, scripted


async def unfinished_requests(server: Served) -> None:
    for number in range(300):
        _, writer = await asyncio.open_connection("localhost", server.port)
        writer.write(UPGRADE if number % 2 else b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")


async def silent_sockets(server: Served) -> None:
    for _ in range(150):
        await upgraded(server)


async def odd_hellos(server: Served) -> None:
    for payload in (b"\xff\xfe", b'{"type": "hello", "token": "\\ud800"}', b"[" * 100, b"{}"):
        for opcode in (0x81, 0x82, 0x83, 0x80, 0x88):
            _, writer = await upgraded(server)
            writer.write(frame(opcode, payload))


async def pings(server: Served) -> None:
    for _ in range(10):
        _, writer = await upgraded(server)
        writer.write(frame(0x89) * 5000)


async def odd_offers(server: Served) -> None:
    section = "m=video 9 UDP/TLS/RTP/SAVPF 97\r\na=rtpmap:97 H264/90000\r\n"
    for sdp in (
        "",
        5,
        "v=0",
        "\x00" * 1000,
        "m=audio 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 opus/48000/2\r\n" + section * 400,
        "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF" + " 96" * 20000 + "\r\na=rtpmap:96 opus/48000/2\r\n",
        "v=0\r\nm=audio 9 x 96\r\n" + "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 x=y\r\n" * 1400,
    ):
        with suppress(websockets.ConnectionClosed, TimeoutError):
            async with server.socket() as caller:
                await caller.send(json.dumps({"type": "offer", "sdp": sdp}))
                async with asyncio.timeout(1):
                    while True:
                        await caller.recv()


async def packets_to_every_port(server: Served) -> None:
    """Send arbitrary UDP packets to all ports of this process, but not to those of other tests."""
    ours = {link.readlink().name for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    with open("/proc/self/net/udp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    ports = [int(row[1].split(":")[1], 16) for row in rows if f"socket:[{row[9]}]" in ours]
    assert ports
    binding = struct.pack("!HHI", 1, 8, 0x2112A442) + bytes(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for port in ports:
            for packet in (
                b"",
                b"\x00",
                b"\x16" * 40,
                b"\x80" * 40,
                binding,
                binding + b"\x00\x06\xff\xff",
            ):
                with suppress(OSError):
                    stranger.sendto(packet, ("127.0.0.1", port))


async def test_a_live_call_continues_under_attack(caplog):
    caplog.set_level(logging.INFO)
    received: list[float] = []
    late: list[float] = []

    async def watch() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            late.append(time.perf_counter() - before - 0.01)

    app = create_app(lambda edge: scripted(edge, "Still here."), CONFIG)
    async with serving(app, CONFIG) as server:
        tone = AudioFrame.silence(0.02, 24000)
        async with calling(server, lambda frame: received.append(time.perf_counter())) as caller:
            watching = asyncio.create_task(watch())
            for attack in (
                unfinished_requests,
                silent_sockets,
                odd_hellos,
                pings,
                odd_offers,
                packets_to_every_port,
            ):
                before = len(received)
                await attack(server)
                caller.send(tone)
                await until(lambda before=before: len(received) > before + 5)
                assert not caller.ended.is_set(), attack
            watching.cancel()
            await caller.send_text("Are you there?")
            await until(lambda: any("Still" in str(event) for event in caller.events))
            assert (await server.get("/health"))[0] == 200
            async with server.socket() as other:
                assert json.loads(await other.recv())["type"] == "config"
        await until(lambda: server.calls.sessions == 0)
    # No packet blocked the event loop for long, and nothing is in the log.
    assert max(late) < 2.0
    noise = [
        record.getMessage()
        for record in caplog.records
        if record.exc_info or record.levelno >= logging.ERROR
    ]
    assert noise == []
