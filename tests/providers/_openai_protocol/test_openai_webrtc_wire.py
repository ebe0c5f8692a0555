"""The WebRTC wire against a real peer behind a real HTTP server, on loopback."""

import asyncio
import gc
import json
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiohttp import web

from duologue.audio import AudioFrame
from duologue.errors import ErrorKind, SessionError
from duologue.providers._openai_protocol import webrtc
from duologue.providers._openai_protocol.webrtc import WebRTCWire
from duologue.rtc.config import PeerConfig
from duologue.rtc.peer import Peer
from duologue.testing.network import BadNetwork

TONE = AudioFrame((8000 * np.sin(np.arange(480) * 0.2)).astype(np.int16), 24000)


class Service:
    """Answers offers as OpenAI does; ``refusal`` is a status and a body to return instead."""

    def __init__(self):
        self.peer = None
        self.parts = {}
        self.headers = {}
        self.texts = []
        self.heard = []
        self.refusal = None
        self.answer = None
        self.network = None
        self.hang = False

    async def call(self, request):
        self.headers = dict(request.headers)
        async for part in await request.multipart():
            content = (part.headers["Content-Type"], part.filename, await part.text())
            self.parts[part.name] = content
        if self.hang:
            await asyncio.sleep(0.5)
        if self.refusal is not None:
            status, body = self.refusal
            return web.json_response(body, status=status)
        if self.answer is not None:
            return web.Response(text=self.answer, status=201)
        self.peer = Peer(
            PeerConfig(channel="oai-events", loopback=True),
            on_audio=lambda frame: self.heard.append((time.perf_counter(), frame)),
            on_message=self.texts.append,
        )
        offer = self.parts["sdp"][2]
        if self.network is not None:
            offer = self.network.reroute("offer", offer)
        answer = await self.peer.accept(offer)
        if self.network is not None:
            answer = self.network.reroute("answer", answer)
        return web.Response(text=answer, status=201, content_type="application/sdp")


@asynccontextmanager
async def service():
    answering = Service()
    application = web.Application()
    application.router.add_post("/v1/realtime/calls", answering.call)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    answering.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/realtime/calls"
    try:
        yield answering
    finally:
        if answering.peer is not None:
            await answering.peer.close()
        await runner.cleanup()


def wire_to(answering):
    headers = {"Authorization": "Bearer k"}
    return WebRTCWire(answering.url, headers=headers, session={"type": "realtime"})


@asynccontextmanager
async def connected():
    async with service() as answering:
        wire = wire_to(answering)
        try:
            await wire.open()
            yield answering, wire
        finally:
            await wire.close()


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_one_request_opens_a_call_with_events_and_audio_both_ways():
    async with connected() as (answering, wire):
        assert answering.headers["Authorization"] == "Bearer k"
        assert answering.headers["Accept"] == "application/sdp"
        assert answering.parts["sdp"][:2] == ("application/sdp", None)
        assert answering.parts["session"] == ("application/json", None, '{"type":"realtime"}')
        await wire.send('{"type":"ä"}'.encode())
        await until(lambda: answering.texts == ['{"type":"ä"}'])
        for _ in range(10):
            await wire.send(TONE)
        await until(lambda: len(answering.heard) == 10)
        answering.peer.send_message('{"type":"ö"}')
        assert await wire.receive() == '{"type":"ö"}'.encode()
        for _ in range(5):
            answering.peer.send_audio(TONE)
        frames = [await wire.receive() for _ in range(5)]
        assert {len(frame) for frame in frames} == {480}
        assert np.abs(frames[-1].samples).max() > 3000


async def test_audio_of_any_length_is_sent_as_20_ms_frames():
    async with connected() as (answering, wire):
        for length in (100, 700, 160):
            await wire.send(AudioFrame(np.full(length, 3000, np.int16), 24000))
        await until(lambda: len(answering.heard) == 2)


async def test_backlog_is_sent_at_twice_real_time_without_long_silence():
    async with connected() as (answering, wire):
        began = time.perf_counter()  # Real time would be 0.5 s, and 5.5 s with the silence.
        await wire.send(AudioFrame(np.tile(TONE.samples, 25), 24000))
        assert 0.2 < time.perf_counter() - began < 0.48
        await wire.send(AudioFrame.silence(5.0, 24000))
        await wire.send(TONE)
        assert time.perf_counter() - began < 1.2
        assert wire.skipped_frames == 250 - webrtc.MAX_QUIET_FRAMES
        await until(lambda: len(answering.heard) == 25 + webrtc.MAX_QUIET_FRAMES + 1)


async def test_audio_in_real_time_is_never_skipped():
    async with connected() as (_, wire):
        silence = AudioFrame.silence(0.02, 24000)
        for _ in range(30):
            await wire.send(silence)
            await asyncio.sleep(0.02)
        assert wire.skipped_frames == 0


