"""Authentication, limits and faults of the simulated Qwen service."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

import websockets.asyncio.client
import websockets.exceptions
from qwen_client import MODEL, QUICK, encode, open_session, open_socket, silence, tone

from duologue.clock import LoopClock
from duologue.errors import ConfigError
from duologue.simulators.faults import Close, Fault, Garbage, load_faults
from duologue.simulators.qwen.faults import PRESETS
from duologue.testing import QwenSimulator, Reply, virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


def make_simulator(*faults, **options):
    return QwenSimulator(replies=[Reply("Yes. No.", 0.3)] * 5, faults=faults, **options)


async def read_refusal(connection):
    """Return status and body of a refused handshake."""
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        await connection
    response = refused.value.response
    return response.status_code, json.loads(response.body)


async def close_frame(client, seconds=60.0):
    """Return the close frame that ends a session, or None if the connection was cut."""
    with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
        await client.until("never", seconds=seconds)
    return closed.value.rcvd


@virtual_time
async def test_wrong_key_is_refused_before_the_session():
    async with QwenSimulator(key="sk-right") as sim:
        status, body = await read_refusal(open_socket(sim, key="sk-wrong"))
        assert (status, body["code"]) == (401, "InvalidApiKey")
        assert set(body) == {"code", "message", "request_id"}
        keyless = websockets.asyncio.client.connect(f"{sim.ws_url}?model={MODEL}")
        assert (await read_refusal(keyless))[0] == 401
        assert sim.sessions == []
        async with open_session(sim):
            assert len(sim.sessions) == 1


@virtual_time
async def test_model_is_required_and_must_be_known():
    async with QwenSimulator(unknown_models=["qwen-nothing"]) as sim:
        status, body = await read_refusal(open_socket(sim, "qwen-nothing"))
        assert (status, body["code"]) == (404, "ModelNotFound")
        assert (await read_refusal(open_socket(sim, "")))[0] == 400


def test_addresses_contain_the_path():
    @virtual_time
    async def talk():
        async with QwenSimulator() as sim:
            return sim.url, sim.ws_url, sim.port

    url, ws_url, port = talk()
    assert url == f"http://127.0.0.1:{port}"
    assert ws_url == f"ws://127.0.0.1:{port}/api-ws/v1/realtime"


@virtual_time
async def test_65th_concurrent_session_is_refused():
    async with QwenSimulator() as sim:
        sockets = [await open_socket(sim) for _ in range(64)]
        assert (await read_refusal(open_socket(sim)))[0] == 429
        for socket in sockets:
            await socket.close()


@pytest.mark.parametrize("scale", [1, 60])
def test_session_ends_after_two_hours(scale):
    @virtual_time
    async def talk():
        async with (
            QwenSimulator(clock_scale=scale, idle_s=10**6) as sim,
            open_session(sim) as client,
        ):
            began = now()
            close = await close_frame(client, 8000)
            assert close.code == 1000
            assert "120 minutes" in close.reason
            await asyncio.sleep(0.1)
            assert sim.sessions[0].closed
            return now() - began

    assert talk() == pytest.approx(7200 / scale, abs=1)


@pytest.mark.parametrize("scale", [1, 10])
def test_pings_do_not_keep_an_idle_session_open(scale):
    @virtual_time
    async def talk():
        async with QwenSimulator(clock_scale=scale) as sim, open_session(sim) as client:
            await asyncio.sleep(200 / scale)
            await client.append(silence(0.1))
            began = now()
            async with asyncio.TaskGroup() as tasks:

                async def ping():
                    while True:
                        await client.socket.ping()
                        await asyncio.sleep(5 / scale)

                pinging = tasks.create_task(ping())
                close = await close_frame(client, 1000)
                pinging.cancel()
            assert close.code == 1007
            assert "no response was generated for 300 seconds" in close.reason
            return now() - began

    assert talk() == pytest.approx(300 / scale, abs=1)


@virtual_time
async def test_events_keep_a_session_open():
    async with QwenSimulator(idle_s=30) as sim, open_session(sim) as client:
        for _ in range(20):
            await asyncio.sleep(25)
            await client.append(silence(0.1))
        await client.update(instructions="still here")
        assert not sim.sessions[0].closed


class LimitedClock(LoopClock):
    """A clock that sets at most 10,000 timers, so that an endless loop of timers fails."""

    left = 10_000

    def call_at(self, when, callback):
        self.left -= 1
        assert self.left > 0
        return super().call_at(when, callback)


@pytest.mark.parametrize("at", [2.004, 2.038, 2.062, 2.5])
@virtual_time
async def test_idle_session_ends_whenever_its_last_event_came(at):
    # In floating point 2.004 + 30 - 2.004 is less than 30.
    clock = LimitedClock()
    async with QwenSimulator(idle_s=30, clock=clock) as sim, open_session(sim) as client:
        await asyncio.sleep(at - now())
        await client.append(silence(0.1))
        assert (await close_frame(client, 100)).code == 1007
        assert now() == pytest.approx(at + 30)


@virtual_time
async def test_large_messages_are_accepted():
    async with QwenSimulator() as sim, open_session(sim, turn_detection=None) as client:
        await client.send("input_audio_buffer.append", audio=encode(tone(300.0)))  # 13 MiB
        await client.send("input_audio_buffer.commit")
        await client.until("input_audio_buffer.committed")
        assert sim.sessions[0].audio_in_samples == 300 * 16000


@virtual_time
async def test_connections_can_be_cut():
    async with QwenSimulator() as sim:
        async with open_session(sim) as one, open_session(sim) as two, open_session(sim) as three:
            await sim.kill(1)
            assert await close_frame(two) is None
            await one.update(instructions="still here")
            await sim.drop_all()
            for client in (one, three):
                assert await close_frame(client) is None
        assert all(session.closed for session in sim.sessions)
        async with open_session(sim):
            assert len(sim.sessions) == 4


@virtual_time
async def test_client_events_can_be_inspected():
    async with make_simulator() as sim, open_session(sim) as client:
        await client.append(tone(0.1))
        await client.send("response.create", event_id="e1")
        await client.until("response.done")
        session = sim.sessions[0]
        assert session.events_in == [
            {"type": "input_audio_buffer.append", "audio": 4268},
            {"type": "response.create", "event_id": "e1"},
        ]
        assert session.events_out[0] == "session.created"
        assert session.events_out[-1] == "response.done"
        assert session.audio_in_samples == 1600
        assert not session.closed


@virtual_time
async def test_a_script_may_expect_events():
    from duologue.simulators.script import Script

    script = Script.parse("- say: Hello.\n- expect: response.cancel\n  within: 2\n- expect: x\n")
    async with QwenSimulator(script) as sim:
        async with open_session(sim) as client:
            await client.send("response.create")
            await client.until("response.done")
            await client.send("response.cancel")
            await client.until("error")
        await asyncio.sleep(0.1)
        assert sim.failures == [
            "script, line 4 (step 3): x had not come when the session ended",
        ]


# Faults


def test_presets_use_the_events_of_this_service():
    events = {fault.on for fault in PRESETS.values()} | {
        fault.action.event for fault in PRESETS.values() if hasattr(fault.action, "event")
    }
    assert events == {None, "response.created", "session.created", "response.audio.delta"}
    assert load_faults("idle", PRESETS) == [PRESETS["idle"]]
    with pytest.raises(ConfigError, match="no fault is called 'ice'"):
        QwenSimulator(faults=["ice"])


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("unauthorized", 401, "InvalidApiKey"),
        ("busy", 429, "Throttling.RateQuota"),
        ("quota", 429, "Throttling.AllocationQuota"),
        ("down", 500, "InternalError"),
    ],
)
def test_handshake_can_fail(name, status, code):
    @virtual_time
    async def talk():
        async with make_simulator(name) as sim:
            refused, body = await read_refusal(open_socket(sim))
            return refused, body["code"]

    assert talk() == (status, code)


@pytest.mark.parametrize(
    ("name", "code"),
    [("close", 1011), ("restart", 1012), ("expired", 1000), ("idle", 1007), ("reset", None)],
)
def test_session_can_end(name, code):
    @virtual_time
    async def talk():
        async with make_simulator(name) as sim, open_session(sim) as client:
            await client.send("response.create")
            close = await close_frame(client)
            assert len(sim.fired_actions) == 1
            return close and close.code

    assert talk() == code


@virtual_time
async def test_connection_can_be_cut_during_a_reply():
    async with make_simulator("reset-in-reply") as sim, open_session(sim) as client:
        await client.send("response.create")
        assert await close_frame(client) is None
        assert len(client.events_of("response.audio.delta")) < 3


@virtual_time
async def test_events_can_be_duplicated_late_and_unknown():
    async with make_simulator("duplicate") as sim:
        async with open_session(sim) as client:
            await client.send("response.create")
            await client.until("response.done")
            assert len(client.events_of("response.audio.delta")) == 6
        sim.faults = ["slow"]
        async with open_session(sim) as client:
            began = now()
            await client.update(instructions="x")
            assert now() - began >= 0.3
        sim.faults = ["burst"]
        async with open_session(sim) as client:
            await client.send("response.create")
            began = now()
            await client.until("response.done")
            assert now() - began == pytest.approx(1.5, abs=0.1)
        sim.faults = ["unknown"]
        async with open_session(sim) as client:
            await client.until("simulator.surprise")
        sim.faults = ["error"]
        async with open_session(sim) as client:
            await client.send("response.create")
            error = (await client.until("error"))["error"]
            assert error["message"] == "Internal service error: null"
            await client.until("response.done")


@virtual_time
async def test_messages_that_are_not_events_can_be_sent():
    binary = Fault(Garbage("binary"), on="session.created")
    async with make_simulator("garbage", binary) as sim, open_socket(sim) as socket:
        await socket.recv()
        with pytest.raises(json.JSONDecodeError):
            json.loads(await socket.recv())
        assert isinstance(await socket.recv(), bytes)


@pytest.mark.parametrize("name", ["deaf", "stall"])
def test_service_can_stall(name):
    @virtual_time
    async def talk():
        async with make_simulator(name) as sim, open_session(sim) as client:
            await client.receive_for(1.5)
            began = now()
            # It waits for this one already.
            await client.append(silence(0.1))
            await client.send("response.create")
            await client.until("response.done")
            return now() - began

    assert talk() == pytest.approx({"deaf": 4.6, "stall": 3.0}[name], abs=0.3)


@virtual_time
async def test_faults_can_be_set_while_sessions_run():
    async with make_simulator() as sim, open_session(sim, turn_detection=QUICK) as client:
        await client.send_turn()
        await client.until("response.done")
        sim.faults = [Fault(Close(1013, "later"), at=1.0)]
        assert (await close_frame(client)).code == 1013


def test_wrong_options_are_refused():
    with pytest.raises(ConfigError, match="there is no backend 'parrot'"):
        QwenSimulator("parrot")
    with pytest.raises(ConfigError, match="clock_scale"):
        QwenSimulator(clock_scale=0)


async def test_port_in_use_is_reported_in_one_line():
    async with QwenSimulator() as sim:
        with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1 port {sim.port}"):
            async with QwenSimulator(port=sim.port):
                pass
