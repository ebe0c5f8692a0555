"""Qwen's Realtime behind an agent whose person has no microphone, against the simulator."""

import asyncio

import numpy as np
import pytest

pytest.importorskip("websockets", reason="the qwen extra is not installed")
pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

from duologue.errors import SessionError, UnsupportedError
from duologue.events import ErrorEvent
from duologue.items import UserItem
from duologue.providers import qwen
from duologue.testing import QwenSimulator, Reply, virtual_time
from duologue.video import VideoFrame
from fake_edge import FakeEdge, events_of, join_agent


def realtime(simulator, **options):
    options.setdefault("turn_detection", qwen.ServerVAD(silence_duration_ms=200))
    return qwen.Realtime(base_url=simulator.url, api_key=simulator.key, **options)


def image(shade, size=(720, 1280)):
    return VideoFrame(np.full((*size, 3), shade, np.uint8), float(shade))


@virtual_time
async def test_a_conversation():
    replies = [Reply("Hello."), Reply("Twelve words are enough to be cut in the middle of them.")]
    async with QwenSimulator(replies=replies, transcripts=["Hi."]) as simulator:
        person = FakeEdge()
        model = realtime(simulator)
        async with join_agent(model, person) as agent:
            [session] = simulator.sessions
            await person.speak(0.4)
            await person.be_silent(3)
            assert (await agent.say("Good morning.")).heard_text == "Good morning."
            cut = agent.simple_response("Tell me.")
            await asyncio.sleep(1)
            model.interrupt()
            await cut
            assert 0 < len(cut.heard_text) < 50
            assert [item.text for item in agent.conversation] == [
                "Hi.", "Hello.", "Good morning.", "Tell me.", cut.heard_text,
            ]  # fmt: skip
            await asyncio.sleep(1)
            [note] = [
                event["item"]["content"][0]["text"]
                for event in session.events_in
                if event["type"] == "conversation.item.create"
            ][1:]
            assert note.startswith("<heard>")
            assert cut.heard_text in note
            assert not events_of(agent, ErrorEvent)


@virtual_time
async def test_reply_that_fails_midway_is_reported_as_failed():
    replies = [Reply("Half a sentence that was never", fails="overloaded"), "Next."]
    async with (
        QwenSimulator(replies=replies) as simulator,
        join_agent(realtime(simulator)) as agent,
    ):
        speech = agent.simple_response("Tell me.")
        with pytest.raises(SessionError, match="overloaded"):
            await speech
        assert speech.state == "failed"
        assert (await agent.simple_response("Again.")).heard_text == "Next."


@virtual_time
async def test_images_are_sent_without_audio_and_after_the_camera_returns():
    async with QwenSimulator() as simulator:
        person = FakeEdge()
        async with join_agent(realtime(simulator, fps=2.0), person) as agent:
            [session] = simulator.sessions

            async def film(seconds):
                for at in range(round(seconds * 10)):
                    person.person.push_video(lambda at=at: image(at))
                    await asyncio.sleep(0.1)

            await film(2)
            shown = len(session.images)
            assert shown == pytest.approx(4, abs=1)
            await asyncio.sleep(5)
            assert len(session.images) == shown
            await person.speak(0.4)
            await person.be_silent(1)
            await film(2)
            assert len(session.images) == pytest.approx(8, abs=2)
            assert all(image.data.startswith(b"\xff\xd8") for image in session.images)
            assert not events_of(agent, ErrorEvent)


@virtual_time
async def test_no_images_are_sent_with_video_off():
    async with QwenSimulator() as simulator:
        model = realtime(simulator, video="off")
        async with join_agent(model):
            with pytest.raises(UnsupportedError, match="leave the camera off"):
                model.send_video(image(1))


@virtual_time
async def test_image_is_sent_with_the_question():
    async with QwenSimulator(replies=["Grey."]) as simulator:
        person = FakeEdge()
        async with join_agent(realtime(simulator), person) as agent:
            person.person.push_video(lambda: image(1))
            await asyncio.sleep(0.5)
            person.person.push_video(lambda: image(2))
            speech = await agent.simple_response("What do you see?")
            assert speech.heard_text == "Grey."
            [session] = simulator.sessions
            order = [
                event["type"]
                for event in session.events_in
                if event["type"] in ("input_image_buffer.append", "response.create")
            ]
            assert order == ["input_image_buffer.append"] * 2 + ["response.create"]


@virtual_time
async def test_manual_turn_without_audio_is_empty():
    async with QwenSimulator(replies=["Yes."] * 2) as simulator:
        model = realtime(simulator, turn_detection=qwen.ManualTurns())
        async with join_agent(model) as agent:
            model.end_turn()
            await asyncio.sleep(3)
            assert not [item for item in agent.conversation if isinstance(item, UserItem)]
            assert not events_of(agent, ErrorEvent)
            assert (await agent.simple_response("Hello?")).heard_text == "Yes."


@virtual_time
async def test_manual_turn_of_only_keepalive_silence_is_empty():
    async with QwenSimulator(replies=["Yes."] * 3, transcripts=["Is it you?"]) as simulator:
        model = realtime(simulator, turn_detection=qwen.ManualTurns())
        person = FakeEdge()
        async with join_agent(model, person) as agent:
            for _ in range(2):
                await asyncio.sleep(25)
                model.end_turn()
                await asyncio.sleep(3)
            assert len(agent.conversation) == 0
            assert not events_of(agent, ErrorEvent)
            await asyncio.sleep(25)
            await person.speak(0.5)
            await person.be_silent(0.5)
            model.end_turn()
            await asyncio.sleep(3)
            assert [item.text for item in agent.conversation] == ["Is it you?", "Yes."]


@virtual_time
async def test_flash_model_ends_manual_turns_without_a_transcript():
    async with QwenSimulator(replies=["Yes."] * 2, transcripts=["is it you"]) as simulator:
        model = realtime(
            simulator,
            model="qwen3.5-omni-flash-realtime",
            turn_detection=qwen.ManualTurns(),
        )
        person = FakeEdge()
        async with join_agent(model, person) as agent:
            await person.speak(0.5)
            model.end_turn()
            await asyncio.sleep(3)
            assert [item.text for item in agent.conversation][-1] == "Yes."
            assert not model.pending
            model.roll_over()
            await asyncio.sleep(2)
            assert len(simulator.sessions) == 2  # No reply is expected.


@virtual_time
async def test_session_is_finished_before_closing():
    async with QwenSimulator() as simulator:
        async with join_agent(realtime(simulator)) as agent:
            [session] = simulator.sessions
            await agent.close()
        assert session.events_in[-1]["type"] == "session.finish"
