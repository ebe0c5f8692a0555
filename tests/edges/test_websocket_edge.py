"""Clients of the WebSocket edge, in virtual time and over a real socket."""

import asyncio
import base64
import json
import logging
from contextlib import asynccontextmanager
from io import BytesIO

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from duologue import Agent
from duologue._json_logs import JsonLogFormatter
from duologue.edges import websocket
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.events import DigitEvent, InterruptionEvent, UserTranscriptEvent
from duologue.hosting import create_app
from duologue.server import ServerConfig
from duologue.server.calls import MAX_WAITING
from duologue.simulators.telephone._transport import AppTransport, CallRejectedError
from duologue.stores import JsonlStores
from duologue.testing import SCRIPTED_CAPABILITIES, Reply, ScriptedRealtime, virtual_time

URL = "https://talk.example.org"


def voice(seconds, rate=16000):
    period = np.repeat([8000, -8000], rate // 400).astype(np.int16)
    return np.tile(period, round(seconds * 200))


class Client:
    """A client that plays at the pace of speech, and reports what it has played."""

    def __init__(self, line, rate=16000, reports=True):
        self.line, self.rate, self.reports = line, rate, reports
        self.epoch = self.played = self.total = 0
        self.queue = 0
        self.speech = []
        self.messages = []
        self.events = []
        self.ended = asyncio.Event()

    async def send(self, **message):
        await self.line.send(json.dumps(message))

    async def tick(self):
        begun, tick = asyncio.get_running_loop().time(), 0
        silence = np.zeros(self.rate // 50, np.int16)
        while True:
            tick += 1
            await asyncio.sleep(begun + tick * 0.02 - asyncio.get_running_loop().time())
            frame = self.speech.pop(0) if self.speech else silence
            await self.line.send(frame.astype("<i2").tobytes())
            count = min(self.queue, self.rate // 50)
            self.queue -= count
            self.played += count
            self.total += count
            if self.reports and tick % 5 == 0:
                await self.send(type="played", epoch=self.epoch, samples=self.played)

    async def read(self):
        while (message := await self.line.receive()) is not None:
            if isinstance(message, bytes):
                self.queue += len(message) // 2
                self.messages.append("audio")
                continue
            message = json.loads(message)
            self.messages.append(message["type"])
            if message["type"] == "clear":
                self.queue = self.played = 0
                self.epoch = message["epoch"]
            elif message["type"] == "event":
                self.events.append(message["event"])
            elif message["type"] == "error":
                self.events.append(message)
        self.ended.set()

    def say(self, samples):
        size = self.rate // 50
        self.speech += [samples[at : at + size] for at in range(0, len(samples), size)]


@asynccontextmanager
async def client_of(app, *, hello=None, headers=None, ticks=True, path="/socket"):
    headers = {"sec-websocket-protocol": "duologue.v1"} if headers is None else headers
    line = await AppTransport(app, URL).connect(f"wss://talk.example.org{path}", headers)
    client = Client(line)
    work = [asyncio.ensure_future(client.read())]
    await client.send(**({"type": "hello", "played": True} | (hello or {})))
    if ticks:
        work.append(asyncio.ensure_future(client.tick()))
    try:
        yield client
    finally:
        for task in work:
            task.cancel()
        await line.close()


class Shop:
    def __init__(self, *replies, **options):
        self.app = Starlette()
        self.agents, self.events = [], []
        self.replies = replies
        self.model = options.pop("model", {})
        websocket.mount(self.app, self.make_agent, **options)

    def make_agent(self, edge):
        agent = Agent(edge=edge, llm=ScriptedRealtime(self.replies, **self.model))
        agent.events.tap(self.events.append)
        self.agents.append(agent)
        return agent

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


async def until(condition, seconds=10.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@virtual_time
async def test_a_whole_conversation():
    shop = Shop(Reply("It is noon.", seconds=3), model={"transcripts": ["what time is it", "stop"]})
    async with client_of(shop.app, hello={"parameters": {"room": "7"}}) as client:
        await until(lambda: shop.agents and shop.agents[0].llm.connected)
        client.say(voice(1.0))
        await until(lambda: client.total > 8000)
        client.say(voice(1.0))
        await until(lambda: shop.of(InterruptionEvent))
        await until(lambda: "clear" in client.messages)
        await client.send(type="digit", digit="5")
        await until(lambda: shop.of(DigitEvent))
        await client.send(type="bye")
        await asyncio.wait_for(client.ended.wait(), 5)
    cut = shop.of(InterruptionEvent)[0]
    assert cut.quality == "confirmed"
    assert 500 < cut.played_ms < 3000
    assert client.messages[0] == "ready"
    assert shop.agents[0].edge.parameters == {"room": "7"}
    assert next(event.text for event in shop.of(UserTranscriptEvent) if event.final) == (
        "what time is it"
    )
    assert "AgentTurnStartedEvent" in [event["type"] for event in client.events]


@virtual_time
async def test_what_was_heard_is_never_claimed_too_much():
    shop = Shop()
    over, under = [], []
    rng = np.random.default_rng(1)
    async with client_of(shop.app) as client:
        await until(lambda: shop.agents and shop.agents[0].llm.connected)
        agent = shop.agents[0]
        for _ in range(200):
            base = client.total
            agent.say("a" * 60)
            await asyncio.sleep(float(rng.uniform(0.15, 0.6)))
            truth = (client.total - base) * 1000 / client.rate
            agent.interrupt()
            claim = shop.of(InterruptionEvent)[-1].played_ms
            over.append(claim - truth)
            under.append(truth - claim)
            await asyncio.sleep(0.06)
    assert max(over) <= 0
    assert max(under) <= 200


@virtual_time
async def test_texts_and_images_reach_the_model():
    from dataclasses import replace

    pillow = pytest.importorskip("PIL.Image")
    data = BytesIO()
    pillow.fromarray(np.full((8, 8, 3), 200, np.uint8)).save(data, "JPEG")
    shop = Shop(Reply("Nice."), model={"capabilities": replace(SCRIPTED_CAPABILITIES, video=True)})
    async with client_of(shop.app) as client:
        await until(lambda: shop.agents and shop.agents[0].llm.connected)
        await client.send(type="image", data=base64.b64encode(data.getvalue()).decode())
        await client.send(type="text", text="What is this?")
        await until(lambda: client.total > 1000)
    names = [type(command).__name__ for command in shop.agents[0].llm.commands]
    assert "SendVideo" in names
    assert "What is this?" in [item.text for item in shop.agents[0].conversation.items]
    assert websocket._decode_image(b"nonsense", 0.0).width == 1


@virtual_time
async def test_opus_both_ways():
    from duologue.rtc.opus import Encoder

    shop = Shop(Reply("Hello.", seconds=0.5))
    async with client_of(shop.app, hello={"codec": "opus"}, ticks=False) as client:
        encoder = Encoder(16000)
        speech = np.concatenate((voice(1.0), np.zeros(16000, np.int16)))
        for at in range(0, len(speech), 320):
            await client.line.send(encoder.encode(speech[at : at + 320]))
            await asyncio.sleep(0.02)
        await until(lambda: client.messages.count("audio") >= 20)
    assert client.queue < 20 * 640  # bytes of Opus, and not of PCM


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\0", "audio"),
        (b"\0\0" * 4000, "audio"),
        ('{"type":"hello"}', "hello"),
        ('{"type":"surprise"}', "type"),
        ("", "format"),
    ],
)
@virtual_time
async def test_a_client_that_breaks_the_protocol_is_told_and_disconnected(message, code):
    shop = Shop()
    async with client_of(shop.app, ticks=False) as client:
        await until(lambda: "ready" in client.messages)
        await client.line.send(message)
        await asyncio.wait_for(client.ended.wait(), 5)
        assert client.events[-1]["code"] == code
    await until(lambda: not shop.agents[0]._live)


@virtual_time
async def test_a_client_that_sends_too_many_pieces_of_audio_is_disconnected():
    shop = Shop()
    async with client_of(shop.app, ticks=False) as client:
        await until(lambda: "ready" in client.messages)
        for _ in range(10_100):
            await client.line.send(bytes(2))
        await asyncio.wait_for(client.ended.wait(), 5)
        assert client.events[-1]["code"] == "fast"


@virtual_time
async def test_a_client_that_sends_too_much_is_disconnected():
    shop = Shop()
    async with client_of(shop.app, ticks=False) as client:
        await until(lambda: "ready" in client.messages)
        for _ in range(100):
            await client.send(type="played", epoch=0, samples=0)
        await asyncio.wait_for(client.ended.wait(), 5)
        assert client.events[-1]["code"] == "fast"


@pytest.mark.parametrize(
    ("hello", "code"),
    [({"token": "wrong"}, "token"), ({"rate": 5}, "rate"), ({"type": "bye"}, "hello")],
)
@virtual_time
async def test_without_a_right_hello_no_agent_is_made(hello, code):
    shop = Shop(token="0123456789abcdef")  # noqa: S106
    async with client_of(shop.app, hello=hello, ticks=False) as client:
        await asyncio.wait_for(client.ended.wait(), 5)
        assert client.events[-1]["code"] == code
    assert shop.agents == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"sec-websocket-protocol": "chat"}, 400),
        ({"sec-websocket-protocol": "duologue.v1", "origin": "https://evil.example"}, 403),
        ({"sec-websocket-protocol": "duologue.v1", "origin": "https://["}, 403),
    ],
)
@virtual_time
async def test_strangers_are_refused_before_the_socket_opens(headers, status):
    shop = Shop()
    with pytest.raises(CallRejectedError) as refused:
        async with client_of(shop.app, headers=headers):
            pass
    assert refused.value.status == status


