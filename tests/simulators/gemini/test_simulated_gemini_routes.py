"""The routes of the simulated Gemini service: paths, keys, tokens, JSON as Google reads it."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

import orjson
import websockets.asyncio.client
import websockets.exceptions
from gemini_client import (
    MODEL,
    PATH,
    Client,
    connected,
    raw,
    sdk,
    setup,
    silence,
    started,
    tone,
)
from google import genai
from google.genai import errors, types
from google.oauth2.credentials import Credentials

from duologue.errors import ConfigError
from duologue.testing import GeminiSimulator, virtual_time

VERTEX = "/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent"


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha"])
def test_sdk_connects_with_every_api_version(version):
    @virtual_time
    async def run():
        async with (
            GeminiSimulator(replies=["Yes."], tls=True) as sim,
            connected(sim, version=version) as client,
        ):
            assert client.session.session_id == sim.sessions[0].id
            await client.send_turn()
            await client.until("serverContent.turnComplete")

    run()


@virtual_time
async def test_plain_client_connects_without_tls_and_with_its_key_in_the_address():
    async with GeminiSimulator() as sim:
        assert sim.ws_url == f"ws://127.0.0.1:{sim.port}{PATH.format('v1')}"
        async with raw(sim, f"{PATH.format('v1')}?key={sim.key}", headers={}) as client:
            await client.send(setup())
            assert "setupComplete" in await client.receive()


@virtual_time
async def test_wrong_key_is_refused_after_the_setup():
    async with GeminiSimulator(key="right", tls=True) as sim:
        with pytest.raises(errors.APIError) as refused:
            async with connected(sim, key="wrong"):
                pass
        assert refused.value.code == 1007
        assert refused.value.details == "API key not valid. Please pass a valid API key."
        async with raw(sim, headers={}) as client:
            await client.send(setup())
            code, reason = await client.receive_close()
            assert code == 1008
            assert reason.startswith("Method doesn't allow unregistered callers")
        assert sim.sessions == []


@virtual_time
async def test_vertex_has_its_own_path_and_key():
    async with GeminiSimulator(replies=["Yes."], tls=True) as sim:
        client = genai.Client(
            vertexai=True,
            project="p",
            location="l",
            credentials=Credentials(token=sim.key),
            http_options=types.HttpOptions(
                base_url=sim.url, async_client_args={"ssl": sim.ssl_context}
            ),
        )
        config = {"response_modalities": ["AUDIO"], "explicit_vad_signal": True}
        model = "gemini-live-2.5-flash-native-audio"
        async with client.aio.live.connect(model=model, config=config) as session:
            client = Client(session)
            # The sensitivities are low on Vertex AI: a second of silence ends a turn.
            await client.send_audio(np.concatenate((tone(0.5), silence(1.1))))
            await client.until("serverContent.turnComplete")
            assert client.count("voiceActivity") == 2
            assert sim.sessions[0].user_turns[0].end == pytest.approx(1.5 * 16000, abs=320)
        assert sim.sessions[0].setup["model"] == (
            "projects/p/locations/l/publishers/google/models/gemini-live-2.5-flash-native-audio"
        )
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            async with raw(sim, VERTEX, headers={"Authorization": "Bearer wrong"}):
                pass
        assert refused.value.response.status_code == 401


@virtual_time
async def test_other_paths_are_not_found():
    async with GeminiSimulator() as sim:
        for path in ("/ws/x", PATH.format("v2"), "/v1/models"):
            with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
                async with raw(sim, path):
                    pass
            assert refused.value.response.status_code == 404


@virtual_time
async def test_ephemeral_token_is_valid_for_its_uses_and_for_resuming():
    async with GeminiSimulator(replies=["Yes."], tls=True) as sim:
        token = await sdk(sim, api_version="v1alpha").aio.auth_tokens.create(config={"uses": 1})
        assert token.name.startswith("auth_tokens/")
        options = {"key": token.name, "version": "v1alpha", "session_resumption": {}}
        async with connected(sim, **options) as client:
            await client.until("sessionResumptionUpdate")
            handle = client.messages[-1].session_resumption_update.new_handle
        with pytest.raises(errors.APIError) as spent:
            async with connected(sim, **options):
                pass
        assert (spent.value.code, spent.value.details) == (
            1011,
            "Token has been used too many times",
        )
        async with connected(sim, **{**options, "session_resumption": {"handle": handle}}):
            assert sim.sessions[-1].resumed
        with pytest.raises(errors.APIError):
            async with connected(sim, key="auth_tokens/none", version="v1alpha"):
                pass
        with pytest.raises(errors.ClientError) as wrong:
            await sdk(sim, "wrong", api_version="v1alpha").aio.auth_tokens.create()
        assert wrong.value.code == 400


@virtual_time
async def test_token_expires():
    now = dt.datetime.now(dt.UTC)
    async with GeminiSimulator(tls=True) as sim:
        tokens = sdk(sim, api_version="v1alpha").aio.auth_tokens
        for config, seconds in (
            ({"uses": 0}, 61),
            ({"new_session_expire_time": now + dt.timedelta(seconds=300)}, 305),
            ({"expire_time": now + dt.timedelta(seconds=30)}, 35),
        ):
            token = await tokens.create(config={"uses": 0, **config})
            async with connected(sim, key=token.name, version="v1alpha"):
                pass
            await asyncio.sleep(seconds)
            with pytest.raises(errors.APIError) as late:
                async with connected(sim, key=token.name, version="v1alpha"):
                    pass
            assert late.value.code == 1008
        # It can't resume a session either.
        config = {"uses": 0, "expire_time": now + dt.timedelta(seconds=300)}
        token = await tokens.create(config=config)
        async with connected(
            sim, key=token.name, version="v1alpha", session_resumption={}
        ) as client:
            await client.until("sessionResumptionUpdate")
            handle = client.messages[-1].session_resumption_update.new_handle
        again = {"version": "v1alpha", "session_resumption": {"handle": handle}}
        async with connected(sim, key=token.name, **again):
            assert sim.sessions[-1].resumed
        await asyncio.sleep(305)
        with pytest.raises(errors.APIError) as late:
            async with connected(sim, key=token.name, **again):
                pass
        assert late.value.code == 1008
        with pytest.raises(errors.ClientError):
            await tokens.create(config={"expire_time": now - dt.timedelta(seconds=5)})


@virtual_time
async def test_token_may_lock_the_setup_or_a_part_of_it():
    constraints = {
        "model": MODEL,
        "config": {"system_instruction": "Be kind.", "temperature": 0.5},
    }
    async with GeminiSimulator(tls=True) as sim:
        tokens = sdk(sim, api_version="v1alpha").aio.auth_tokens
        whole = await tokens.create(config={"live_connect_constraints": constraints})
        part = await tokens.create(
            config={"live_connect_constraints": constraints, "lock_additional_fields": ["topP"]}
        )
        mine = {"system_instruction": "Be rude.", "temperature": 1.0, "top_p": 0.9}
        for token in (whole, part):
            async with connected(sim, key=token.name, version="v1alpha", **mine):
                assert sim.sessions[-1].system_instruction == "Be kind."
                assert sim.sessions[-1].setup["generationConfig"]["temperature"] == 0.5
        # All of the setup was the token's; then what it has, and what it also locks.
        assert "inputAudioTranscription" not in sim.sessions[0].setup
        assert "inputAudioTranscription" in sim.sessions[1].setup


SNAKE = {
    "setup": {
        "model": f"models/{MODEL}",
        "generation_config": {
            "response_modalities": ["AUDIO"],
            "max_output_tokens": "100",
            "speech_config": {"voice_config": {"prebuilt_voice_config": {"voice_name": "Leda"}}},
        },
        "system_instruction": {"parts": [{"text": "Be kind."}]},
        "tools": [
            {
                "function_declarations": [
                    {
                        "name": "f",
                        "behavior": "BLOCKING",
                        "parameters_json_schema": {"type": "object", "a_b": {"c_d": 1}},
                    }
                ]
            }
        ],
        "realtime_input_config": {
            "automatic_activity_detection": {"silence_duration_ms": 200},
            "activity_handling": None,
        },
        "session_resumption": {},
    }
}
CAMEL = {
    "setup": {
        "model": f"models/{MODEL}",
        "generationConfig": {
            "responseModalities": ["AUDIO"],
            "maxOutputTokens": 100,
            "speechConfig": {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Leda"}}},
        },
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "f",
                        "behavior": "BLOCKING",
                        "parametersJsonSchema": {"type": "object", "a_b": {"c_d": 1}},
                    }
                ]
            }
        ],
        "realtimeInputConfig": {"automaticActivityDetection": {"silenceDurationMs": 200}},
        "sessionResumption": {},
    }
}


@virtual_time
async def test_names_may_be_in_either_casing_at_every_depth():
    async with GeminiSimulator() as sim:
        for message in (SNAKE, CAMEL):
            async with raw(sim) as client:
                await client.send(message)
                assert "setupComplete" in await client.receive()
                await client.send({"client_content": {"turns": [{"parts": [{"text": "a"}]}]}})
                await client.send({"realtime_input": {"audio": blob("audio/pcm", b"\0\0" * 160)}})
                await client.send({"realtimeInput": {"audioStreamEnd": True}})
                await client.until("sessionResumptionUpdate")
                await client.until("sessionResumptionUpdate")
        first, second = sim.sessions
        assert first.setup == second.setup == CAMEL["setup"]
        assert first.messages_in[1] == {"clientContent": {"turns": [{"parts": [{"text": "a"}]}]}}


def blob(mime, data, encode=base64.b64encode):
    return {"mime_type": mime, "data": encode(data).decode()}


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_may_use_either_alphabet(encode):
    @virtual_time
    async def run():
        audio = tone(0.5).tobytes()
        assert set("+/") & set(base64.b64encode(audio).decode())
        async with GeminiSimulator(replies=["Yes."], keep_audio=True) as sim, started(sim) as it:
            for data in (audio, silence(1.0).tobytes()):
                message = {"audio": blob("audio/pcm;rate=16000", data, encode)}
                await it.send({"realtimeInput": message})
            await it.until("serverContent.turnComplete")
            assert np.array_equal(sim.sessions[0].user_turns[0].samples[:8000], tone(0.5))

    run()


@pytest.mark.parametrize("binary", [True, False])
def test_messages_are_binary_by_default(binary):
    @virtual_time
    async def run():
        async with GeminiSimulator(binary_frames=binary) as sim, raw(sim) as client:
            await client.send(setup())
            assert isinstance(await client.socket.recv(), bytes if binary else str)

    run()


@virtual_time
async def test_client_may_send_binary_and_large_messages():
    async with GeminiSimulator() as sim, raw(sim) as client:
        await client.socket.send(orjson.dumps(setup()))
        assert "setupComplete" in await client.receive()
        data = silence(300.0).tobytes()
        await client.socket.send(
            orjson.dumps({"realtimeInput": {"audio": blob("audio/pcm", data)}})
        )
        await client.send({"clientContent": {"turns": [], "turnComplete": True}})
        await client.until("serverContent.turnComplete")
        assert sim.sessions[0].audio_in_samples == 300 * 16000


async def test_port_in_use_is_reported_in_one_line():
    async with GeminiSimulator() as sim:
        with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1 port {sim.port}"):
            async with GeminiSimulator(port=sim.port):
                pass


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="there is no backend 'parrot'"):
        GeminiSimulator("parrot")
    with pytest.raises(ConfigError, match="clock_scale"):
        GeminiSimulator(clock_scale=0)
    with pytest.raises(ConfigError, match="audio_pace"):
        GeminiSimulator(audio_pace=-1)
    with pytest.raises(ConfigError, match="no fault is called 'lossy'"):
        GeminiSimulator(faults=["lossy"])
