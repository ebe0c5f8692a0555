"""Calls of RTVI's clients: the HTTP requests, and what happens on the connection."""

import asyncio
import json
import logging
import re
import sys
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx
import numpy as np
import pytest
from server_fixture import Served, serving, until

from duologue import Agent, Processor
from duologue.audio import AudioFrame
from duologue.edges import rtvi
from duologue.errors import ConfigError
from duologue.hosting import create_app
from duologue.rtc.config import IceServer, PeerConfig
from duologue.rtc.peer import Peer
from duologue.server import CallRefusedError, ServerConfig
from duologue.testing import Reply, ScriptedRealtime

TOKEN = "correct-horse-battery"  # noqa: S105
CONFIG = ServerConfig(port=0, max_tick_delay_ms=None)


class Client:
    """What Pipecat's client does, in Python."""

    def __init__(self, http: httpx.AsyncClient, path: str = "/api/offer") -> None:
        self.http, self.path = http, path
        self.messages: list[dict] = []
        self.arrived = asyncio.Event()
        self.pc_id: str | None = None
        self.connected = asyncio.Event()
        self.samples = 0
        self.peer = self._make_peer()

    def _make_peer(self) -> Peer:
        return Peer(
            PeerConfig(channel="chat", loopback=True),
            on_audio=self._receive_audio,
            on_message=self._receive,
            on_state=self._state_changed,
        )

    def _state_changed(self, state, reason):
        if state == "connected":
            self.connected.set()

    def _receive_audio(self, frame):
        self.samples += int(np.count_nonzero(frame.samples))

    def _receive(self, text):
        self.messages.append(json.loads(text))
        self.arrived.set()

    async def connect(self, *, restart=False, trickle=False, **fields) -> httpx.Response:
        sdp = await self.peer.offer()
        found = re.findall(r"a=(candidate:.*)\r\n", sdp)
        if trickle:
            sdp = re.sub(r"a=(candidate:.*|end-of-candidates)\r\n", "", sdp)
        body = {"sdp": sdp, "type": "offer", "pc_id": self.pc_id, "restart_pc": restart} | fields
        response = await self.http.post(self.path, json=body)
        if response.status_code == 200:
            answer = response.json()
            self.pc_id = answer["pc_id"]
            await self.peer.answer(answer["sdp"])
            if trickle:
                candidates = [
                    {"candidate": each, "sdp_mid": "0", "sdp_mline_index": 0} for each in found
                ]
                patch = {"pc_id": self.pc_id, "candidates": candidates}
                assert (await self.http.patch(self.path, json=patch)).status_code == 200
            await asyncio.wait_for(self.connected.wait(), 5)
        return response

    async def reconnect(self) -> None:
        self.peer.abort()
        await self.peer.close()
        self.connected.clear()
        self.peer = self._make_peer()
        assert (await self.connect(restart=True)).status_code == 200

    def send(self, kind, data=None, id="m"):  # noqa: A002
        message = {"label": "rtvi-ai", "type": kind, "id": id, "data": data}
        self.peer.send_message(json.dumps(message))

    def signal(self, message):
        self.peer.send_message(json.dumps({"type": "signalling", "message": message}))

    async def receive(self, kind, id=None):  # noqa: A002
        async with asyncio.timeout(5):
            while True:
                for message in self.messages:
                    if message["type"] == kind and id in (None, message.get("id")):
                        self.messages.remove(message)
                        return message.get("data", message.get("message"))
                self.arrived.clear()
                await self.arrived.wait()

    async def ready(self):
        self.send("client-ready", {"version": "2.1.0", "about": {"library": "test"}}, "r")
        return await self.receive("bot-ready", "r")


class Desk:
    """Makes an agent with a scripted model for each client."""

    def __init__(self, *replies):
        self.replies = replies or ("Hello to you.",)
        self.edges: list[rtvi.Edge] = []
        self.agents: list[Agent] = []
        self.models: list[ScriptedRealtime] = []

    def __call__(self, edge):
        model = ScriptedRealtime(self.replies)
        agent = Agent(edge=edge, llm=model)
        self.edges.append(edge)
        self.agents.append(agent)
        self.models.append(model)
        return agent