@pytest.mark.parametrize("origin", ["https://talk.example.org", "https://www.example.org"])
@virtual_time
async def test_own_and_allowed_pages_may_connect(origin):
    shop = Shop(allowed_origins=["https://www.example.org"])
    headers = {"sec-websocket-protocol": "chat, duologue.v1", "origin": origin}
    async with client_of(shop.app, headers=headers, ticks=False) as client:
        await until(lambda: "ready" in client.messages)


@virtual_time
async def test_no_hello_in_time():
    shop = Shop()
    headers = {"sec-websocket-protocol": "duologue.v1"}
    line = await AppTransport(shop.app, URL).connect("wss://talk.example.org/socket", headers)
    assert json.loads(await line.receive())["code"] == "hello"
    await line.close()


@virtual_time
async def test_clients_share_limit_and_token_with_the_page():
    config = ServerConfig(max_sessions=1, public_url=URL, token="0123456789abcdef")  # noqa: S106
    app = create_app(lambda edge: None, config)
    websocket.mount(app, lambda edge: Agent(edge=edge, llm=ScriptedRealtime()))
    async with client_of(app, hello={"token": "0123456789abcdef"}, ticks=False) as client:
        await until(lambda: "ready" in client.messages)
        with pytest.raises(CallRejectedError) as refused:
            async with client_of(app):
                pass
        assert refused.value.status == 503
    async with client_of(app, ticks=False) as client:
        await asyncio.wait_for(client.ended.wait(), 5)
        assert client.events[-1]["code"] == "token"


