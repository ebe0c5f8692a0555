"""The session object of the simulated Qwen service, in both forms, and what it refuses."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_client import MODEL, open_session

from duologue.simulators._openai_protocol.refusals import RefusedError, check
from duologue.simulators.qwen._schema import CLIENT_EVENTS, ITEMS
from duologue.simulators.qwen._session_object import QwenSessionObject
from duologue.testing import QwenSimulator, Reply, virtual_time

LATEST = "qwen3.8-omni-flash-realtime"
THREE = "qwen3-omni-flash-realtime"
TURBO = "qwen-omni-turbo-realtime"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def vad(**fields: object) -> dict[str, object]:
    return {"turn_detection": {"type": "server_vad", **fields}}


def semantic(**fields: object) -> dict[str, object]:
    return {"turn_detection": {"type": "semantic_vad", **fields}}


def nested_formats(**audio: object) -> dict[str, object]:
    return {"audio": {"input": {"format": audio}}}


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ([], "invalid_type", "session"),
        ({"type": "realtime"}, "unknown_parameter", "session.type"),
        ({"output_modalities": ["text"]}, "unknown_parameter", "session.output_modalities"),
        ({"modalities": ["audio"]}, "invalid_value", "session.modalities"),
        ({"modalities": []}, "invalid_value", "session.modalities"),
        ({"modalities": ["video"]}, "invalid_value", "session.modalities[0]"),
        ({"instructions": 7}, "invalid_type", "session.instructions"),
        ({"voice": ""}, "invalid_value", "session.voice"),
        ({"input_audio_format": "mp3"}, "invalid_value", "session.input_audio_format"),
        ({"output_audio_format": "g711"}, "invalid_value", "session.output_audio_format"),
        ({"temperature": 2}, "invalid_value", "session.temperature"),
        ({"temperature": -0.1}, "decimal_below_min_value", "session.temperature"),
        ({"top_p": 0}, "invalid_value", "session.top_p"),
        ({"top_p": 1.1}, "decimal_above_max_value", "session.top_p"),
        ({"top_k": -1}, "integer_below_min_value", "session.top_k"),
        ({"max_tokens": 0}, "integer_below_min_value", "session.max_tokens"),
        ({"repetition_penalty": 0}, "invalid_value", "session.repetition_penalty"),
        ({"presence_penalty": 2.5}, "decimal_above_max_value", "session.presence_penalty"),
        ({"seed": 2**31}, "integer_above_max_value", "session.seed"),
        ({"enable_search": 1}, "invalid_type", "session.enable_search"),
        ({"enable_search": True, "tools": [TOOL]}, "invalid_value", "session.tools"),
        (
            {"tools": [{"type": "function", "name": "f"}]},
            "missing_required_parameter",
            "session.tools[0].function",
        ),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "invalid_value", "session.tools"),
        ({"turn_detection": "server_vad"}, "invalid_type", "session.turn_detection"),
        (
            {"turn_detection": {"type": "smart_turn"}},
            "invalid_value",
            "session.turn_detection.type",
        ),
        (vad(threshold=1.1), "decimal_above_max_value", "session.turn_detection.threshold"),
        (vad(threshold=-1.1), "decimal_below_min_value", "session.turn_detection.threshold"),
        (
            vad(silence_duration_ms=199),
            "integer_below_min_value",
            "session.turn_detection.silence_duration_ms",
        ),
        (
            vad(silence_duration_ms=6001),
            "integer_above_max_value",
            "session.turn_detection.silence_duration_ms",
        ),
        (
            vad(idle_timeout_ms=4999),
            "integer_below_min_value",
            "session.turn_detection.idle_timeout_ms",
        ),
        (
            semantic(idle_timeout_ms=6000),
            "unknown_parameter",
            "session.turn_detection.idle_timeout_ms",
        ),
        (nested_formats(type="mp3"), "invalid_value", "session.audio.input.format.type"),
        (
            nested_formats(type="pcm", sample_rate=44100),
            "invalid_value",
            "session.audio.input.format.sample_rate",
        ),
        (
            {**nested_formats(type="pcm"), "input_audio_format": "pcm"},
            "invalid_value",
            "session.input_audio_format",
        ),
        (
            {**nested_formats(type="pcm"), "output_audio_format": "pcm"},
            "invalid_value",
            "session.output_audio_format",
        ),
        (
            {"voice": "Tina", "audio": {"output": {"voice": "Ethan"}}},
            "invalid_value",
            "session.voice",
        ),
        (
            {"audio": {"output": {"format": {"type": "wav"}}}},
            "invalid_value",
            "session.audio.output.format.type",
        ),
        ({"audio": {"output": {"voice": ""}}}, "invalid_value", "session.audio.output.voice"),
    ],
)
def test_wrong_session_is_refused_as_a_whole(session, code, param):
    configuration = QwenSessionObject(MODEL)
    before = json.dumps(configuration.value)
    with pytest.raises(RefusedError) as refused:
        configuration.update(session, has_spoken=False)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert json.dumps(configuration.value) == before


@pytest.mark.parametrize("model", [THREE, TURBO])
@pytest.mark.parametrize(
    "session",
    [
        semantic(),
        vad(idle_timeout_ms=6000),
        {"tools": [TOOL]},
        nested_formats(type="pcm", sample_rate=16000),
    ],
)
def test_older_models_accept_fewer_fields(model, session):
    QwenSessionObject(MODEL).update(session, has_spoken=False)
    QwenSessionObject(LATEST).update(session, has_spoken=False)
    with pytest.raises(RefusedError, match=f"{model} does not support"):
        QwenSessionObject(model).update(session, has_spoken=False)


def test_latest_model_accepts_mcp_tools():
    QwenSessionObject(LATEST).update(
        {"tools": [{"type": "mcp", "server_label": "x", "server_url": "http://x"}]},
        has_spoken=False,
    )


def test_inclusive_bounds_are_accepted():
    configuration = QwenSessionObject(MODEL)
    configuration.update(
        {
            "temperature": 0,
            "top_p": 1.0,
            "top_k": None,
            "max_tokens": 1,
            "repetition_penalty": 0.01,
            "presence_penalty": -2,
            "seed": 2**31 - 1,
            **vad(
                threshold=-1,
                silence_duration_ms=200,
                prefix_padding_ms=0,
                idle_timeout_ms=30000,
            ),
        },
        has_spoken=False,
    )
    found = configuration.turn_detection
    assert (found.threshold, found.silence_ms, found.idle_ms) == (-1.0, 200, 30000)


@pytest.mark.parametrize(
    ("model", "voice", "temperature", "transcriber"),
    [
        (LATEST, "Tina", 0.7, "qwen3-asr-flash-realtime"),
        (MODEL, "Tina", 0.7, "qwen3-asr-flash-realtime"),
        (THREE, "Cherry", 0.9, "qwen3-asr-flash-realtime"),
        (TURBO, "Chelsie", 1.0, "gummy-realtime-v1"),
    ],
)
def test_session_defaults_are_those_of_its_model(model, voice, temperature, transcriber):
    @virtual_time
    async def talk():
        async with QwenSimulator() as sim, open_session(sim, model) as client:
            session = client.events_of("session.created")[0]["session"]
            assert session["object"] == "realtime.session"
            assert session["id"].startswith("sess_")
            assert session["model"] == model
            return (
                session["voice"],
                session["temperature"],
                session["input_audio_transcription"]["model"],
                session["turn_detection"]["silence_duration_ms"],
            )

    assert talk() == (voice, temperature, transcriber, 800)


@virtual_time
async def test_updates_are_merged_and_sent_as_a_whole():
    async with QwenSimulator() as sim, open_session(sim) as client:
        updated = await client.update(instructions="Be kind.", turn_detection={"threshold": 0.1})
        session = updated["session"]
        assert session["turn_detection"] == {
            "type": "server_vad",
            "threshold": 0.1,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 800,
            "create_response": True,
            "interrupt_response": True,
        }
        session = (await client.update(turn_detection={"silence_duration_ms": 500}))["session"]
        assert session["turn_detection"]["threshold"] == 0.1
        assert session["instructions"] == "Be kind."
        session = (await client.update(turn_detection=None, voice=None))["session"]
        assert (session["turn_detection"], session["voice"]) == (None, "Tina")
        session = (await client.update(turn_detection={}))["session"]
        assert session["turn_detection"]["threshold"] == 0.5
        # The service has one transcription model, whatever name the client gives.
        session = (await client.update(input_audio_transcription={"model": None}))["session"]
        assert session["input_audio_transcription"]["model"] == "qwen3-asr-flash-realtime"
        assert sim.sessions[0].session_object == session


@virtual_time
async def test_nested_form_holds_formats_and_voice():
    async with QwenSimulator(replies=["Hi."]) as sim, open_session(sim, LATEST) as client:
        await client.update(audio={"input": {"format": {"type": "pcm", "sample_rate": 8000}}})
        updated = await client.update(audio={"output": {"voice": "Ethan"}})
        audio = updated["session"]["audio"]
        assert audio["input"]["format"] == {"type": "pcm", "sample_rate": 8000}
        assert (audio["output"]["voice"], updated["session"]["voice"]) == ("Ethan", "Ethan")
        await client.send("response.create")
        assert (await client.until("response.done"))["response"]["voice"] == "Ethan"
        # The legacy form replaces the nested one.
        updated = await client.update(input_audio_format="pcm")
        assert "audio" not in updated["session"]
        assert updated["session"]["voice"] == "Ethan"


@pytest.mark.parametrize(
    "change", [{"voice": "Cherry"}, {"audio": {"output": {"voice": "Cherry"}}}]
)
def test_voice_cannot_change_once_the_model_has_spoken(change):
    @virtual_time
    async def talk():
        async with QwenSimulator(replies=[Reply("Hi.", 0.1)]) as sim, open_session(sim) as client:
            assert (await client.update(voice="Ethan"))["session"]["voice"] == "Ethan"
            await client.send("response.create")
            await client.until("response.done")
            error = await client.error("session.update", session=change)
            assert error["code"] == "cannot_update_voice"
            assert (await client.update(voice="Ethan"))["type"] == "session.updated"

    talk()


@virtual_time
async def test_wrong_events_are_errors_and_the_session_stays_open():
    async with QwenSimulator() as sim, open_session(sim) as client:
        error = await client.error("session.update", session={"modalities": ["audio"]})
        assert error == {
            "type": "invalid_request_error",
            "code": "invalid_value",
            "message": "Invalid modalities: ['audio']. Supported combinations are: ['text'] and "
            "['audio', 'text'].",
            "param": "session.modalities",
        }
        for kind in (
            "conversation.item.truncate",
            "conversation.item.delete",
            "conversation.item.retrieve",
            "output_audio_buffer.clear",
            "session.upgrade",
        ):
            assert (await client.error(kind, item_id="x"))["param"] == "type"
        assert (await client.error("response.create", reply={}))["code"] == "unknown_parameter"
        for text in ("{", "[]", "7", '{"event_id": "x"}'):
            await client.socket.send(text)
            await client.until("error")
        assert (await client.update(instructions="Go on."))["session"]["instructions"] == "Go on."


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "audio", "input", "output", "turn_detection", "format", "voice", "tools"]
            ),
            below,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(JSON)
@settings(max_examples=150, deadline=None)
def test_arbitrary_json_is_refused_without_any_other_error(value):
    configuration = QwenSessionObject(LATEST)
    for attempt in (
        lambda: configuration.update(value, has_spoken=True),
        lambda: check(CLIENT_EVENTS, value, ""),
        lambda: check(CLIENT_EVENTS, {"type": "response.create", "response": value}, ""),
        lambda: check(ITEMS["message"], value, "item"),
    ):
        try:
            attempt()
        except RefusedError as refused:
            assert refused.code  # noqa: PT017 - anything but a refusal fails the test
    # Whatever was accepted, the session object can still be read and serialized.
    json.dumps(configuration.value)
    assert configuration.input_rate > 0
    assert configuration.output_rate > 0
    assert configuration.turn_detection is None or configuration.turn_detection.silence_ms > 0
    assert isinstance(configuration.tools, tuple)
