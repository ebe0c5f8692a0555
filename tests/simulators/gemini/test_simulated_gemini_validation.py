"""Invalid messages to the simulated Gemini service, and the error texts that a client gets."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

import websockets.exceptions
from gemini_client import MODEL, connected, raw, sdk, setup, started
from google.genai import errors, types
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.simulators.gemini._json_shapes import RefusedError, camel, read_object, snake
from duologue.simulators.gemini._schema import CLIENT, read_message
from duologue.simulators.gemini._setup import validate_setup
from duologue.testing import GeminiSimulator, virtual_time

GENERAL = "Request contains an invalid argument."
FLASH_31 = "gemini-3.1-flash-live-preview"
LIVE_25 = "gemini-live-2.5-flash-native-audio"
THINKING = "gemini-3.8-live-extended-thinking"


def unknown(name, where):
    place = f" at '{where}'" if where else ""
    return f'Invalid JSON payload received. Unknown name "{name}"{place}: Cannot find field.'


def generation(**fields):
    return {"generationConfig": fields}


def detection(**fields):
    return {"realtimeInputConfig": {"automaticActivityDetection": fields}}


def compression(trigger, target):
    window = {"targetTokens": target}
    return {"contextWindowCompression": {"triggerTokens": trigger, "slidingWindow": window}}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"speechConfig": {}}, unknown("speechConfig", "setup")),
        ({"response_modalities": ["AUDIO"]}, unknown("response_modalities", "setup")),
        (
            generation(speechConfig={"voice": "Leda"}),
            unknown("voice", "setup.generation_config.speech_config"),
        ),
        ({"tools": [{"functions": []}]}, unknown("functions", "setup.tools[0]")),
        ({"tools": {}}, "Invalid value at 'setup.tools' (TYPE_ARRAY), {}"),
        ({"systemInstruction": "x"}, "Invalid value at 'setup.system_instruction'"),
        (generation(temperature="warm"), "Invalid value at 'setup.generation_config.temperature'"),
        (generation(maxOutputTokens=1.5), "Invalid value at 'setup.generation_config.max_output"),
        (generation(responseModalities=["SMELL"]), "Invalid value at 'setup.generation_config"),
        (detection(disabled="yes"), "Invalid value at 'setup.realtime_input_config.automatic"),
        (detection(silenceDurationMs=-1), GENERAL),
        (detection(startOfSpeechSensitivity="HIGH"), "Invalid value at 'setup.realtime_input"),
        (compression(5, 9), GENERAL),
        (
            generation(responseModalities=["TEXT"]),
            "The requested combination of response modalities (TEXT) is not supported by the",
        ),
        (
            generation(responseModalities=["TEXT", "AUDIO"]),
            "The requested combination of response modalities (TEXT, AUDIO) is not supported",
        ),
    ],
)
def test_wrong_setup_is_refused(fields, reason):
    @virtual_time
    async def run():
        async with GeminiSimulator() as sim, raw(sim) as client:
            await client.send(setup(**fields))
            close = await client.receive_close()
            assert sim.sessions == []
            return close

    code, close = run()
    assert code == 1007
    assert close.startswith(reason[:123])


@pytest.mark.parametrize(
    ("model", "fields", "good"),
    [
        (MODEL, {"proactivity": {"proactiveAudio": False}}, False),
        (MODEL, {"proactivity": {"proactiveAudio": True}}, True),
        (FLASH_31, {"proactivity": {"proactiveAudio": False}}, True),
        (MODEL, generation(thinkingConfig={"thinkingLevel": "HIGH"}), False),
        (THINKING, generation(thinkingConfig={"thinkingLevel": "HIGH"}), True),
        (FLASH_31, generation(thinkingConfig={"thinkingLevel": "HIGH"}), True),
        (MODEL, generation(enableAffectiveDialog=True), False),
        (LIVE_25, generation(enableAffectiveDialog=True), True),
    ],
)
def test_models_differ_in_what_they_accept(model, fields, good):
    @virtual_time
    async def run():
        async with GeminiSimulator() as sim, raw(sim) as client:
            await client.send(setup(model, **fields))
            if good:
                return "setupComplete" in await client.receive()
            return (await client.receive_close())[0] == 1007

    assert run()


@virtual_time
async def test_model_must_be_named_and_known():
    async with GeminiSimulator(unknown_models=["gemini-nothing"], tls=True) as sim:
        with pytest.raises(errors.APIError) as refused:
            async with connected(sim, model="gemini-nothing", version="v1beta"):
                pass
        assert refused.value.code == 1008
        assert refused.value.details.startswith(
            "models/gemini-nothing is not found for API version v1beta, or is not supported for "
        )
        for model in (None, "", MODEL):
            async with raw(sim) as client:
                await client.send({"setup": {} if model is None else {"model": model}})
                assert (await client.receive_close())[0] == 1007


@pytest.mark.parametrize(
    "message",
    [
        "{not JSON",
        "[]",
        "null",
        "{}",
        '{"session.update": {}}',
        '{"setup": {"model": "models/x"}, "clientContent": {}}',
        '{"clientContent": {}}',
        '{"realtimeInput": {"text": "Hello."}}',
    ],
)
def test_first_message_must_be_a_setup(message):
    @virtual_time
    async def run():
        async with GeminiSimulator() as sim, raw(sim) as client:
            await client.socket.send(message)
            return (await client.receive_close())[0]

    assert run() == 1007


@pytest.mark.parametrize(
    "message",
    [
        {"setup": {"model": f"models/{MODEL}"}},
        {"realtimeInput": {"speech": {}}},
        {"realtimeInput": {"text": 5}},
        {"clientContent": {"turns": [{"role": "assistant", "parts": []}]}},
        {"clientContent": {"turns": {"role": "user"}}},
        {"toolResponse": {"functionResponses": [{"id": "x", "response": "text"}]}},
        {"contextUpdate": {"tools": []}},
        {"brandNew": {}},
    ],
)
def test_wrong_message_ends_the_session(message):
    @virtual_time
    async def run():
        async with GeminiSimulator() as sim, started(sim) as client:
            await client.send(message)
            return (await client.receive_close())[0]

    assert run() == 1007


# Every option of a session that the SDK has, except those that the service refuses.
EVERYTHING = types.LiveConnectConfig(
    response_modalities=["AUDIO"],
    temperature=0.5,
    top_p=0.9,
    top_k=40,
    max_output_tokens=1000,
    media_resolution="MEDIA_RESOLUTION_LOW",
    seed=7,
    speech_config=types.SpeechConfig(
        voice_config=types.VoiceConfig(
            prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name="Leda")
        ),
        language_code="en-US",
    ),
    thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_budget=0),
    system_instruction="Be kind.",
    tools=[
        types.Tool(google_search=types.GoogleSearch()),
        types.Tool(
            function_declarations=[
                types.FunctionDeclaration(
                    name="f",
                    description="Does f.",
                    behavior="NON_BLOCKING",
                    parameters=types.Schema(
                        type="OBJECT",
                        properties={"x": types.Schema(any_of=[types.Schema(type="STRING")])},
                    ),
                )
            ]
        ),
    ],
    session_resumption=types.SessionResumptionConfig(),
    input_audio_transcription=types.AudioTranscriptionConfig(language_codes=["en-US"]),
    output_audio_transcription=types.AudioTranscriptionConfig(),
    realtime_input_config=types.RealtimeInputConfig(
        automatic_activity_detection=types.AutomaticActivityDetection(
            start_of_speech_sensitivity="START_SENSITIVITY_LOW",
            end_of_speech_sensitivity="END_SENSITIVITY_LOW",
            prefix_padding_ms=40,
            silence_duration_ms=300,
        ),
        activity_handling="START_OF_ACTIVITY_INTERRUPTS",
        turn_coverage="TURN_INCLUDES_AUDIO_ACTIVITY_AND_ALL_VIDEO",
    ),
    context_window_compression=types.ContextWindowCompressionConfig(
        trigger_tokens=25600, sliding_window=types.SlidingWindow(target_tokens=12800)
    ),
    proactivity=types.ProactivityConfig(proactive_audio=True),
    history_config=types.HistoryConfig(initial_history_in_client_content=False),
    safety_settings=[
        types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_ONLY_HIGH")
    ],
)


@virtual_time
async def test_everything_that_the_sdk_can_configure_is_accepted():
    async with GeminiSimulator(tls=True) as sim:
        live = sdk(sim).aio.live
        async with live.connect(model=FLASH_31, config=EVERYTHING) as session:
            assert session.setup_complete is not None
        (tool,) = sim.sessions[0]._replies.setup.tools
        assert tool.parameters == {
            "type": "object",
            "properties": {"x": {"anyOf": [{"type": "string"}]}},
        }


def test_names_convert_between_casings_and_back():
    for name in ("turnComplete", "model", "topP", "newHandle", "functionDeclarations"):
        assert camel(snake(name)) == camel(name) == name


def test_last_spelling_of_a_field_counts():
    parts = {"text": "x", "media_chunks": [], "mediaChunks": None, "activityStart": {}}
    message = {"realtimeInput": {"text": "y"}, "realtime_input": parts}
    read = read_message(message)
    assert read == {"realtimeInput": {"text": "x", "mediaChunks": [], "activityStart": {}}}
    assert [*read["realtimeInput"]] == ["text", "mediaChunks", "activityStart"]


def test_error_in_the_last_spelling_of_a_field_has_its_path():
    long, short = [{"id": "a"}, {"id": "b"}], [{"id": "c", "x": 1}]
    with pytest.raises(RefusedError) as refusal:
        read_message(
            {
                "toolResponse": {"functionResponses": long},
                "tool_response": {"functionResponses": short},
            }
        )
    assert refusal.value.reason == unknown("x", "tool_response.function_responses[0]")


NAMES = st.sampled_from(
    ["setup", "clientContent", "realtime_input", "turns", "parts", "text", "audio", "data", "x"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_reading_twice_changes_nothing(value):
    refused = None
    try:
        once = read_message(value)
    except RefusedError as refusal:
        refused = refusal
    if refused is None:
        assert read_message(once) == once
    else:
        assert refused.code == 1007
        assert refused.reason


@given(st.dictionaries(NAMES | st.just("model"), VALUES, max_size=3))
def test_setup_of_nonsense_is_refused(value):
    with pytest.raises(RefusedError):
        validate_setup(
            read_object(CLIENT, {"setup": value})["setup"],
            vertex=False,
            version="v1",
            unknown=frozenset(),
        )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=2), max_size=3))
def test_nonsense_is_refused_and_breaks_nothing(messages):
    @virtual_time
    async def run():
        async with GeminiSimulator(replies=["Yes."] * 9) as sim:
            async with started(sim) as client:
                with suppress(websockets.exceptions.ConnectionClosed):
                    for message in [*messages, {}]:
                        await client.socket.send(json.dumps(message))
                assert (await client.receive_close())[0] == 1007
            async with started(sim) as client:
                await client.send({"realtimeInput": {"text": "Hello."}})
                await client.until("serverContent.turnComplete")

    run()