async def test_silence_in_chunks_of_100_ms_is_not_skipped():
    async with connected() as (answering, wire):
        chunk = AudioFrame.silence(0.1, 24000)
        due = time.perf_counter()
        for _ in range(16):
            await wire.send(chunk)
            due += 0.1
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        assert wire.skipped_frames == 0
        await until(lambda: len(answering.heard) == 80)


async def test_thousands_of_events_wait_for_the_channel_and_arrive_in_order():
    async with connected() as (answering, wire):
        for index in range(40):
            await wire.send(json.dumps({"n": index, "fill": "x" * 30_000}).encode())
        await until(lambda: len(answering.texts) == 40)
        assert [json.loads(text)["n"] for text in answering.texts] == list(range(40))
        assert wire._peer.counters["messages_dropped"] == 0


async def test_oversized_messages_are_reported_but_only_the_first_image():
    content = [{"type": "input_image", "image_url": "x" * 300_000}]
    image = {"type": "conversation.item.create", "item": {"content": content}}
    text = {"event_id": "e", "type": "conversation.item.create", "item": "x" * 300_000}
    async with connected() as (answering, wire):
        await wire.send(json.dumps(image).encode())
        error = json.loads(await wire.receive())["error"]
        assert error["code"] == "message_too_long"
        await wire.send(json.dumps(image).encode())
        assert wire.dropped_images == 2
        await wire.send(json.dumps(text).encode())
        error = json.loads(await wire.receive())["error"]
        assert (error["code"], error["event_id"]) == ("message_too_long", "e")
        await wire.send(b"{}")
        await until(lambda: answering.texts == ["{}"])


async def test_unread_audio_is_bounded_and_events_are_not_lost(monkeypatch):
    monkeypatch.setattr(webrtc, "MAX_QUEUED_FRAMES", 3)
    async with connected() as (answering, wire):
        answering.peer.send_message("{}")
        await until(lambda: len(wire._inbox) == 1)
        for _ in range(8):
            answering.peer.send_audio(TONE)
        await until(lambda: wire.dropped_frames == 5)
        assert await wire.receive() == b"{}"
        assert [len(await wire.receive()) for _ in range(3)] == [480] * 3


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(401, "invalid_api_key", ErrorKind.FATAL), (503, "server_error", ErrorKind.RETRY)],
)
async def test_refusal_has_the_servers_message(status, code, kind):
    async with service() as answering:
        answering.refusal = status, {"error": {"message": "Not now.", "code": code}}
        wire = wire_to(answering)
        with pytest.raises(SessionError, match=r"^Not now\.$") as caught:
            await wire.open()
        await wire.close()
        assert (caught.value.kind, caught.value.code) == (kind, code)


async def test_invalid_answer_and_unreachable_server_raise_one_line():
    async with service() as answering:
        answering.answer = "hello"
        wire = wire_to(answering)
        with pytest.raises(SessionError, match="no audio") as caught:
            await wire.open()
        assert caught.value.kind is ErrorKind.RECYCLE
        await wire.close()
        url = answering.url
    wire = WebRTCWire(url, headers={}, session={})
    with pytest.raises(SessionError, match=r"^127\.0\.0\.1:\d+: ") as caught:
        await wire.open()
    await wire.close()
    assert caught.value.kind is ErrorKind.RECYCLE


async def test_lost_peer_is_noticed_within_seconds():
    async with service() as answering, BadNetwork() as network:
        answering.network = network
        wire = wire_to(answering)
        await wire.open()
        network.cut = True
        began = time.perf_counter()
        with pytest.raises(SessionError, match="silent") as caught:
            await wire.receive()
        assert time.perf_counter() - began < 4.0
        assert caught.value.kind is ErrorKind.RECYCLE
        await wire.close()


async def test_hang_up_is_noticed_at_once():
    async with connected() as (answering, wire):
        waiting = asyncio.create_task(wire.receive())
        await answering.peer.close()
        with pytest.raises(SessionError, match="closed") as caught:
            async with asyncio.timeout(1):
                await waiting
        assert caught.value.kind is ErrorKind.RECYCLE
        with pytest.raises(SessionError):
            await wire.send(b"{}")


async def test_cancelling_open_leaves_no_tasks():
    async with service() as answering:
        answering.hang = True
        wire = wire_to(answering)
        opening = asyncio.create_task(wire.open())
        await asyncio.sleep(0.15)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        began = time.perf_counter()
        await wire.close()
        assert time.perf_counter() - began < 0.5


async def test_close_leaves_no_tasks():
    before = asyncio.all_tasks()
    async with connected() as (_, wire):
        await wire.send(TONE)
    await asyncio.sleep(0.1)
    gc.collect()
    assert asyncio.all_tasks() <= before
