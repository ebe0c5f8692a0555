"""Images: the newest at fps, and the current one when a request is made."""

import asyncio

import numpy as np
import pytest
from conformance_targets import WITHOUT_IMAGES, conformance, conversation

from duologue.events import ErrorEvent
from duologue.testing import run_virtual
from duologue.video import VideoFrame
from fake_edge import events_of


def camera(at):
    pixels = np.full((72, 128, 3), int(at * 50) % 255, np.uint8)
    return VideoFrame(pixels, at)


@conformance
@pytest.mark.parametrize("fps", [1.0, 4.0])
async def test_images_come_at_fps(target, fps):
    if target in WITHOUT_IMAGES:
        pytest.skip("the model takes no images; the error is tested in test_conformance_turns")
    async with conversation(target, fps=fps) as (agent, person, far):
        person.camera = camera
        await asyncio.sleep(5)
        assert far.images() == pytest.approx(5 * fps, abs=2)
        person.camera = None
        await asyncio.sleep(1)
        before = far.images()
        await asyncio.sleep(2)
        assert far.images() == before
        assert not events_of(agent, ErrorEvent)


def test_video_track_carries_frames_if_asked_for():
    async def run():
        async with conversation("openai-webrtc", ["Grey."], video="track", fps=4.0) as (
            agent,
            person,
            far,
        ):
            person.camera = camera
            await asyncio.sleep(4)
            assert far.images() == 0
            assert far.simulator.video_frames == pytest.approx(16, abs=3)
            assert (await agent.simple_response("What do you see?")).heard_text == "Grey."
            assert not events_of(agent, ErrorEvent)

    run_virtual(run(), grace=0.001)


@conformance
async def test_request_comes_with_the_current_image(target):
    async with conversation(target, ["I see grey."]) as (agent, person, far):
        person.camera = camera
        await asyncio.sleep(1.5)
        if not agent.llm.capabilities.video:
            (error,) = events_of(agent, ErrorEvent)
            assert "can't see" in error.message
            return
        before = far.images()
        speech = agent.simple_response("What do you see?")
        await asyncio.sleep(0.1)
        assert far.images() == before + 1
        assert (await speech).heard_text == "I see grey."
