"""Turns of the simulated Gemini service, with the official SDK as the client, in virtual time."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

from gemini_client import RATE, connected, silence, started, tone
from google.genai import types

from duologue.audio import Resampler
from duologue.items import UserItem
from duologue.realtime.commands import AddItem
from duologue.testing import GeminiSimulator, Reply, virtual_time

MANUAL = {"automatic_activity_detection": {"disabled": True}}
LIVE_25 = "gemini-2.5-flash-native-audio-preview-12-2025"


def answering(*replies, **options):
    options.setdefault("tls", True)
    return GeminiSimulator(replies=replies or [Reply("Yes.", seconds=0.2)] * 5, **options)


def audio_message(samples, rate=RATE):
    data = base64.b64encode(samples.tobytes()).decode()
    return {"realtimeInput": {"audio": {"mimeType": f"audio/pcm;rate={rate}", "data": data}}}


@virtual_time
async def test_messages_of_a_turn_come_in_the_order_of_the_protocol():
    simulator = answering(Reply("It is sunny today.", seconds=0.3), transcripts=["How is it?"])
    async with simulator as sim, connected(sim) as client:
        await client.send_turn()
        message = await client.until("serverContent.turnComplete")
        assert client.kinds == [
            "serverContent.inputTranscription",
            *["serverContent.outputTranscription"] * 4,
            *["serverContent.modelTurn"] * 3,
            "serverContent.generationComplete",
            "serverContent.turnComplete",
            "serverContent.interactionStatus",
            "usageMetadata",
        ]
        assert client.user_transcript == " How is it?"
        assert client.transcript == "It is sunny today."
        assert len(client.audio) == round(0.3 * 24000)
        usage = message.usage_metadata
        # 1 s of the turn's audio is 25 tokens, and a question 3; its reply is another 8.
        assert (usage.response_token_count, usage.total_token_count) == (
            8,
            usage.prompt_token_count + 8,
        )
        assert usage.response_tokens_details[0].modality == types.MediaModality.AUDIO
        assert sim.sessions[0].conversation == [
            {"role": "user", "parts": [{"text": "How is it?"}]},
            {"role": "model", "parts": [{"text": "It is sunny today."}]},
        ]


@virtual_time
async def test_transcripts_and_activity_signals_are_sent_only_on_request():
    plain = {"input_audio_transcription": None, "output_audio_transcription": None}
    async with (
        answering(transcripts=["How is it?"]) as sim,
        connected(sim, model=LIVE_25, **plain) as client,
    ):
        await client.send_turn()
        await client.until("serverContent.turnComplete")
        await client.receive_for()
        assert set(client.kinds) == {
            "serverContent.modelTurn",
            "serverContent.generationComplete",
            "serverContent.turnComplete",
            "usageMetadata",
        }
        # It knows the transcript anyway.
        assert sim.sessions[0].conversation[0]["parts"] == [{"text": "How is it?"}]


@pytest.mark.parametrize("chunk", [100, 320, 1600, 7777, 10**6])
def test_positions_do_not_depend_on_chunks(chunk):
    @virtual_time
    async def run():
        detection = {"automaticActivityDetection": {"silenceDurationMs": 200}}
        async with (
            answering(tls=False) as sim,
            started(sim, explicitVadSignal=True, realtimeInputConfig=detection) as client,
        ):
            samples = np.concatenate(
                (silence(1.0), tone(0.5), silence(0.5), tone(0.3), silence(0.5))
            )
            for begin in range(0, len(samples), chunk):
                await client.send(audio_message(samples[begin : begin + chunk]))
            signals = [await client.until("voiceActivity") for _ in range(4)]
            return [
                (one["voiceActivity"]["voiceActivityType"], one["voiceActivity"]["audioOffset"])
                for one in signals
            ]

    # 300 ms of padding before the speech and 200 ms of silence after it, never before the last
    # turn.
    assert run() == [
        ("ACTIVITY_START", "0.700s"),
        ("ACTIVITY_END", "1.700s"),
        ("ACTIVITY_START", "1.700s"),
        ("ACTIVITY_END", "2.500s"),
    ]


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000])
def test_audio_may_have_any_sample_rate(rate):
    @virtual_time
    async def run():
        async with answering(tls=False, keep_audio=True) as sim, started(sim) as client:
            spoken = np.concatenate((tone(0.5), silence(1.0)))
            resampler = Resampler(RATE, rate)
            other = np.concatenate((resampler.push(spoken), resampler.flush()))
            for begin in range(0, len(other), 1000):
                await client.send(audio_message(other[begin : begin + 1000], rate))
            await client.until("serverContent.turnComplete")
            (turn,) = sim.sessions[0].user_turns
            return np.abs(turn.samples[1600:4800].astype(float)).mean(), sim.sessions[0]

    loudness, session = run()
    assert loudness == pytest.approx(np.abs(tone(0.5).astype(float)).mean(), rel=0.05)
    assert session.audio_in_samples == pytest.approx(1.5 * RATE, abs=200)


@pytest.mark.parametrize(
    ("detection", "seconds", "turns"),
    [
        ({}, 0.02, 0),
        ({}, 0.04, 1),
        ({"prefix_padding_ms": 20}, 0.02, 1),
        ({"prefix_padding_ms": 100}, 0.08, 0),
        ({"prefix_padding_ms": 100}, 0.1, 1),
    ],
)
def test_click_is_not_a_turn(detection, seconds, turns):
    @virtual_time
    async def run():
        config = {"automatic_activity_detection": {"silence_duration_ms": 200, **detection}}
        async with answering() as sim, connected(sim, realtime_input_config=config) as client:
            await client.send_audio(np.concatenate((silence(0.2), tone(seconds), silence(0.5))))
            await client.receive_for()
            return len(sim.sessions[0].user_turns)

    assert run() == turns


@pytest.mark.parametrize(
    ("detection", "seconds"),
    [
        ({}, 0.5),
        ({"end_of_speech_sensitivity": "END_SENSITIVITY_HIGH"}, 0.5),
        ({"end_of_speech_sensitivity": "END_SENSITIVITY_LOW"}, 1.0),
        ({"end_of_speech_sensitivity": "END_SENSITIVITY_LOW", "silence_duration_ms": 100}, 0.1),
    ],
)
def test_turns_end_after_a_silence_by_sensitivity(detection, seconds):
    @virtual_time
    async def run():
        config = {"automatic_activity_detection": detection}
        async with answering() as sim, connected(sim, realtime_input_config=config) as client:
            await client.send_audio(np.concatenate((tone(0.4), silence(2.0))))
            await client.until("serverContent.turnComplete")
            return sim.sessions[0].user_turns[0].end / RATE

    assert run() == pytest.approx(0.4 + seconds, abs=0.02)


@virtual_time
async def test_lower_sensitivity_needs_louder_speech():
    quiet = np.concatenate((tone(0.5) // 10, silence(0.6)))  # an RMS of 424
    for level, turns in (("HIGH", 1), ("LOW", 0)):
        detection = {"start_of_speech_sensitivity": f"START_SENSITIVITY_{level}"}
        config = {"automatic_activity_detection": detection}
        async with answering() as sim, connected(sim, realtime_input_config=config) as client:
            await client.send_audio(quiet)
            await client.receive_for()
            assert len(sim.sessions[0].user_turns) == turns


@virtual_time
async def test_client_may_mark_turns():
    async with (
        answering(keep_audio=True, transcripts=["Hello."]) as sim,
        connected(sim, realtime_input_config=MANUAL) as client,
    ):
        session = client.session
        await client.send_audio(tone(0.3))  # outside an activity
        await session.send_realtime_input(activity_start=types.ActivityStart())
        await client.send_audio(np.concatenate((silence(0.5), tone(0.2), silence(1.0))))
        await client.receive_for()
        assert client.kinds == []
        await session.send_realtime_input(activity_end=types.ActivityEnd())
        await client.until("serverContent.turnComplete")
        (turn,) = sim.sessions[0].user_turns
        assert np.array_equal(turn.samples, np.concatenate((silence(0.5), tone(0.2), silence(1.0))))
        assert client.user_transcript == " Hello."
        # An empty activity gets no reply.
        await session.send_realtime_input(activity_start=types.ActivityStart())
        await session.send_realtime_input(activity_end=types.ActivityEnd())
        client.kinds.clear()
        await client.receive_for()
        assert client.kinds == []
        assert len(sim.sessions[0].user_turns) == 1


@virtual_time
async def test_client_activity_may_be_text_and_images():
    async with answering() as sim, connected(sim, realtime_input_config=MANUAL) as client:
        session = client.session
        blob = types.Blob(data=b"\xff\xd8\xff" + bytes(100), mime_type="image/jpeg")
        await session.send_realtime_input(activity_start=types.ActivityStart())
        await session.send_realtime_input(video=blob)
        await session.send_realtime_input(text="What is this?")
        await client.receive_for()
        assert client.kinds == []
        await session.send_realtime_input(activity_end=types.ActivityEnd())
        await client.until("serverContent.turnComplete")
        assert sim.sessions[0].conversation[0]["parts"] == [{"text": "What is this?"}]
        assert sim.sessions[0].user_turns == []


@virtual_time
async def test_turn_ends_with_the_audio_stream():
    async with answering(keep_audio=True) as sim, connected(sim) as client:
        await client.send_audio(tone(0.5))
        await client.session.send_realtime_input(audio_stream_end=True)
        await client.until("serverContent.turnComplete")
        assert np.array_equal(sim.sessions[0].user_turns[0].samples, tone(0.5))
        # Silence does not make a turn.
        await client.send_audio(silence(0.5))
        await client.session.send_realtime_input(audio_stream_end=True)
        await client.send_turn()
        await client.until("serverContent.turnComplete")
        assert len(sim.sessions[0].user_turns) == 2


@virtual_time
async def test_turn_may_include_the_silence_before_it():
    for coverage, start in (
        ("TURN_INCLUDES_ONLY_ACTIVITY", 1.7),
        ("TURN_INCLUDES_ALL_INPUT", 0.0),
    ):
        config = {
            "automatic_activity_detection": {"silence_duration_ms": 200},
            "turn_coverage": coverage,
        }
        async with answering() as sim, connected(sim, realtime_input_config=config) as client:
            await client.send_audio(np.concatenate((silence(2.0), tone(0.5), silence(0.5))))
            await client.until("serverContent.turnComplete")
            assert sim.sessions[0].user_turns[0].start / RATE == pytest.approx(start, abs=0.02)


@virtual_time
async def test_client_turn_may_include_the_audio_before_it():
    config = {**MANUAL, "turn_coverage": "TURN_INCLUDES_ALL_INPUT"}
    async with (
        answering(keep_audio=True) as sim,
        connected(sim, realtime_input_config=config) as client,
    ):
        await client.send_audio(silence(1.0))
        await client.session.send_realtime_input(activity_start=types.ActivityStart())
        await client.send_audio(tone(0.5))
        await client.session.send_realtime_input(activity_end=types.ActivityEnd())
        await client.until("serverContent.turnComplete")
        assert len(sim.sessions[0].user_turns[0].samples) == round(1.5 * RATE)


@virtual_time
async def test_transcript_may_come_after_the_reply():
    async with (
        answering(transcripts=["Hello there, my good old friend."], transcription_delay=5.0) as sim,
        connected(sim) as client,
    ):
        await client.send_turn()
        await client.until("serverContent.turnComplete")
        assert client.user_transcript == ""
        await client.until("serverContent.inputTranscription")
        await client.receive_for(0.1)
        # It comes in pieces.
        assert client.count("serverContent.inputTranscription") == 2
        assert client.user_transcript == " Hello there, my good old friend."


@virtual_time
async def test_written_text_is_a_turn():
    async with answering() as sim, connected(sim) as client:
        await client.session.send_realtime_input(text="How is it?")
        await client.until("serverContent.turnComplete")
        assert sim.sessions[0].conversation[0] == {
            "role": "user",
            "parts": [{"text": "How is it?"}],
        }
        # The backend received it.
        added = [c.item for c in sim.sessions[0].backend.commands if isinstance(c, AddItem)]
        assert [type(item) for item in added] == [UserItem]
        assert (added[0].text, added[0].spoken) == ("How is it?", False)


@virtual_time
async def test_text_written_while_the_person_speaks_belongs_to_the_turn():
    async with answering() as sim, connected(sim) as client:
        await client.send_audio(tone(0.5))
        await client.session.send_realtime_input(text="By the way.")
        await client.receive_for()
        assert client.kinds == []
        await client.send_audio(silence(0.5))
        await client.until("serverContent.turnComplete")
        await client.receive_for()
        assert client.count("serverContent.turnComplete") == 1


@pytest.mark.parametrize("media", [False, True])
def test_images_are_kept_and_cost_tokens(media):
    @virtual_time
    async def run():
        blob = types.Blob(data=b"\xff\xd8\xff" + bytes(100), mime_type="image/jpeg")
        costs = []
        for resolution in ("MEDIA_RESOLUTION_HIGH", "MEDIA_RESOLUTION_LOW"):
            async with answering() as sim, connected(sim, media_resolution=resolution) as client:
                await client.session.send_realtime_input(**{"media" if media else "video": blob})
                await client.send_turn()
                done = await client.until("serverContent.turnComplete")
                (image,) = sim.sessions[0].images
                assert (image.mime, image.data) == ("image/jpeg", blob.data)
                costs += [
                    one.token_count
                    for one in done.usage_metadata.prompt_tokens_details
                    if one.modality == types.MediaModality.IMAGE
                ]
        return costs

    assert run() == [258, 64]


@pytest.mark.parametrize(
    "message",
    [
        {"audio": {"mimeType": "audio/pcm;rate=16000", "data": "not base64!"}},
        {"audio": {"mimeType": "audio/pcm;rate=16000", "data": "AAAA"}},
        {"audio": {"mimeType": "audio/opus", "data": ""}},
        {"audio": {"mimeType": "audio/pcm;rate=1", "data": ""}},
        {"video": {"mimeType": "video/mp4", "data": ""}},
        {"mediaChunks": [{"mimeType": "text/plain", "data": ""}]},
    ],
)
def test_invalid_media_end_the_session(message):
    @virtual_time
    async def run():
        async with answering(tls=False) as sim, started(sim) as client:
            await client.send({"realtimeInput": message})
            code, _ = await client.receive_close()
            await asyncio.sleep(0.1)
            assert sim.sessions[0].closed
            return code

    assert run() == 1007


@pytest.mark.parametrize(
    ("manual", "message", "text"),
    [
        (False, {"activityStart": {}}, "Explicit activity control is not supported"),
        (False, {"activityEnd": {}}, "Explicit activity control is not supported"),
        (True, {"audioStreamEnd": True}, "invalid argument"),
    ],
)
def test_signals_of_the_other_turn_detection_end_the_session(manual, message, text):
    @virtual_time
    async def run():
        config = {"automaticActivityDetection": {"disabled": manual}}
        async with answering(tls=False) as sim, started(sim, realtimeInputConfig=config) as client:
            await client.send({"realtimeInput": message})
            return await client.receive_close()

    code, reason = run()
    assert code == 1007
    assert text in reason