@asynccontextmanager
async def called(make_agent, config=CONFIG, **headers):
    async with (
        serving(create_app(make_agent, config, rtvi=True), config) as server,
        httpx.AsyncClient(base_url=server.origin, headers=headers, timeout=10) as http,
    ):
        client = Client(http)
        try:
            yield server, client
        finally:
            await client.peer.close()


class Call(NamedTuple):
    server: Served
    client: Client
    desk: Desk

    @property
    def edge(self) -> rtvi.Edge:
        return self.desk.edges[0]


@pytest.fixture
async def call():
    """A client in the middle of a call, and the desk."""
    desk = Desk()
    async with called(desk) as (server, client):
        assert (await client.connect(requestData={"room": 7})).status_code == 200
        await client.ready()
        yield Call(server, client, desk)


async def test_a_call_from_offer_to_end():
    desk = Desk(Reply("Hello to you.", seconds=0.5))
    async with called(desk) as (server, client):
        response = await client.connect(requestData={"room": 7})
        assert response.headers["cache-control"] == "no-store"
        ready = await client.ready()
        assert (ready["version"], ready["about"]["library"]) == ("2.1.0", "duologue")
        (edge,) = desk.edges
        assert edge.request_data == {"room": 7}
        assert edge.request.headers["user-agent"].startswith("python-httpx")
        assert edge.quality == "estimated"
        assert repr(edge) == "<rtvi.Edge connected>"
        client.send("send-text", {"content": "Hi", "options": {"run_immediately": True}})
        await client.receive("bot-started-speaking")
        assert (await client.receive("bot-output"))["text"] == "Hello to you."
        await client.receive("bot-stopped-speaking")
        assert client.samples > 4000
        assert [item.text for item in desk.agents[0].conversation] == ["Hi", "Hello to you."]
        assert desk.agents[0].stats().edge.dropped_events == 0
        client.send("disconnect-bot", {})
        assert await client.receive("signalling") == {"type": "peerLeft"}
        await until(lambda: server.calls.sessions == 0)


async def test_a_client_that_leaves_ends_the_call(call):
    client, calls = call.client, call.server.calls
    assert calls.sessions == 1
    await client.peer.close()
    await until(lambda: calls.sessions == 0)
    patched = await client.http.patch("/api/offer", json={"pc_id": client.pc_id, "candidates": []})
    assert patched.status_code == 404


async def test_messages_of_the_application(call, caplog):
    client, edge = call.client, call.edge

    async def slow(data):
        return [data, "later"]

    def fail(data):
        raise ValueError("secret")

    def refuse(data):
        raise ConfigError("volume must be from 0 to 10")

    edge.handle("double", lambda data: data * 2)
    edge.handle("slow", slow)
    edge.handle("fail", fail)
    edge.handle("refuse", refuse)
    for number, (name, data) in enumerate([("double", 4), ("slow", "x")]):
        client.send("client-message", {"t": name, "d": data}, f"q{number}")
    assert await client.receive("server-response", "q0") == {"t": "double", "d": 8}
    assert await client.receive("server-response", "q1") == {"t": "slow", "d": ["x", "later"]}
    with caplog.at_level(logging.CRITICAL):
        for name, text in [
            ("fail", "it failed"),
            ("refuse", "volume must be from 0 to 10"),
            ("unknown", "nothing handles unknown here"),
        ]:
            client.send("client-message", {"t": name}, name)
            assert await client.receive("error-response", name) == {"error": text}
    client.send("ui-snapshot", {}, "ui")
    assert "not supported" in (await client.receive("error-response", "ui"))["error"]
    edge.send_message({"color": "red"})
    assert await client.receive("server-message") == {"color": "red"}
    with pytest.raises(ConfigError, match="handler must be a function"):
        edge.handle("x", None)
    assert edge.counters["messages_ignored"] == 1


async def test_at_most_sixteen_messages_of_the_application_run_at_once(call):
    client, edge = call.client, call.edge
    release = asyncio.Event()

    async def wait(data):
        await release.wait()

    edge.handle("wait", wait)
    for number in range(17):
        client.send("client-message", {"t": "wait"}, f"q{number}")
    answer = await client.receive("error-response", "q16")
    assert answer == {"error": "over 16 messages wait: try again"}
    release.set()
    await client.receive("server-response", "q15")


