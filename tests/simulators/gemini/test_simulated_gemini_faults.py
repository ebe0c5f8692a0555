"""The faults of the simulated Gemini service, by name and from files."""

from __future__ import annotations

import asyncio

import orjson
import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

import websockets.exceptions
from gemini_client import MODEL, connected, raw, sdk, setup, started
from google.genai import errors

from duologue.errors import ConfigError
from duologue.simulators.faults import (
    Close,
    Delay,
    Fault,
    Reset,
    Stall,
    load_faults,
    parse_faults,
)
from duologue.simulators.gemini.faults import PRESETS
from duologue.testing import GeminiSimulator, Reply, virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


def answering(*faults, **options):
    return GeminiSimulator(replies=[Reply("Yes. No.", 0.3)] * 5, faults=faults, **options)


HELLO = {"realtimeInput": {"text": "Hello."}}


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("close", 1011, "Internal error encountered."),
        ("error", 1011, "Internal error encountered."),
        ("deadline", 1011, "Deadline expired before operation could complete."),
        ("unavailable", 1011, "The service is currently unavailable."),
        ("invalid", 1007, "Request contains an invalid argument."),
        ("expired", 1008, "Connection aborted because the client failed to close the connection"),
    ],
)
def test_connection_closes_with_a_code(name, code, reason):
    @virtual_time
    async def run():
        async with answering(name, tls=True) as sim, connected(sim) as client:
            await client.session.send_realtime_input(text="Hello.")
            with pytest.raises(errors.APIError) as closed:
                await client.until("never")
            assert len(sim.fired_actions) == 1
            return closed.value

    closed = run()
    assert closed.code == code
    assert closed.details.startswith(reason)


@virtual_time
async def test_faults_can_wait_for_messages_of_either_side():
    for name, nth in (
        ("serverContent.turnComplete", 2),
        ("realtimeInput.text", 2),
        ("setup", 1),
        ("toolResponse", 1),
    ):
        fault = Fault(Close(1012, "restart"), on=name, nth=nth)
        async with answering(fault) as sim, raw(sim) as client:
            await client.send(setup())
            if name != "setup":
                await client.send(HELLO)
                await client.until("serverContent.turnComplete")
                await client.send({"toolResponse": {"functionResponses": []}})
            if name in ("serverContent.turnComplete", "realtimeInput.text"):
                await client.send(HELLO)
            assert await client.receive_close() == (1012, "restart")


@virtual_time
async def test_connection_is_reset():
    async with answering(Fault(Reset(), at=3.0)) as sim, started(sim) as client:
        began = now()
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            await client.until("never")
        assert now() - began == pytest.approx(3.0, abs=0.2)
        assert closed.value.rcvd is None
    async with answering("reset-in-reply") as sim, started(sim) as client:
        await client.send(HELLO)
        assert (await client.receive_close())[0] == 1006
        assert len(sim.fired_actions) == 1


@virtual_time
async def test_go_away_is_sent():
    async with answering("goaway") as sim, started(sim) as client:
        began = now()
        assert (await client.until("goAway"))["goAway"] == {"timeLeft": "10s"}
        assert now() - began == pytest.approx(2.0, abs=0.1)
        assert (await client.receive_close())[0] == 1008
        assert now() - began == pytest.approx(12.0, abs=0.1)


@virtual_time
async def test_messages_can_be_late_or_come_in_a_burst():
    async with answering(Fault(Delay(500))) as sim, started(sim) as client:
        began = now()
        await client.send(HELLO)
        await client.until("serverContent.modelTurn")
        assert now() - began == pytest.approx(0.6, abs=0.1)
    async with answering("burst") as sim, started(sim) as client:
        began = now()
        await client.send(HELLO)
        await client.until("serverContent.modelTurn")
        first = now() - began
        await client.until("serverContent.turnComplete")
        assert first == pytest.approx(1.6, abs=0.1)
        assert now() - began == pytest.approx(first, abs=0.01)


@pytest.mark.parametrize(("direction", "seconds"), [("reading", 4.1), ("writing", 4.0)])
def test_service_can_stall(direction, seconds):
    @virtual_time
    async def run():
        fault = Fault(Stall(direction, 4.0), on="realtimeInput.audioStreamEnd")
        async with answering(fault) as sim, started(sim) as client:
            await client.send({"realtimeInput": {"audioStreamEnd": True}})
            await asyncio.sleep(0.01)
            began = now()
            await client.send(HELLO)
            await client.until("serverContent.modelTurn")
            return now() - began

    assert run() == pytest.approx(seconds, abs=0.15)


@virtual_time
async def test_messages_can_come_twice():
    async with answering("duplicate") as sim, started(sim) as client:
        await client.send(HELLO)
        received = []
        while "serverContent" not in (
            received[-1] if received else {}
        ) or "turnComplete" not in str(received[-1]):
            received.append(await client.receive())
        audio = [one for one in received if "modelTurn" in one.get("serverContent", {})]
        assert len(audio) == 6
        assert audio[0] == audio[1]


@pytest.mark.parametrize("name", ["unknown", "garbage"])
def test_invalid_messages_can_be_sent(name):
    @virtual_time
    async def run():
        async with answering(name, tls=True) as sim:
            async with raw(sim) as client:
                await client.send(setup())
                assert "setupComplete" in await client.receive()
                surprise = await client.socket.recv(decode=False)
                await client.send(HELLO)
                await client.until("serverContent.turnComplete")
            # Google's package does not survive it.
            async with sdk(sim).aio.live.connect(model=MODEL, config={}) as session:
                with pytest.raises(TypeError if name == "unknown" else ValueError):
                    await session._receive()
            return surprise

    surprise = run()
    if name == "unknown":
        assert orjson.loads(surprise) == {"simulatorSurprise": {"surprise": [1, {"a": None}]}}
    else:
        assert surprise == b"{not JSON"


@pytest.mark.parametrize(
    ("name", "status", "times"), [("unauthorized", 401, 9), ("busy", 429, 2), ("down", 503, 2)]
)
def test_handshake_can_fail(name, status, times):
    @virtual_time
    async def run():
        async with answering(name) as sim:
            for _ in range(min(times, 3)):
                with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
                    async with raw(sim):
                        pass
                response = refused.value.response
                assert response.status_code == status
                assert orjson.loads(response.body)["error"]["code"] == status
            if times < 3:
                async with started(sim):
                    pass

    run()


@virtual_time
async def test_faults_can_be_set_while_sessions_run():
    async with answering() as sim, started(sim) as client:
        sim.faults = ["goaway"]
        await client.until("goAway")
        assert len(sim.faults) == 1


def test_faults_are_read_from_files(tmp_path):
    file = tmp_path / "faults.yaml"
    file.write_text(
        "- deadline\n"
        "- {close: {code: 1008}, on: toolCall, nth: 2}\n"
        "- {error: {code: go_away}, at: 5}\n"
    )
    deadline, close, leave = load_faults(str(file), PRESETS)
    assert deadline == PRESETS["deadline"]
    assert (close.action.code, close.on, close.nth) == (1008, "toolCall", 2)
    assert (leave.action.code, leave.at) == ("go_away", 5)


def test_fault_names_of_other_services_are_unknown():
    with pytest.raises(ConfigError, match="no fault is called 'quota'"):
        parse_faults(["quota"], "here", PRESETS)
