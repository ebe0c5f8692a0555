"""What the service refuses, and with which error; the session stays open."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from openai_client import MODEL, QUICK, open_session

from duologue.simulators._openai_protocol.refusals import RefusedError, check
from duologue.simulators._openai_protocol.schema import CLIENT_EVENTS
from duologue.simulators._openai_protocol.session_object import OpenAISessionObject, check_session
from duologue.testing import OpenAISimulator, Reply, virtual_time


def input_fields(**fields: object) -> dict[str, object]:
    return {"type": "realtime", "audio": {"input": fields}}


def output_fields(**fields: object) -> dict[str, object]:
    return {"type": "realtime", "audio": {"output": fields}}


IN, OUT = "session.audio.input", "session.audio.output"


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"instructions": "x"}, "missing_required_parameter", "session.type"),
        ({"type": "transcription"}, "invalid_value", "session.type"),
        ({"type": "realtime", "voice": "marin"}, "unknown_parameter", "session.voice"),
        ({"type": "realtime", "model": "other"}, "invalid_value", "session.model"),
        ({"type": "realtime", "instructions": 7}, "invalid_type", "session.instructions"),
        (
            {"type": "realtime", "output_modalities": ["text", "audio"]},
            "invalid_value",
            "session.output_modalities",
        ),
        (
            {"type": "realtime", "max_output_tokens": 5000},
            "integer_above_max_value",
            "session.max_output_tokens",
        ),
        (
            {"type": "realtime", "max_output_tokens": 1.5},
            "invalid_type",
            "session.max_output_tokens",
        ),
        (
            {"type": "realtime", "tools": [{"type": "function"}]},
            "missing_required_parameter",
            "session.tools[0].name",
        ),
        ({"type": "realtime", "tool_choice": "any"}, "invalid_value", "session.tool_choice"),
        ({"type": "realtime", "audio": 7}, "invalid_type", "session.audio"),
        (input_fields(turn_detection={"type": None}), "invalid_type", f"{IN}.turn_detection.type"),
        (
            input_fields(format={"type": "audio/pcm", "rate": 16000}),
            "integer_below_min_value",
            f"{IN}.format.rate",
        ),
        (input_fields(format={"type": "pcm16"}), "invalid_value", f"{IN}.format.type"),
        (input_fields(format="pcm16"), "invalid_type", f"{IN}.format"),
        (
            input_fields(turn_detection={"type": "none"}),
            "invalid_value",
            f"{IN}.turn_detection.type",
        ),
        (
            input_fields(turn_detection={"silence_duration_ms": 1}),
            "missing_required_parameter",
            f"{IN}.turn_detection.type",
        ),
        (
            input_fields(turn_detection={"type": "semantic_vad", "threshold": 0.5}),
            "unknown_parameter",
            f"{IN}.turn_detection.threshold",
        ),
        (
            input_fields(turn_detection={"type": "server_vad", "threshold": 1.5}),
            "decimal_above_max_value",
            f"{IN}.turn_detection.threshold",
        ),
        (output_fields(voice=7), "invalid_type", f"{OUT}.voice"),
        (output_fields(speed=2.0), "decimal_above_max_value", f"{OUT}.speed"),
    ],
)
def test_wrong_session_is_refused_as_a_whole(session, code, param):
    configuration = OpenAISessionObject(MODEL, 0)
    before = json.dumps(configuration.value)
    with pytest.raises(RefusedError) as refused:
        configuration.update(session, has_spoken=False)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert json.dumps(configuration.value) == before


@virtual_time
async def test_wrong_events_are_errors_and_the_session_stays_open():
    async with OpenAISimulator() as sim, open_session(sim) as client:
        session = {"type": "realtime", "output_modalities": ["bogus"]}
        error = await client.error("session.update", session=session)
        assert error.message.startswith("Invalid value: 'bogus'. Supported values are: 'text'")
        error = await client.error("session.update", session={"instructions": "x"})
        assert error.message == "Missing required parameter: 'session.type'."
        assert (await client.error("session.upgrade")).param == "type"
        assert (await client.error("response.create", reply={})).code == "unknown_parameter"
        assert (await client.error("output_audio_buffer.clear")).code == "invalid_value"
        for text in ("{", "[]", "7", '{"event_id": "x"}'):
            await client.connection.send_raw(text)
            await client.until("error")
        assert client.events[-1].error.code == "missing_required_parameter"
        assert (await client.update(instructions="Go on.")).session.instructions == "Go on."


@virtual_time
async def test_updates_are_merged_and_sent_as_a_whole():
    async with OpenAISimulator() as sim, open_session(sim) as client:
        first = client.events_of("session.created")[0].session
        assert first.id.startswith("sess_")
        assert first.expires_at > 0
        assert first.audio.input.turn_detection.silence_duration_ms == 500
        updated = await client.update(
            audio={"input": {"turn_detection": QUICK, "noise_reduction": {"type": "far_field"}}}
        )
        detection = updated.session.audio.input.turn_detection
        assert (detection.silence_duration_ms, detection.prefix_padding_ms) == (200, 300)
        assert updated.session.audio.input.noise_reduction.strength == 1.0
        updated = await client.update(
            audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 0.7}}}
        )
        detection = updated.session.audio.input.turn_detection
        assert (detection.silence_duration_ms, detection.threshold) == (200, 0.7)
        updated = await client.update(
            audio={"input": {"turn_detection": {"type": "semantic_vad"}, "noise_reduction": None}}
        )
        assert updated.session.audio.input.turn_detection.eagerness == "auto"
        assert updated.session.audio.input.noise_reduction is None
        assert updated.session.audio.output.voice == "marin"
        updated = await client.update(audio={"input": {"turn_detection": None}})
        assert updated.session.audio.input.turn_detection is None


@virtual_time
async def test_unknown_voice_is_accepted_because_it_may_be_new():
    async with OpenAISimulator() as sim, open_session(sim) as client:
        updated = await client.update(audio={"output": {"voice": "willow"}})
        assert updated.session.audio.output.voice == "willow"


@virtual_time
async def test_voice_cannot_change_once_the_model_has_spoken():
    async with OpenAISimulator(replies=[Reply("Hi.", 0.1)]) as sim, open_session(sim) as client:
        updated = await client.update(audio={"output": {"voice": "cedar"}})
        assert updated.session.audio.output.voice == "cedar"
        await client.send("response.create")
        await client.until("response.done")
        error = await client.error("session.update", session=output_fields(voice="marin"))
        assert error.code == "cannot_update_voice"
        wanted = {"audio": {"output": {"voice": "ash"}}}
        error = await client.error("response.create", response=wanted)
        assert error.code == "cannot_update_voice"
        updated = await client.update(audio={"output": {"voice": "cedar", "speed": 1.2}})
        assert updated.session.audio.output.speed == 1.2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "audio", "input", "turn_detection", "format", "role", "x"]),
            below,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@given(JSON)
@settings(max_examples=150, deadline=None)
def test_arbitrary_json_is_refused_without_any_other_error(value):
    for attempt in (
        lambda: check_session(value),
        lambda: check(CLIENT_EVENTS, value, ""),
        lambda: check(CLIENT_EVENTS, {"type": "response.create", "response": value}, ""),
    ):
        try:
            attempt()
        except RefusedError as refused:
            assert refused.code  # noqa: PT017 - anything but a refusal fails the test
