"""Calls over WebRTC, with aiortc and the official SDK as the client, in real time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("aiortc", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

import aioice.ice
import openai
from openai_client import sdk
from rtc_client import open_call

from duologue.simulators.faults import Fault, Loss
from duologue.testing import OpenAISimulator, Reply

LONG = Reply("One two three four five six seven eight.", seconds=3.0)
QUICK = {"type": "server_vad", "silence_duration_ms": 200}
HEARING = {"input": {"turn_detection": QUICK, "transcription": {"model": "whisper-1"}}}


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch):
    # Only for the client's side, because aioice never offers 127.0.0.1 by itself.
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda *_, **__: ["127.0.0.1"])


async def test_call_has_turns_and_audio_in_real_time():
    replies = [Reply("A short answer.", seconds=0.6)]
    async with (
        OpenAISimulator(replies=replies, transcripts=["Hello."]) as sim,
        open_call(sim, audio=HEARING, instructions="Be kind.", video=True) as call,
    ):
        assert call.id.startswith("rtc_")
        assert call.events[0]["session"]["instructions"] == "Be kind."
        await asyncio.sleep(0.2)
        await call.speak()
        await call.until("response.done")
        done = time.monotonic()
        await call.until("output_audio_buffer.stopped")
        # All of it is made at once, and plays in real time.
        assert time.monotonic() - done == pytest.approx(0.6, abs=0.15)
        kinds = list(dict.fromkeys(call.types))
        assert [kind for kind in kinds if "transcription" not in kind] == [
            "session.created",
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_audio_transcript.delta",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
            "output_audio_buffer.started",
            "output_audio_buffer.stopped",
        ]
        assert "conversation.item.input_audio_transcription.completed" in kinds
        await asyncio.sleep(0.1)
        assert sum(loud for _, loud in call.frames) == pytest.approx(30, abs=3)
        assert sim.video_frames > 0


async def test_speech_clears_and_truncates_unplayed_audio():
    async with (
        OpenAISimulator(replies=[LONG, LONG]) as sim,
        open_call(sim, audio=HEARING) as call,
    ):
        call.send("response.create")
        await call.until("response.done")  # All made, most of it not played.
        await asyncio.sleep(0.5)
        spoke = time.monotonic()
        await call.speak(0.2)
        await call.until("input_audio_buffer.speech_started")
        cleared = await call.until("output_audio_buffer.cleared")
        cut = await call.until("conversation.item.truncated")
        assert 500 < cut["audio_end_ms"] < 900
        item = next(i for i in sim.sessions[0].conversation if i["id"] == cut["item_id"])
        assert item["content"][0]["transcript"] is None
        assert cleared["response_id"] == call.events[1]["response"]["id"]
        await asyncio.sleep(0.15)
        assert [when for when, loud in call.frames if loud and when > spoke + 0.35] == []
        # While it is still being made it is cancelled, too.
        await call.until("output_audio_buffer.started")
        call.send("output_audio_buffer.clear")
        await call.until("output_audio_buffer.cleared")
        await call.until("conversation.item.truncated")


async def test_speech_cancels_the_reply_in_progress():
    reply = Reply("One two three.", seconds=3.0, pace=1.0)
    async with OpenAISimulator(replies=[reply]) as sim, open_call(sim, audio=HEARING) as call:
        call.send("response.create")
        await call.until("output_audio_buffer.started")
        await call.speak(0.2)
        done = await call.until("response.done")
        assert done["response"]["status_details"]["reason"] == "turn_detected"
        await call.until("output_audio_buffer.cleared")
        await call.until("conversation.item.truncated")
        assert "output_audio_buffer.stopped" not in call.types


async def test_cleared_reply_stays_silent_while_it_is_still_made():
    reply = Reply("One two three.", seconds=1.0, pace=1.0)
    async with OpenAISimulator(replies=[reply]) as sim, open_call(sim) as call:
        call.send("response.create")
        await call.until("output_audio_buffer.started")
        await asyncio.sleep(0.2)
        call.send("output_audio_buffer.clear")
        await call.until("output_audio_buffer.cleared")
        done = await call.until("response.done")
        assert done["response"]["status"] == "completed"
        assert call.types.count("output_audio_buffer.started") == 1
        assert "output_audio_buffer.stopped" not in call.types
        # The next one plays again.
        said = {"instructions": 'Say exactly """Yes."""'}
        call.send("response.create", response=said)
        await call.until("output_audio_buffer.stopped")


async def test_too_large_event_harms_nothing_else():
    async with OpenAISimulator() as sim, open_call(sim) as call:
        # The client's event just fits into a message of 256 KiB; the answer to it does not.
        call.send("session.update", session={"type": "realtime", "instructions": "x" * 261_900})
        call.send("response.cancel")
        await call.until("error")
        assert len(sim.sessions[0].session_object["instructions"]) == 261_900
        assert "session.updated" not in call.types


async def test_call_can_be_hung_up():
    async with OpenAISimulator() as sim, open_call(sim) as call, sdk(sim) as client:
        await client.realtime.calls.hangup(call.id)
        async with asyncio.timeout(3):
            while not sim.sessions[0].closed:
                await asyncio.sleep(0.01)
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.realtime.calls.hangup(call.id)
        assert unknown.value.code == "call_id_not_found"


async def test_invalid_calls_are_refused():
    async with OpenAISimulator() as sim, sdk(sim) as client:
        with pytest.raises(openai.BadRequestError) as wrong:
            await client.realtime.calls.create(sdp="garbage")
        assert (wrong.value.code, wrong.value.param) == ("invalid_offer", "sdp")
        with pytest.raises(openai.BadRequestError) as wrong:
            await client.realtime.calls.create(sdp="v=0", session={"instructions": "x"})
        assert wrong.value.code == "missing_required_parameter"
        with pytest.raises(openai.AuthenticationError):
            await sdk(sim, "sk-wrong").realtime.calls.create(sdp="v=0")
        assert sim.sessions == []


async def test_packets_can_be_lost_in_both_directions():
    faults = [Fault(Loss(0.3))]
    async with (
        OpenAISimulator(replies=[LONG], faults=faults, seed=3) as sim,
        open_call(sim, audio=HEARING) as call,
    ):
        call.send("response.create")
        await call.until("output_audio_buffer.stopped")
        counters = next(iter(sim._open)).peer.counters
        assert counters["lost"] + counters["fec"] > 10
        # 3 s of audio are 150 packets. aiortc conceals no loss, so there are fewer frames.
        assert sum(loud for _, loud in call.frames) < 140


async def test_call_can_fall_silent():
    async with OpenAISimulator(replies=[LONG]) as sim, open_call(sim) as call:
        call.send("response.create")
        await call.until("output_audio_buffer.started")
        await asyncio.sleep(0.2)
        await sim.kill()
        await asyncio.sleep(0.3)
        count = len(call.frames)
        await asyncio.sleep(0.3)
        assert len(call.frames) == count


async def test_call_can_be_cut_twice_and_while_it_ends():
    async with OpenAISimulator(replies=[LONG]) as sim:
        for cut in (sim.kill, sim.drop_all):
            async with open_call(sim) as call:
                await cut()
                await cut()
                async with sdk(sim) as client:
                    hanging_up = asyncio.ensure_future(client.realtime.calls.hangup(call.id))
                    while not hanging_up.done():
                        await cut()
                    # A call that was cut may have ended before it is hung up.
                    with suppress(openai.NotFoundError):
                        await hanging_up
            await cut()
        assert not await sim.kill()


async def test_loopback_sends_audio_straight_back():
    async with OpenAISimulator("loopback") as sim, open_call(sim) as call:
        await asyncio.sleep(0.2)
        began = time.monotonic()
        await call.speak(0.3)
        await asyncio.sleep(0.3)
        first = next(when for when, loud in call.frames if loud)
        assert first - began < 0.25
