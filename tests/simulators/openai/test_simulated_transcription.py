"""Transcription sessions of the simulated OpenAI, by the official client."""

import asyncio
import base64
import json

import numpy as np
import pytest
from openai import AsyncOpenAI
from sdk_types import check_against_sdk

from duologue.simulators.openai.server import OpenAISimulator
from duologue.testing import virtual_time

TRANSCRIPT = "what time is it"
SPEECH = (8000 * np.sin(np.arange(24000) / 17)).astype("<i2").tobytes()
SILENCE = bytes(24000)
INPUT = {
    "format": {"type": "audio/pcm", "rate": 24000},
    "transcription": {"model": "gpt-live-transcribe"},
    "turn_detection": None,
}


def session(**changes):
    return {"type": "transcription", "audio": {"input": {**INPUT, **changes}}}


def connect(service, query=None, **options):
    client = AsyncOpenAI(api_key=service.key, base_url=service.url)
    return client.realtime.connect(extra_query=query or {"intent": "transcription"}, **options)


async def receive(connection, kind):
    """Return all events up to one of a kind, each checked against the client's own types."""
    events = []
    while not events or events[-1]["type"] != kind:
        raw = await asyncio.wait_for(connection.recv_bytes(), 5)
        events.append(json.loads(raw))
        check_against_sdk(events[-1])
    return events


async def append(connection, audio):
    for begin in range(0, len(audio), 4800):
        chunk = base64.b64encode(audio[begin : begin + 4800]).decode()
        await connection.input_audio_buffer.append(audio=chunk)


async def test_the_official_client_transcribes():
    async with (
        OpenAISimulator(replies=[], transcripts=[TRANSCRIPT, "and now"]) as service,
        connect(service) as connection,
    ):
        (created,) = await receive(connection, "session.created")
        assert created["session"]["type"] == "transcription"
        await connection.session.update(session=session())
        await receive(connection, "session.updated")
        items = []
        for expected in (TRANSCRIPT, "and now"):
            await append(connection, SPEECH + SILENCE)
            await connection.input_audio_buffer.commit()
            *deltas, completed = await receive(
                connection, "conversation.item.input_audio_transcription.completed"
            )
            (committed,) = [e for e in deltas if e["type"] == "input_audio_buffer.committed"]
            assert committed["previous_item_id"] == (items[-1] if items else None)
            assert {e["item_id"] for e in deltas} == {completed["item_id"]}
            assert "".join(e.get("delta", "") for e in deltas) == completed["transcript"]
            assert completed["transcript"] == expected
            items.append(completed["item_id"])
    (transcription,) = service.sessions
    assert transcription.turns == [TRANSCRIPT, "and now"]
    assert transcription.commits == 2


async def test_server_vad_commits_the_turns():
    detection = {"type": "server_vad", "silence_duration_ms": 300}
    changes = {"transcription": {"model": "gpt-transcribe"}, "turn_detection": detection}
    async with (
        OpenAISimulator(replies=[], transcripts=[TRANSCRIPT, "and now"]) as service,
        connect(service) as connection,
    ):
        await connection.session.update(session=session(**changes))
        *_, updated = await receive(connection, "session.updated")
        given = updated["session"]["audio"]["input"]["turn_detection"]
        assert (given["silence_duration_ms"], given["threshold"]) == (300, 0.5)
        previous = None
        for number, expected in enumerate((TRANSCRIPT, "and now")):
            await append(connection, SPEECH + SILENCE)
            started, stopped, committed, *deltas, completed = await receive(
                connection, "conversation.item.input_audio_transcription.completed"
            )
            assert [
                event["type"].rpartition(".")[2] for event in (started, stopped, committed)
            ] == [
                "speech_started",
                "speech_stopped",
                "committed",
            ]
            padding = number * 1500 - started["audio_start_ms"]
            assert 0 <= padding <= 140
            assert stopped["audio_end_ms"] == pytest.approx(number * 1500 + 1300, abs=20)
            items = {event["item_id"] for event in (started, stopped, committed, *deltas)}
            assert items == {completed["item_id"]}
            assert committed["previous_item_id"] == previous
            assert completed["transcript"] == expected
            previous = completed["item_id"]
        await append(connection, SPEECH)
        await receive(connection, "input_audio_buffer.speech_started")
        await connection.input_audio_buffer.commit()  # The client may be faster.
        await receive(connection, "conversation.item.input_audio_transcription.completed")
        await connection.session.update(session=session(**changes | {"turn_detection": None}))
        await receive(connection, "session.updated")
        await append(connection, SPEECH + SILENCE)
        await connection.input_audio_buffer.commit()
        first, *_ = await receive(
            connection, "conversation.item.input_audio_transcription.completed"
        )
        assert first["type"] == "input_audio_buffer.committed"
    assert service.sessions[0].commits == 4