async def test_the_agent_calls_a_function_of_the_client(call):
    client, edge = call.client, call.edge
    asking = asyncio.ensure_future(edge.call_client("where", {"exact": True}))
    asked = await client.receive("llm-function-call-in-progress")
    assert (asked["function_name"], asked["arguments"]) == ("where", {"exact": True})
    client.send("llm-function-call-result", asked | {"result": {"city": "Oslo"}})
    assert await asking == {"city": "Oslo"}
    with pytest.raises(rtvi.ClientError, match="has not returned from where within"):
        await edge.call_client("where", {}, within=0.01)


async def test_keys(call):
    pressed = asyncio.ensure_future(call.desk.agents[0].digits(max=3, end="#"))
    call.client.send("dtmf", {"buttons": ["1", "2"]})
    call.client.send("dtmf", {"button": "#"})
    assert await pressed == "12"


class Loudness(Processor):
    """A processor that keeps the loudest sample of the last frame."""

    def __init__(self):
        self.frames, self.last = 0, 0

    def audio(self, frame):
        self.frames, self.last = self.frames + 1, int(np.abs(frame.samples).max())
        return frame


async def test_a_microphone_that_is_off_is_silent():
    loudness = Loudness()
    tone = AudioFrame(np.tile(np.repeat([9000, -9000], 40), 6).astype(np.int16), 24000)

    def make_agent(edge):
        return Agent(edge=edge, llm=ScriptedRealtime(["Yes."]), processors=[loudness])

    async with called(make_agent) as (_server, client):
        await client.connect()
        await client.ready()

        async def speak_until(condition):
            async with asyncio.timeout(5):
                while not condition():
                    client.peer.send_audio(tone)
                    await asyncio.sleep(0.02)

        await speak_until(lambda: loudness.last > 4000)
        client.signal({"type": "trackStatus", "receiver_index": 0, "enabled": False})
        await speak_until(lambda: loudness.last == 0)
        client.signal({"type": "trackStatus", "receiver_index": 0, "enabled": True})
        await speak_until(lambda: loudness.last > 4000)


async def test_a_client_comes_back_on_a_new_connection():
    desk = Desk("First.", "Second.")
    async with called(desk) as (server, client):
        await client.connect()
        await client.ready()
        client.send("send-text", {"content": "One"})
        await client.receive("bot-stopped-speaking")
        before = client.pc_id
        await client.reconnect()
        assert client.pc_id == before
        client.send("send-text", {"content": "Two"})
        await client.receive("bot-stopped-speaking")
        assert len(desk.agents) == server.calls.sessions == 1
        texts = [item.text for item in desk.agents[0].conversation]
        assert texts == ["One", "First.", "Two", "Second."]


def restart_of(client, sdp="nonsense"):
    return {"sdp": sdp, "type": "offer", "pc_id": client.pc_id, "restart_pc": True}


async def test_a_new_connection_that_can_not_be_made_leaves_the_old_one(call):
    client = call.client
    for _ in range(2):
        refused = await client.http.post("/api/offer", json=restart_of(client))
        assert refused.status_code == 400
    client.send("send-text", {"content": "Are you there?"})
    await client.receive("bot-stopped-speaking")
    await client.peer.close()
    await until(lambda: call.server.calls.sessions == 0)


async def test_a_client_that_makes_too_many_connections_is_refused(call):
    client = call.client
    for _ in range(15):
        refused = await client.http.post("/api/offer", json=restart_of(client))
    assert (refused.status_code, "too many offers" in refused.text) == (400, True)
    assert call.server.calls.sessions == 1


async def test_an_offer_is_answered_although_the_call_ends_meanwhile(call, monkeypatch):
    client, entered = call.client, asyncio.Event()

    async def hang(peer, sdp):
        entered.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Peer, "accept", hang)
    offering = asyncio.ensure_future(client.http.post("/api/offer", json=restart_of(client)))
    await entered.wait()
    client.send("disconnect-bot", {})
    async with asyncio.timeout(3):
        refused = await offering
    assert (refused.status_code, refused.json()) == (400, {"detail": "the call is over"})
    await until(lambda: call.server.calls.sessions == 0)