def test_arguments_that_can_not_work_are_refused():
    with pytest.raises(ConfigError, match="make_agent"):
        websocket.mount(Starlette(), "agent")
    with pytest.raises(ConfigError, match="max_sessions"):
        websocket.mount(create_app(lambda edge: None), lambda edge: None, max_calls=3)


TOKEN = "0123456789abcdef"  # noqa: S105


class Served:
    """An app of `create_app` with the socket, and what its program was told of its calls."""

    def __init__(self, make_agent=None, *, stores=None, **settings):
        self.ends, self.endings, self.agents = [], [], []
        self.make = make_agent
        self.app = create_app(
            lambda edge: None,
            ServerConfig(token=TOKEN, public_url=URL, **settings),
            on_end=self.ended,
            on_ending=self.endings.append,
            stores=stores,
        )
        websocket.mount(self.app, self.make_agent)

    async def ended(self, end):
        self.ends.append(end)

    def make_agent(self, edge):
        if self.make is not None:
            return self.make(edge)
        self.agents.append(Agent(edge=edge, llm=ScriptedRealtime([Reply("Hi.")])))
        return self.agents[-1]

    def client(self):
        return client_of(self.app, hello={"token": TOKEN}, ticks=False)

    async def knock(self):
        headers = {"sec-websocket-protocol": "duologue.v1"}
        return await AppTransport(self.app, URL).connect("wss://talk.example.org/socket", headers)

    async def ask(self, method, path, body=None):
        transport = httpx.ASGITransport(self.app)
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url=URL, headers=headers) as http:
            return await http.request(method, path, json=body)


