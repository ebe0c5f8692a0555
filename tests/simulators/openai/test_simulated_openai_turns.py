"""Turns over a WebSocket, with the official SDK as the client, in virtual time."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

from openai_client import QUICK, encode, open_session, silence, tone

from duologue.realtime.commands import DeleteItem
from duologue.testing import OpenAISimulator, Reply, virtual_time

WHISPER = {"model": "whisper-1"}
MANUAL = {"turn_detection": None}


def make_simulator(*replies, **options):
    return OpenAISimulator(replies=replies or [Reply("Yes.", seconds=0.2)] * 3, **options)


@virtual_time
async def test_turn_follows_the_order_of_the_protocol():
    simulator = make_simulator(Reply("It is sunny.", seconds=0.1), transcripts=["How is it?"])
    async with (
        simulator as sim,
        open_session(sim, turn_detection=QUICK, transcription=WHISPER) as client,
    ):
        await client.send_turn()
        done = await client.until("response.done")
        assert client.types == [
            "session.created",
            "session.updated",
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "response.created",
            *["conversation.item.input_audio_transcription.delta"] * 4,
            "conversation.item.input_audio_transcription.completed",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            *["response.output_audio_transcript.delta"] * 3,
            "response.output_audio.delta",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
        ]
        assert done.response.status == "completed"
        assert done.response.output[0].content[0].transcript == "It is sunny."
        assert done.response.usage.output_token_details.audio_tokens == 2
        heard = client.events_of("conversation.item.input_audio_transcription.completed")[0]
        assert heard.transcript == "How is it?"
        assert heard.usage.type == "duration"
        started = client.events_of("input_audio_buffer.speech_started")[0]
        assert started.item_id == heard.item_id == sim.sessions[0].conversation[0]["id"]
        deltas = [
            event.delta for event in client.events_of("response.output_audio_transcript.delta")
        ]
        assert deltas == ["It", " is", " sunny."]
        ids = [event.event_id for event in client.events]
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("chunk", [100, 480, 2400, 7777, 10**6])
def test_turn_positions_do_not_depend_on_chunks(chunk):
    @virtual_time
    async def talk():
        async with make_simulator() as sim, open_session(sim, turn_detection=QUICK) as client:
            await client.append(
                np.concatenate((silence(1.0), tone(0.5), silence(0.5), tone(0.3), silence(0.5))),
                chunk,
            )
            await client.receive_for()
            return [
                getattr(event, "audio_start_ms", None) or event.audio_end_ms
                for event in client.events
                if "speech_st" in event.type
            ]

    # 300 ms of padding before the speech, 200 ms of silence after it; never before the last turn.
    assert talk() == [700, 1700, 1700, 2500]


@virtual_time
async def test_click_does_not_start_a_turn():
    async with make_simulator() as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.append(np.concatenate((silence(0.2), tone(0.02), silence(0.5))))
        await client.receive_for()
        assert "input_audio_buffer.speech_started" not in client.types
        await client.append(np.concatenate((tone(0.04), silence(0.5))))
        started = await client.until("input_audio_buffer.speech_started")
        assert started.audio_start_ms == 720 - 300


@virtual_time
async def test_higher_threshold_ignores_quiet_speech():
    async with make_simulator() as sim, open_session(sim) as client:
        quiet = tone(0.5) // 12  # an RMS of 353
        await client.append(quiet)
        assert (await client.until("input_audio_buffer.speech_started")).audio_start_ms == 0
        await client.send("input_audio_buffer.clear")
        await client.update(audio={"input": {"turn_detection": {**QUICK, "threshold": 0.9}}})
        await client.append(quiet)
        await client.receive_for()
        assert len(client.events_of("input_audio_buffer.speech_started")) == 1


@pytest.mark.parametrize(
    ("eagerness", "seconds"), [("low", 1.2), ("medium", 0.8), ("high", 0.4), ("auto", 0.8)]
)
def test_semantic_turns_end_after_a_silence_set_by_eagerness(eagerness, seconds):
    @virtual_time
    async def talk():
        detection = {"type": "semantic_vad", "eagerness": eagerness}
        async with make_simulator() as sim, open_session(sim, turn_detection=detection) as client:
            await client.append(np.concatenate((tone(0.4), silence(2.0))))
            stopped = await client.until("input_audio_buffer.speech_stopped")
            await client.until("response.done")
            return stopped.audio_end_ms

    assert talk() == pytest.approx(400 + seconds * 1000, abs=20)


@virtual_time
async def test_client_ends_turns_without_turn_detection():
    async with (
        make_simulator(keep_audio=True) as sim,
        open_session(sim, turn_detection=None, transcription={"model": "gpt-transcribe"}) as client,
    ):
        await client.append(tone(0.05))
        error = await client.error("input_audio_buffer.commit")
        assert error.code == "input_audio_buffer_commit_empty"
        await client.append(tone(0.5))
        await client.send("input_audio_buffer.commit")
        await client.until("conversation.item.input_audio_transcription.completed")
        await client.receive_for()
        assert "response.created" not in client.types
        assert "input_audio_buffer.speech_started" not in client.types
        (turn,) = sim.sessions[0].user_turns
        assert (turn.start, turn.end) == (0, 13200)
        assert np.array_equal(turn.samples, np.concatenate((tone(0.05), tone(0.5))))
        await client.send("response.create")
        await client.until("response.done")


@virtual_time
async def test_cleared_audio_does_not_become_a_turn():
    async with make_simulator() as sim, open_session(sim, **MANUAL) as client:
        await client.append(tone(0.5))
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        error = await client.error("input_audio_buffer.commit")
        assert error.code == "input_audio_buffer_commit_empty"
        await client.update(audio={"input": {"turn_detection": QUICK}})
        await client.append(tone(0.5))
        await client.until("input_audio_buffer.speech_started")
        await client.send("input_audio_buffer.clear")
        await client.append(silence(1.0))
        await client.receive_for()
        assert "input_audio_buffer.speech_stopped" not in client.types
        # The backend has received a part of it, and drops that.
        assert isinstance(sim.sessions[0].backend.commands[-1], DeleteItem)
        await client.send_turn()
        await client.until("response.done")
        assert len(sim.sessions[0].user_turns) == 1


@virtual_time
async def test_open_turn_can_be_handed_to_the_client():
    async with (
        make_simulator(keep_audio=True) as sim,
        open_session(sim, turn_detection=QUICK) as client,
    ):
        await client.append(tone(0.3))
        await client.until("input_audio_buffer.speech_started")
        await client.update(audio={"input": {"turn_detection": None}})
        await client.append(np.concatenate((tone(0.1), silence(1.0))))
        await client.send("input_audio_buffer.commit")
        await client.until("input_audio_buffer.committed")
        assert len(sim.sessions[0].user_turns[0].samples) == round(1.4 * 24000)


@virtual_time
async def test_nothing_is_answered_by_itself_without_create_response():
    detection = {**QUICK, "create_response": False}
    async with make_simulator() as sim, open_session(sim, turn_detection=detection) as client:
        await client.send_turn()
        await client.until("input_audio_buffer.committed")
        await client.receive_for()
        assert "response.created" not in client.types


@virtual_time
async def test_transcript_may_follow_the_reply():
    async with (
        make_simulator(transcripts=["Hello."], transcription_delay=5.0) as sim,
        open_session(sim, turn_detection=QUICK, transcription=WHISPER) as client,
    ):
        await client.send_turn()
        await client.until("response.done")
        assert not client.events_of("conversation.item.input_audio_transcription.completed")
        await client.until("conversation.item.input_audio_transcription.completed")


@virtual_time
async def test_agent_speaks_after_a_long_silence():
    detection = {**QUICK, "idle_timeout_ms": 5000}
    async with make_simulator() as sim, open_session(sim, turn_detection=detection) as client:
        await client.send_turn()
        await client.until("response.done")
        await client.append(silence(3.0))
        began = sim._clock.now()
        event = await client.until("input_audio_buffer.timeout_triggered")
        assert sim._clock.now() - began == pytest.approx(5.2, abs=0.1)
        assert event.audio_start_ms < event.audio_end_ms == 4100
        await client.until("response.done")


@pytest.mark.parametrize("kind", ["audio/pcmu", "audio/pcma"])
def test_audio_may_be_g711(kind):
    @virtual_time
    async def talk():
        async with OpenAISimulator() as sim, open_session(sim) as client:
            await client.update(
                audio={
                    "input": {"format": {"type": kind}, "turn_detection": QUICK},
                    "output": {"format": {"type": kind}},
                }
            )
            # Bytes of full loudness with alternating sign, and of silence.
            loud, quiet = (b"\x80\x00", b"\xff") if kind == "audio/pcmu" else (b"\xaa\x2a", b"\xd5")
            data = np.frombuffer(loud * 2000 + quiet * 4000, np.uint8)
            await client.append(data, 800)
            await client.until("response.done")
            deltas = client.events_of("response.output_audio.delta")
            stopped = client.events_of("input_audio_buffer.speech_stopped")[0].audio_end_ms
            return stopped, sum(len(event.delta) for event in deltas) * 3 // 4

    stopped, came_back = talk()
    assert stopped == pytest.approx(700, abs=20)
    assert came_back == pytest.approx(0.7 * 8000, abs=200)


@virtual_time
async def test_invalid_audio_is_refused():
    async with make_simulator() as sim, open_session(sim) as client:
        for audio in ("not base64!", encode(np.zeros(3, np.uint8))):
            error = await client.error("input_audio_buffer.append", audio=audio)
            assert (error.code, error.param) == ("invalid_value", "audio")
