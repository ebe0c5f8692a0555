"""Images for a Gemini model: JPEG, their rate and size, and skipping unchanged ones."""

import asyncio
import base64
import io
import json

import numpy as np
import pytest
from gemini_scene import POLICY, conversation, now, realtime, sent, until, virtual
from websockets.asyncio.server import serve

from duologue.errors import UnsupportedError
from duologue.providers import gemini
from duologue.testing import GeminiSimulator
from duologue.video import VideoFrame
from fake_edge import FakeEdge, join_agent

pytest.importorskip("PIL", reason="the gemini extra is not installed")

from PIL import Image

WIDE = (720, 1280)


def still(at, size=WIDE, light=90):
    return VideoFrame(np.full((*size, 3), light, np.uint8), at)


def changing(at):
    return still(at, (72, 128), int(at * 50) % 255)


def images_of(server):
    """Return the images that the service got."""
    images = [image for session in server.sessions for image in session.images]
    assert {image.mime for image in images} <= {"image/jpeg"}
    return [Image.open(io.BytesIO(image.data)) for image in images]


@pytest.mark.parametrize(
    ("resolution", "longest"), [(None, 768), ("low", 384), ("medium", 768), ("high", 1024)]
)
@virtual
async def test_images_are_jpeg_of_the_size_that_the_resolution_uses(resolution, longest):
    async with conversation(media_resolution=resolution) as (_, person, server):
        person.camera = still
        await asyncio.sleep(1.5)
        seen = images_of(server)
        assert len(seen) >= 1
        for image in seen:
            assert image.format == "JPEG"
            assert image.size == (longest, longest * 720 // 1280)


@virtual
async def test_a_small_image_is_not_enlarged():
    async with conversation(media_resolution="high") as (_, person, server):
        person.camera = lambda at: still(at, (90, 160))
        await asyncio.sleep(1.5)
        assert images_of(server)[0].size == (160, 90)


@pytest.mark.parametrize("fps", [0.5, 1.0, 2.0])
@virtual
async def test_the_image_rate_is_at_most_fps_and_no_image_is_older_than_an_interval(fps):
    taken = []

    def camera(at):
        taken.append(at)
        return changing(at)

    async with conversation(fps=fps) as (_, person, server):
        times = []
        session = server.sessions[0]
        session._channel.client_event = lambda kind: (
            times.append(now()) if kind == "realtimeInput.video" else None
        )
        person.camera = camera
        await asyncio.sleep(10)
        assert len(times) == pytest.approx(10 * fps, abs=1)
        assert len(images_of(server)) == len(times)
        # Only images that are sent are taken, at the time they are sent.
        assert len(taken) == len(times)
        assert max(b - a for a, b in zip(taken, times, strict=True)) <= 1 / fps


@virtual
async def test_the_newest_image_wins_on_a_slow_connection():
    got = []
    read = asyncio.Event()

    async def answer(websocket):
        await websocket.recv()
        await websocket.send(json.dumps({"setupComplete": {}}))
        await read.wait()
        async for message in websocket:
            video = json.loads(message).get("realtimeInput", {}).get("video")
            if video:
                data = base64.b64decode(video["data"])
                got.append(int(np.asarray(Image.open(io.BytesIO(data))).mean()))

    noise = np.random.default_rng(1).integers(-40, 40, (*WIDE, 3))

    def image(light):
        pixels = np.clip(noise + light, 0, 255).astype(np.uint8)
        return VideoFrame(pixels, 0.0)

    async with serve(answer, "127.0.0.1", 0) as running:
        port = next(iter(running.sockets)).getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        model = gemini.Realtime(
            base_url=url, api_key="k", reconnect=POLICY, media_resolution="high"
        )
        async with join_agent(model, FakeEdge()):
            for light in range(50, 190):
                model.send_video(image(light))
                await asyncio.sleep(0.05)
            connection = model._session.connections.current.connection
            assert connection.dropped_video > 0
            read.set()
            await until(lambda: got and abs(got[-1] - 189) < 3)
            await asyncio.sleep(1)
    assert len(got) + connection.dropped_video == 140
    assert got == sorted(got)


@virtual
async def test_an_unchanged_scene_is_sent_every_ten_seconds():
    async with conversation(skip_unchanged=True) as (agent, person, server):
        times = []
        session = server.sessions[0]
        session._channel.client_event = lambda kind: (
            times.append(now()) if kind == "realtimeInput.video" else None
        )
        began = now()
        person.camera = still
        await asyncio.sleep(25)
        assert [round(at - began) for at in times] == [0, 10, 20]
        assert agent.llm.skipped_images == pytest.approx(22, abs=2)
        # A change is sent at once.
        person.camera = lambda at: still(at, light=200)
        await asyncio.sleep(1.5)
        assert len(times) == 4
        # So is the image that a question is about.
        agent.simple_response("What do you see?")
        await asyncio.sleep(0.5)
        parts = [
            part for turn in sent(server, "clientContent")[-1]["turns"] for part in turn["parts"]
        ]
        assert [list(part) for part in parts] == [["inlineData"], ["text"]]


@virtual
async def test_without_skip_unchanged_all_images_are_sent():
    async with conversation() as (agent, person, server):
        person.camera = still
        await asyncio.sleep(10)
        assert len(images_of(server)) == pytest.approx(10, abs=1)
        assert agent.llm.skipped_images == 0


@pytest.mark.parametrize("change", ["kill", "roll over"])
@virtual
async def test_the_next_connection_gets_an_unchanged_scene_again(change):
    async with conversation(skip_unchanged=True) as (agent, person, server):
        person.camera = still
        await asyncio.sleep(3)
        assert len(images_of(server)) == 1
        if change == "kill":
            await server.kill()
        else:
            agent.llm.roll_over()
        await asyncio.sleep(3)
        assert [len(session.images) for session in server.sessions] == [1, 1]


@virtual
async def test_no_image_is_sent_when_video_is_off():
    async with GeminiSimulator() as server:
        model = realtime(server, video="off", skip_unchanged=True)
        async with join_agent(model):
            for _ in range(2):
                with pytest.raises(UnsupportedError, match="accepts no video"):
                    model.send_video(still(0.0))
            assert model.skipped_images == 0