@virtual_time
async def test_strangers_without_the_token_take_no_place():
    served = Served(max_sessions=1)
    strangers = [await served.knock() for _ in range(3)]
    assert served.app.calls.sessions == 0
    async with served.client() as client:
        await until(lambda: "ready" in client.messages)
        assert served.app.calls.sessions == 1
    for stranger in strangers:
        await stranger.close()


@virtual_time
async def test_too_many_strangers_push_out_each_other():
    served = Served(max_sessions=1)
    strangers = [await served.knock() for _ in range(MAX_WAITING + 1)]
    assert json.loads(await strangers[0].receive())["code"] == "busy"
    assert await strangers[0].receive() is None
    assert strangers[0].close_code == 1013
    for stranger in strangers:
        await stranger.close()


@virtual_time
async def test_a_place_that_is_taken_during_the_hello_is_refused_with_a_reason():
    served = Served(max_sessions=1)
    late = await served.knock()
    async with served.client() as client:
        await until(lambda: "ready" in client.messages)
        await late.send(json.dumps({"type": "hello", "token": TOKEN}))
        assert json.loads(await late.receive())["code"] == "full"
        assert await late.receive() is None
        assert late.close_code == 1013
    await late.close()


@virtual_time
async def test_an_operator_sees_and_ends_the_call_of_a_client():
    served = Served()
    async with served.client() as client:
        await until(lambda: served.agents and served.agents[0].llm.connected)
        (call,) = (await served.ask("GET", "/calls")).json()["calls"]
        shown = (await served.ask("GET", f"/calls/{call['id']}")).json()["state"]
        assert shown["edge"] == "connected"
        assert shown["counters"]["dropped_events"] == 0
        assert shown["agent"]["connected"] is True
        said = await served.ask("POST", f"/calls/{call['id']}/say", {"text": "One moment."})
        assert said.status_code == 204
        await until(lambda: "audio" in client.messages)
        assert (await served.ask("DELETE", f"/calls/{call['id']}")).status_code == 204
        await asyncio.wait_for(client.ended.wait(), 5)
        assert client.line.close_code == 1000
        await until(lambda: served.ends)
    [end] = served.ends
    assert end.agent is served.agents[0]
    assert end.edge is served.agents[0].edge
    assert end.error is None


@virtual_time
async def test_the_conversation_of_a_client_is_kept_under_the_id_of_its_call(tmp_path):
    stores = JsonlStores(tmp_path)
    served = Served(stores=stores)
    async with served.client() as client:
        await until(lambda: served.agents and served.agents[0].llm.connected)
        (call,) = (await served.ask("GET", "/calls")).json()["calls"]
        served.agents[0].simple_response("Hello?")
        await until(lambda: "audio" in client.messages)
    await until(lambda: served.ends)
    assert stores.conversation(call["id"]).load()[0].text == "Hello?"


@virtual_time
async def test_the_log_names_the_call_as_the_api_does():
    lines = []

    def make_agent(edge):
        record = logging.makeLogRecord({"msg": "here"})
        lines.append(json.loads(JsonLogFormatter().format(record)))
        return Agent(edge=edge, llm=ScriptedRealtime())

    served = Served(make_agent)
    async with served.client() as client:
        await until(lambda: "ready" in client.messages)
        (call,) = (await served.ask("GET", "/calls")).json()["calls"]
    assert [line["session"] for line in lines] == [call["id"]]


@virtual_time
async def test_a_drain_warns_the_client_and_the_program_and_closes_with_1012(caplog):
    served = Served()
    async with served.client() as client:
        await until(lambda: served.agents and served.agents[0].llm.connected)
        await served.app.drain(10, warn_s=4)
        await asyncio.wait_for(client.ended.wait(), 5)
        assert "ending" in client.messages
        assert client.line.close_code == 1012
    assert [(end.agent, end.seconds) for end in served.endings] == [(served.agents[0], 4)]
    assert "1 call was ended because the server ends" in caplog.messages


@virtual_time
async def test_an_agent_that_can_not_be_made_is_an_error_for_the_client():
    def make_agent(edge):
        raise RuntimeError("secret words")

    served = Served(make_agent)
    async with served.client() as client:
        await asyncio.wait_for(client.ended.wait(), 5)
        assert client.events[-1]["code"] == "failed"
        assert "secret" not in client.events[-1]["message"]
        assert client.line.close_code == 1011
        await until(lambda: served.ends)
    assert isinstance(served.ends[0].error, RuntimeError)