async def test_a_call_over_the_loopback_address_of_ipv6():
    config = ServerConfig(host="::1", port=0, max_tick_delay_ms=None)
    async with (
        serving(create_app(Desk(), config, rtvi=True), config) as server,
        httpx.AsyncClient(base_url=f"http://[::1]:{server.port}") as http,
    ):
        assert server.url == f"http://[::1]:{server.port}/"
        client = Client(http)
        assert (await client.connect()).status_code == 200
        await client.ready()
        await client.peer.close()
        await until(lambda: server.calls.sessions == 0)


def at(candidate):
    return {"candidate": f"candidate:{candidate}", "sdp_mid": "0", "sdp_mline_index": 0}


async def test_candidates_may_follow_the_offer(call):
    client = call.client
    other = Client(client.http)
    try:
        assert (await other.connect(trickle=True)).status_code == 200
        await other.ready()
        for wrong, status in [
            ({"pc_id": other.pc_id}, 422),
            ({"pc_id": other.pc_id, "candidates": ["x"]}, 422),
            ({"pc_id": "x", "candidates": []}, 404),
            ({"pc_id": other.pc_id, "candidates": [at("x")]}, 200),
            ({"pc_id": other.pc_id, "candidates": [at("1 1 udp 1 ab-cd.local 5 typ host")]}, 200),
        ]:
            response = await client.http.patch("/api/offer", json=wrong)
            assert response.status_code == status, response.text
        # The name of this machine's browser is its loopback address; the other is nonsense.
        await until(lambda: call.desk.edges[1].counters["candidates_refused"] == 1)
    finally:
        await other.peer.close()


APP = """
from duologue import Agent
from duologue.testing import ScriptedRealtime

def make_agent(edge):
    return Agent(edge=edge, llm=ScriptedRealtime(["Hello."]))
"""


