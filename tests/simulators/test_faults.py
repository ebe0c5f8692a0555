"""Faults by name and by file, as the official SDK or a plain socket sees them."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

import websockets.asyncio.client
import websockets.exceptions
from openai_client import MODEL, open_session, sdk

from duologue.errors import ConfigError
from duologue.simulators.faults import (
    PRESETS,
    Close,
    Delay,
    Duplicate,
    Fault,
    Garbage,
    Handshake,
    Reset,
    Stall,
    load_faults,
    parse_faults,
)
from duologue.testing import OpenAISimulator, Reply, virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


def make_simulator(*faults, **options):
    return OpenAISimulator(replies=[Reply("Yes. No.", 0.3)] * 5, faults=faults, **options)


async def open_socket(sim):
    headers = {"Authorization": f"Bearer {sim.key}"}
    return await websockets.connect(f"{sim.ws_url}?model={MODEL}", additional_headers=headers)


@virtual_time
async def test_connection_closes_with_a_code_at_an_event():
    fault = Fault(Close(1012, "restart"), on="response.created", nth=2)
    async with make_simulator(fault) as sim:
        async with open_session(sim) as client:
            await client.send("response.create")
            await client.until("response.done")
            await client.send("response.create")
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                await client.until("response.done")
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "restart")
            assert client.types[-1] == "response.created"
        # It was carried out once.
        async with open_session(sim) as client:
            for _ in range(2):
                await client.send("response.create")
                await client.until("response.done")
        assert len(sim.fired_actions) == 1


@virtual_time
async def test_connection_is_reset_at_a_time():
    async with make_simulator(Fault(Reset(), at=3.0)) as sim, open_session(sim) as client:
        began = now()
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            await client.until("never")
        assert now() - began == pytest.approx(3.0, abs=0.2)
        assert closed.value.rcvd is None


async def test_reset_sends_a_tcp_rst():
    async with make_simulator() as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(
            f"GET /v1/realtime?model={MODEL} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {sim.key}\r\n\r\n".encode()
        )
        await reader.readuntil(b"session.created")
        await sim.kill()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


@virtual_time
async def test_events_can_be_late_in_order_and_the_same_for_a_seed():
    async def times():
        fault = Fault(Delay(500, jitter_ms=400))
        async with make_simulator(fault, seed=7) as sim:
            came = []
            async with open_session(sim) as client:
                await client.send("response.create")
                began = now()
                while not came or client.types[-1] != "response.done":
                    event = await client.until(*sim_types)
                    came.append((event.type, round(now() - began, 2)))
            return came

    sim_types = (
        "response.created",
        "response.output_audio.delta",
        "response.output_item.done",
        "response.done",
    )
    first, second = await times(), await times()
    assert first == second
    assert first[0][1] >= 0.5
    assert [when for _, when in first] == sorted(when for _, when in first)


@pytest.mark.parametrize("direction", ["reading", "writing"])
def test_service_can_stall(direction):
    @virtual_time
    async def talk():
        fault = Fault(Stall(direction, 4.0), on="session.update")
        async with make_simulator(fault) as sim, open_session(sim) as client:
            await client.update(instructions="x")
            began = now()
            await client.send("response.create")
            await client.until("response.done")
            return now() - began

    if direction == "reading":
        assert talk() == pytest.approx(4.1, abs=0.2)
    else:
        # The answer to the update itself was late, too.
        assert talk() == pytest.approx(0.1, abs=0.2)


@virtual_time
async def test_events_can_come_in_a_burst():
    async with make_simulator("burst") as sim, open_session(sim) as client:
        await client.send("response.create")
        began = now()
        await client.until("response.created")
        assert now() - began == pytest.approx(1.5, abs=0.1)
        await client.until("response.done")
        assert now() - began == pytest.approx(1.5, abs=0.1)


@virtual_time
async def test_events_can_be_duplicated():
    async with make_simulator(Fault(Duplicate("response.done"), on="response.done")) as sim:
        async with open_session(sim) as client:
            await client.send("response.create")
            first, second = await client.until("response.done"), await client.until("response.done")
            assert first == second
        sim.faults = ["duplicate"]
        async with open_session(sim) as client:
            await client.send("response.create")
            await client.until("response.done")
            deltas = client.events_of("response.output_audio.delta")
            assert len(deltas) == 6
            assert deltas[0] == deltas[1]


@virtual_time
async def test_messages_that_are_not_events_can_be_sent():
    async with make_simulator("unknown") as sim:
        socket = await open_socket(sim)
        assert json.loads(await socket.recv())["type"] == "session.created"
        assert json.loads(await socket.recv())["type"] == "simulator.surprise"
        await socket.close()
        sim.faults = ["garbage", Fault(Garbage("binary"), on="session.created")]
        socket = await open_socket(sim)
        await socket.recv()
        with pytest.raises(json.JSONDecodeError):
            json.loads(await socket.recv())
        assert isinstance(await socket.recv(), bytes)
        await socket.send(json.dumps({"type": "response.create"}))
        assert json.loads(await socket.recv())["type"] == "response.created"
        await socket.close()


@virtual_time
async def test_error_can_come_without_a_cause():
    async with make_simulator("error") as sim, open_session(sim) as client:
        await client.send("response.create")
        error = (await client.until("error")).error
        assert (error.type, error.code) == ("server_error", "server_error")
        await client.until("response.done")


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("unauthorized", 401, "invalid_api_key"),
        ("busy", 429, "rate_limit_exceeded"),
        ("quota", 429, "insufficient_quota"),
        ("down", 500, "server_error"),
    ],
)
def test_handshake_can_fail(name, status, code):
    @virtual_time
    async def talk():
        async with make_simulator(name) as sim:
            with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
                async with sdk(sim).realtime.connect(model=MODEL):
                    pass
            error = json.loads(refused.value.response.body)["error"]
            return refused.value.response.status_code, error["code"]

    assert talk() == (status, code)


@virtual_time
async def test_handshake_fails_as_often_as_configured():
    async with make_simulator(Fault(Handshake(503), times=2)) as sim:
        for _ in range(2):
            with pytest.raises(websockets.exceptions.InvalidStatus):
                await open_socket(sim)
        async with open_session(sim):
            pass


@virtual_time
async def test_faults_can_be_set_while_sessions_run():
    async with make_simulator() as sim, open_session(sim) as client:
        await client.receive_for(10.0)
        sim.faults = [Fault(Close(1011), at=1.0)]
        began = now()
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            await client.until("never")
        assert now() - began == pytest.approx(1.0, abs=0.1)


def test_faults_are_read_from_files(tmp_path):
    file = tmp_path / "faults.yaml"
    file.write_text(
        "- reset\n"
        "- close: {code: 1013, reason: later}\n"
        "  on: response.created\n"
        "  nth: 3\n"
        "- duplicate: {event: response.done}\n"
        "  times: 5\n"
        "- delay: {ms: 50}\n"
        "  at: 2\n"
    )
    assert load_faults(str(file)) == [
        PRESETS["reset"],
        Fault(Close(1013, "later"), on="response.created", nth=3),
        Fault(Duplicate("response.done"), on="response.done", times=5),
        Fault(Delay(50), at=2),
    ]
    assert load_faults("slow") == [PRESETS["slow"]]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("reset", "faults must be a list"),
        (["explode"], "no fault is called 'explode'"),
        ([7], "fault 1: must be a name or an object"),
        ([{"on": "x"}], "fault 1: must have one of close, reset"),
        (["reset", {"close": {"kode": 1}}], "fault 2: close: kode is not known"),
        ([{"close": {"code": "x"}}], "code can't be 'x'"),
        ([{"close": {}, "at": -1}], "at from 0"),
        ([{"close": {}, "at": 1, "on": "x"}], "not both"),
        ([{"close": {"code": 1006}}], "close: code must be a WebSocket close code, .* not 1006"),
        ([{"close": {"code": 7}}], "close: code must be a WebSocket close code"),
        ([{"close": [1]}], "close: must be an object with code, reason"),
        ([{"garbage": {"kind": "texts"}}], "garbage: kind must be text or binary, not 'texts'"),
        ([{"garbage": {"kind": None}}], "garbage: kind can't be None"),
        ([{"stall": {"direction": "both"}}], "stall: direction must be reading or writing"),
        ([{"stall": {"seconds": -1}}], "stall: seconds must be a number from 0 to 86400, not -1"),
        ([{"burst": {"seconds": 1e9}}], "burst: seconds must be a number from 0 to 86400"),
        ([{"delay": {"ms": -5}}], "delay: ms must be a number from 0"),
        ([{"delay": {"jitter_ms": -5}}], "delay: jitter_ms must be a number from 0"),
        ([{"delay": {"ms": None}}], "delay: ms can't be None"),
        ([{"handshake": {"status": 200}}], "status must be a number from 400 to 599, not 200"),
        ([{"loss": {"fraction": 2}}], "loss: fraction must be a number from 0 to 1, not 2"),
        ([{"reset": {}, "nth": 0}], "nth and times of a fault must be 1"),
        ([{"reset": {}, "at": 1e6}], "at from 0 to 86400"),
        ([["x" * 9000]], "fault 1: must be a name or an object"),
        (["x" * 9000], "no fault is called 'xxx"),
    ],
)
def test_wrong_faults_are_reported_in_one_line(value, words):
    with pytest.raises(ConfigError, match=words) as error:
        parse_faults(value, "file")
    assert "\n" not in str(error.value)


def test_faults_made_in_code_are_checked_too():
    for make, words in (
        (lambda: Garbage("texts"), "kind must be text or binary"),
        (lambda: Stall("both"), "direction must be reading or writing"),
        (lambda: Delay(-1), "ms must be a number from 0"),
        (lambda: Close(999), "code must be a WebSocket close code"),
    ):
        with pytest.raises(ConfigError, match=words):
            make()


@virtual_time
async def test_long_close_reason_is_truncated():
    async with make_simulator(Fault(Close(1011, "ü" * 100), on="session.created")) as sim:
        socket = await open_socket(sim)
        await socket.recv()
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd.reason == "ü" * 61