@virtual_time
async def test_an_agent_that_can_not_join_is_an_error_for_the_client():
    class Offline(ScriptedRealtime):
        async def prepare(self, setup):
            raise SessionError("the model is not there", kind=ErrorKind.FATAL)

    served = Served(lambda edge: Agent(edge=edge, llm=Offline()))
    async with served.client() as client:
        await asyncio.wait_for(client.ended.wait(), 5)
        assert client.events[-1]["code"] == "failed"
        assert "the model is not there" in client.events[-1]["message"]
        assert client.line.close_code == 1011


def browser(origin, host="talk.example.org"):
    return {"sec-websocket-protocol": "duologue.v1", "origin": origin, "host": host}


def app_of_page(**settings):
    app = create_app(lambda edge: None, ServerConfig(**settings))
    return app, lambda edge: Agent(edge=edge, llm=ScriptedRealtime())


@pytest.mark.parametrize(
    "settings",
    [
        {"public_url": URL},
        {"allowed_origins": (URL,)},
        {"allowed_hosts": ("talk.example.org",)},
    ],
)
@virtual_time
async def test_behind_a_proxy_the_pages_of_the_server_config_may_connect(settings):
    app, make_agent = app_of_page(**settings)
    websocket.mount(app, make_agent)
    headers = browser(URL, "localhost:8000")
    async with client_of(app, headers=headers, ticks=False) as client:
        await until(lambda: "ready" in client.messages)
    with pytest.raises(CallRejectedError):
        async with client_of(app, headers=browser("https://evil.example", "localhost:8000")):
            pass


@virtual_time
async def test_allowed_origins_of_one_socket_of_an_app_with_a_page():
    app, make_agent = app_of_page(public_url=URL)
    websocket.mount(app, make_agent, allowed_origins=["https://www.example.org"])
    websocket.mount(app, make_agent, path="/other")
    headers = browser("https://www.example.org")
    async with client_of(app, headers=headers, ticks=False) as client:
        await until(lambda: "ready" in client.messages)
    with pytest.raises(CallRejectedError):
        async with client_of(app, headers=headers, path="/other"):
            pass


def arriving_at(app, address):
    async def server(scope, receive, send):
        await app({**scope, "server": (address, 8000)}, receive, send)

    return server


@pytest.mark.parametrize("address", ["127.0.0.1", "192.168.0.7", "::1"])
@virtual_time
async def test_a_name_bound_to_a_private_address_reaches_no_agent(address, caplog):
    app = arriving_at(Shop().app, address)
    with pytest.raises(CallRejectedError):
        async with client_of(app, headers=browser("http://evil.example:8000", "evil.example:8000")):
            pass
    [line] = caplog.messages
    assert "refused a request for the host evil.example" in line
    assert "add allowed_hosts=('evil.example',) to websocket.mount" in line


@pytest.mark.parametrize(
    ("options", "hello", "host"),
    [
        ({}, {}, "localhost:8000"),
        ({}, {}, "192.168.0.7:8000"),
        ({"allowed_hosts": ["talk.example.org"]}, {}, "talk.example.org"),
        ({"token": TOKEN}, {"token": TOKEN}, "talk.example.org"),
    ],
)
@virtual_time
async def test_known_hosts_reach_an_agent_at_a_private_address(options, hello, host):
    app = arriving_at(Shop(**options).app, "192.168.0.7")
    headers = browser(f"http://{host}", host)
    async with client_of(app, hello=hello, headers=headers, ticks=False) as client:
        await until(lambda: "ready" in client.messages)


@virtual_time
async def test_a_refused_page_is_in_the_log(caplog):
    with pytest.raises(CallRejectedError):
        async with client_of(Shop().app, headers=browser("https://evil.example")):
            pass
    assert "add allowed_origins=('https://evil.example',) to websocket.mount" in caplog.text


def test_hosts_of_an_app_with_a_page_are_those_of_its_config():
    with pytest.raises(ConfigError, match="allowed_hosts"):
        websocket.mount(create_app(lambda edge: None), lambda edge: None, allowed_hosts=["a.org"])