async def test_any_worker_of_the_command_takes_the_later_requests_of_a_call(tmp_path):
    app = tmp_path / "app.py"
    app.write_text(APP)
    command = [sys.executable, "-m", "duologue", "serve", f"{app}:make_agent", "--rtvi"]
    server = await asyncio.create_subprocess_exec(
        *(*command, "--port", "0", "--workers", "2", "--max-tick-delay", "0"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    try:
        async with asyncio.timeout(30):
            printed = ""
            while (found := re.search(r"RTVI clients: (\S+)api/offer\n", printed)) is None:
                printed += (await server.stdout.readline()).decode()
        url = found[1]
        # Each request has a connection of its own, which the worker with the fewest calls gets.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=10) as http:
            async with asyncio.timeout(30):
                while len((await http.get("/health")).json()["workers"]) < 2:
                    await asyncio.sleep(0.1)
            client = Client(http)
            assert (await client.connect(trickle=True)).status_code == 200
            await client.ready()
            before = client.pc_id
            await client.reconnect()
            assert client.pc_id == before
            client.send("send-text", {"content": "Hi"})
            await client.receive("bot-started-speaking")
            assert (await http.get("/health")).json()["sessions"] == 1
            guessed = {"pc_id": before.split(".")[0] + ".guess", "candidates": []}
            assert (await http.patch("/api/offer", json=guessed)).status_code == 404
            await client.peer.close()
    finally:
        server.terminate()
        await server.wait()


async def test_start_gives_the_address_of_the_offer_and_the_ice_servers():
    desk = Desk()
    async with called(desk) as (_server, client):
        started = (await client.http.post("/start", json={"body": {"room": 9}})).json()
        assert started["iceConfig"] == {"iceServers": []}
        client.path = f"/sessions/{started['sessionId']}/api/offer"
        assert (await client.connect()).status_code == 200
        await client.ready()
        assert desk.edges[0].request_data == {"room": 9}
        other = Client(client.http, "/sessions/nonsense/api/offer")
        await other.connect()
        assert desk.edges[1].request_data is None
        await other.peer.close()


async def test_requests_that_can_not_be_served():
    async with called(Desk()) as (server, client):
        http = client.http
        for body, status in [
            (b"{", 400),
            (b"[]", 422),
            (b'{"type": "offer"}', 422),
            (b'{"type": "answer", "sdp": ""}', 422),
            (b'{"type": "offer", "sdp": "nonsense"}', 400),
            (b" " * 70000, 413),
        ]:
            response = await http.post("/api/offer", content=body)
            assert response.status_code == status, response.text
            assert response.json()["detail"]
        assert (await http.get("/api/offer")).status_code == 405
        await until(lambda: server.calls.sessions == 0)


async def test_only_the_token_opens_a_call():
    config = ServerConfig(port=0, max_tick_delay_ms=None, token=TOKEN)
    desk = Desk()
    async with called(desk, config) as (_server, client):
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
            for path in ("/api/offer", "/start"):
                response = await client.http.post(path, json={}, headers=headers)
                assert response.status_code == 401
        client.http.headers["authorization"] = f"Bearer {TOKEN}"
        assert (await client.connect()).status_code == 200
        assert len(desk.edges) == 1


async def test_pages_of_other_sites_call_only_where_they_are_allowed():
    site = "https://www.example.org"
    config = ServerConfig(port=0, max_tick_delay_ms=None, allowed_origins=(site,))
    async with called(Desk(), config) as (_server, client):
        http = client.http
        asked = {"access-control-request-method": "PATCH"}
        for path in ("/api/offer", "/start"):
            response = await http.options(path, headers=asked | {"origin": site})
            assert response.status_code == 204
            assert response.headers["access-control-allow-origin"] == site
            assert "PATCH" in response.headers["access-control-allow-methods"]
            assert "authorization" in response.headers["access-control-allow-headers"]
            other = {"origin": "https://evil.example.org"}
            assert (await http.options(path, headers=asked | other)).status_code == 403
            assert (await http.post(path, json={}, headers=other)).status_code == 403
        response = await http.post("/start", json={}, headers={"origin": site})
        assert response.headers["access-control-allow-origin"] == site


async def test_a_full_server_and_a_refusal_are_reported():
    config = ServerConfig(port=0, max_tick_delay_ms=None, max_sessions=1)
    reasons = iter([CallRefusedError("Please sign in first."), ValueError("secret")])

    def make_agent(edge):
        if (reason := next(reasons, None)) is not None:
            raise reason
        return Desk()(edge)

    async with called(make_agent, config) as (_server, client):
        refused = await client.connect()
        assert (refused.status_code, refused.json()["detail"]) == (403, "Please sign in first.")
        failed = await Client(client.http).connect()
        assert failed.status_code == 500
        assert "secret" not in failed.text
        client = Client(client.http)
        assert (await client.connect()).status_code == 200
        full = await Client(client.http).connect()
        assert full.status_code == 503
        assert "All places are taken" in full.json()["detail"]
        await client.peer.close()


async def test_an_error_of_the_ice_servers_function_is_reported(caplog):
    servers = [IceServer("turn:turn.example.org", "ada", "secret")]

    def ice_servers(request):
        if "fail" in request.query:
            raise ValueError("secret")
        return servers

    config = ServerConfig(port=0, max_tick_delay_ms=None, ice_servers=ice_servers)
    async with called(Desk(), config) as (_server, client):
        started = (await client.http.post("/start", json={})).json()
        assert started["iceConfig"]["iceServers"] == [
            {"urls": ["turn:turn.example.org"], "username": "ada", "credential": "secret"}
        ]
        with caplog.at_level(logging.CRITICAL):
            for path in ("/start?fail=1", "/api/offer?fail=1"):
                body = {"type": "offer", "sdp": "v=0"}
                failed = await client.http.post(path, json=body)
                assert failed.status_code == 500
                assert "secret" not in failed.text


async def test_the_end_of_the_server_is_reported(call):
    client = call.client
    drained = asyncio.ensure_future(call.server.app.drain(0.2, warn_s=0.1))
    assert (await client.receive("server-message"))["type"] == "ending"
    assert (await client.receive("error"))["fatal"] is True
    assert await client.receive("signalling") == {"type": "peerLeft"}
    await drained


def test_an_app_must_be_one_that_takes_calls():
    with pytest.raises(ConfigError, match="create_app"):
        rtvi.mount(None, Desk())
    with pytest.raises(ConfigError, match="prefix must begin with /"):
        rtvi.mount(create_app(Desk()), Desk(), prefix="rtvi/")
    with pytest.raises(ConfigError, match="handle_call is for the page"):
        create_app(handle_call=Desk(), rtvi=True)
