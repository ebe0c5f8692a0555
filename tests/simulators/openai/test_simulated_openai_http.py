"""HTTP: keys, models, ephemeral keys, large messages, the maximum duration, cut connections."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

import openai
import websockets.asyncio.client
import websockets.exceptions
from openai_client import MODEL, encode, open_session, sdk, tone

from duologue.errors import ConfigError
from duologue.testing import OpenAISimulator, Reply, virtual_time


def error_body(refusal: Any) -> dict[str, object]:
    return json.loads(refusal.response.body)["error"]


@virtual_time
async def test_wrong_key_is_refused_before_the_session():
    async with OpenAISimulator(key="sk-right") as sim:
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            async with sdk(sim, "sk-wrong").realtime.connect(model=MODEL):
                pass
        assert refused.value.response.status_code == 401
        error = error_body(refused.value)
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError) as wrong:
            await sdk(sim, "sk-wrong").realtime.client_secrets.create()
        assert wrong.value.code == "invalid_api_key"
        with pytest.raises(websockets.exceptions.InvalidStatus):
            await websockets.connect(f"{sim.ws_url}?model={MODEL}")
        assert sim.sessions == []


@virtual_time
async def test_model_is_required_and_must_be_known():
    async with OpenAISimulator(unknown_models=["gpt-nothing"]) as sim:
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            async with sdk(sim).realtime.connect(model="gpt-nothing"):
                pass
        assert error_body(refused.value)["code"] == "model_not_found"
        headers = {"Authorization": f"Bearer {sim.key}"}
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            await websockets.connect(sim.ws_url, additional_headers=headers)
        assert error_body(refused.value)["code"] == "missing_model"


@virtual_time
async def test_ephemeral_key_carries_its_session_until_it_expires():
    async with OpenAISimulator() as sim, sdk(sim) as client:
        secret = await client.realtime.client_secrets.create(
            session={"type": "realtime", "model": MODEL, "instructions": "Be kind."},
            expires_after={"anchor": "created_at", "seconds": 60},
        )
        assert secret.value.startswith("ek_")
        assert secret.session.instructions == "Be kind."
        protocols = ["realtime", f"openai-insecure-api-key.{secret.value}"]
        address = f"{sim.ws_url}?model={MODEL}"
        async with websockets.connect(address, subprotocols=protocols) as browser:
            created = json.loads(await browser.recv())
            assert created["session"]["instructions"] == "Be kind."
            assert browser.subprotocol == "realtime"
        await asyncio.sleep(61)
        with pytest.raises(websockets.exceptions.InvalidStatus):
            async with sdk(sim, secret.value).realtime.connect(model=MODEL):
                pass
        with pytest.raises(openai.BadRequestError) as wrong:
            await client.realtime.client_secrets.create(expires_after={"seconds": 5})
        assert wrong.value.param == "expires_after.seconds"
        with pytest.raises(openai.BadRequestError) as wrong:
            await client.realtime.client_secrets.create(session={"instructions": "x"})
        assert wrong.value.code == "missing_required_parameter"


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_messages_may_be_compressed_and_large(compression):
    @virtual_time
    async def talk():
        async with OpenAISimulator() as sim:
            headers = {"Authorization": f"Bearer {sim.key}"}
            async with websockets.connect(
                f"{sim.ws_url}?model={MODEL}",
                additional_headers=headers,
                compression=compression,
                max_size=None,
            ) as socket:
                await socket.recv()
                update = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
                await socket.send(json.dumps({"type": "session.update", "session": update}))
                await socket.recv()
                audio = encode(tone(300.0))  # 19 MiB
                append = {"type": "input_audio_buffer.append", "audio": audio}
                await socket.send(json.dumps(append))
                await socket.send(json.dumps({"type": "input_audio_buffer.commit"}))
                assert json.loads(await socket.recv())["type"] == "input_audio_buffer.committed"
                return sim.sessions[0].audio_in_samples

    assert talk() == 300 * 24000


@pytest.mark.parametrize("scale", [1, 60])
def test_session_ends_after_an_hour(scale):
    @virtual_time
    async def talk():
        async with OpenAISimulator(clock_scale=scale) as sim, open_session(sim) as client:
            began = asyncio.get_running_loop().time()
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                await client.until("never", seconds=4000)
            assert closed.value.rcvd.code == 1001
            assert "maximum duration of 60 minutes" in closed.value.rcvd.reason
            await asyncio.sleep(0.1)
            assert sim.sessions[0].closed
            return asyncio.get_running_loop().time() - began

    assert talk() == pytest.approx(3600 / scale, abs=1)


@virtual_time
async def test_connections_can_be_cut():
    async with OpenAISimulator() as sim:
        async with open_session(sim) as one, open_session(sim) as two, open_session(sim) as three:
            await sim.kill(1)
            with pytest.raises(websockets.exceptions.ConnectionClosedError):
                await two.until("never")
            await one.update(instructions="still here")
            await sim.drop_all()
            for client in (one, three):
                with pytest.raises(websockets.exceptions.ConnectionClosedError):
                    await client.until("never")
        assert all(session.closed for session in sim.sessions)
        async with open_session(sim):
            assert len(sim.sessions) == 4


@virtual_time
async def test_client_events_can_be_inspected():
    async with OpenAISimulator(replies=[Reply("Hi.", 0.1)]) as sim, open_session(sim) as client:
        await client.append(tone(0.1))
        await client.send("response.create", event_id="e1")
        await client.until("response.done")
        session = sim.sessions[0]
        assert session.events_in == [
            {"type": "input_audio_buffer.append", "audio": 6400},
            {"type": "response.create", "event_id": "e1"},
        ]
        assert session.events_out[0] == "session.created"
        assert session.events_out[-2:] == ["response.done", "rate_limits.updated"]
        assert session.audio_in_samples == 2400
        assert not session.closed


async def test_port_in_use_is_reported_in_one_line():
    async with OpenAISimulator() as sim:
        with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1 port {sim.port}"):
            async with OpenAISimulator(port=sim.port):
                pass


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="there is no backend 'parrot'"):
        OpenAISimulator("parrot")
    with pytest.raises(ConfigError, match="clock_scale"):
        OpenAISimulator(clock_scale=0)
    with pytest.raises(ConfigError, match="no fault is called 'x'"):
        OpenAISimulator(faults=["x"])