@pytest.mark.parametrize(("eagerness", "silence_ms"), [("high", 400), (None, 800)])
async def test_semantic_vad_commits_after_the_silence_of_its_eagerness(eagerness, silence_ms):
    detection = {"type": "semantic_vad"} | ({"eagerness": eagerness} if eagerness else {})
    changes = {"transcription": {"model": "gpt-transcribe"}, "turn_detection": detection}
    async with (
        OpenAISimulator(replies=[], transcripts=[TRANSCRIPT]) as service,
        connect(service) as connection,
    ):
        await connection.session.update(session=session(**changes))
        *_, updated = await receive(connection, "session.updated")
        given = updated["session"]["audio"]["input"]["turn_detection"]
        assert given["eagerness"] == (eagerness or "auto")
        await append(connection, SPEECH + 2 * SILENCE)
        *_, stopped = await receive(connection, "input_audio_buffer.speech_stopped")
        assert stopped["audio_end_ms"] == pytest.approx(1000 + silence_ms, abs=20)
        *_, completed = await receive(
            connection, "conversation.item.input_audio_transcription.completed"
        )
        assert completed["transcript"] == TRANSCRIPT


@pytest.mark.parametrize(
    "detection",
    [
        {"type": "semantic_vad", "eagerness": "keen"},
        {"type": "server_vad", "silence_duration_ms": -1},
        {"type": "x"},
    ],
)
async def test_a_wrong_turn_detection_is_refused_by_its_name(detection):
    changes = {"transcription": {"model": "gpt-transcribe"}, "turn_detection": detection}
    async with OpenAISimulator() as service, connect(service) as connection:
        await connection.session.update(session=session(**changes))
        *_, error = await receive(connection, "error")
    assert error["error"]["param"].startswith("session.audio.input.turn_detection.")


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({"type": "session.update", "session": {"type": "realtime"}}, "invalid_value"),
        (
            {
                "type": "session.update",
                "session": session(turn_detection={"type": "server_vad"}),
            },
            "invalid_value",
        ),
        (
            {
                "type": "session.update",
                "session": session(format={"type": "audio/pcm", "rate": 16000}),
            },
            "invalid_value",
        ),
        (
            {"type": "session.update", "session": session(transcription={"language": "en"})},
            "missing_required_parameter",
        ),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter"),
        ({"type": "input_audio_buffer.append", "audio": "?"}, "invalid_value"),
        ({"type": "response.create"}, "invalid_value"),
        ({}, "missing_required_parameter"),
    ],
)
async def test_what_a_transcription_session_does_not_take_is_an_error_event(event, code):
    async with OpenAISimulator() as service, connect(service) as connection:
        await receive(connection, "session.created")
        await connection.send({**event, "event_id": "mine"})
        (error,) = await receive(connection, "error")
        assert error["error"]["code"] == code
        assert error["error"]["event_id"] == "mine"
        await connection.input_audio_buffer.clear()
        await receive(connection, "input_audio_buffer.cleared")


async def test_with_a_model_in_the_address_it_is_a_conversation():
    async with (
        OpenAISimulator() as service,
        connect(service, model="gpt-realtime-2.1") as connection,
    ):
        await receive(connection, "session.created")
        await connection.session.update(session=session())
        (error,) = await receive(connection, "error")
        assert error["error"]["code"] == "invalid_model"


@virtual_time
async def test_a_transcription_session_ends_after_an_hour():
    async with OpenAISimulator(max_session_s=10.0) as service, connect(service) as connection:
        await receive(connection, "session.created")
        await asyncio.sleep(11)
        with pytest.raises(Exception, match="maximum duration"):
            await connection.recv_bytes()
