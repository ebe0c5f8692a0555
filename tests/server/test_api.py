"""The REST API for operators."""

import json
import re

import httpx
import pytest
from server_fixture import answer, receive_close, served, serving

from duologue import Agent
from duologue.errors import UnsupportedError
from duologue.hosting import create_app
from duologue.observe import Metrics
from duologue.server import CallApp, ServerConfig, create_call_app
from duologue.server.middleware import OriginMiddleware
from duologue.testing import ScriptedRealtime

TOKEN = "correct-horse-battery"  # noqa: S105
HEADERS = {"authorization": f"Bearer {TOKEN}"}


class Operated:
    """Sets itself as the control of each call, and records what was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def __call__(self, signalling) -> None:
        signalling.control = self
        while await signalling.receive() is not None:
            pass

    def state(self):
        return {"edge": "connected"}

    def say(self, text: str, *, interrupt: bool) -> None:
        if text == "mute":
            raise UnsupportedError("this model can't speak a given text")
        self.asked.append((text, interrupt))

    def interrupt(self) -> None:
        self.asked.append("interrupt")

    async def end_soon(self, seconds: float) -> None:
        raise AssertionError


def client_of(app: CallApp, client: str = "127.0.0.1", **options) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(client, 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", **options)


async def test_an_operator_lists_shows_and_ends_a_call():
    handler = Operated()
    async with (
        served(handler) as server,
        server.socket() as socket,
        client_of(server.app) as client,
    ):
        await answer(socket)
        (call,) = (await client.get("/calls")).json()["calls"]
        assert set(call) == {"id", "pid", "started_at", "seconds"}
        shown = (await client.get(f"/calls/{call['id']}")).json()
        assert shown["id"] == call["id"]
        assert shown["state"] == {"edge": "connected"}
        assert (await client.delete(f"/calls/{call['id']}")).status_code == 204
        assert (await receive_close(socket))[:2] == ({}, 1000)
        assert (await client.get("/calls")).json() == {"calls": []}
        assert (await client.get(f"/calls/{call['id']}")).status_code == 404


async def test_an_operator_lets_the_agent_speak_and_stops_it():
    handler = Operated()
    async with (
        served(handler) as server,
        server.socket() as socket,
        client_of(server.app) as client,
    ):
        await answer(socket)
        (call,) = (await client.get("/calls")).json()["calls"]
        where = f"/calls/{call['id']}"
        assert (await client.post(f"{where}/say", json={"text": "One."})).status_code == 204
        body = {"text": "Two.", "interrupt": True}
        assert (await client.post(f"{where}/say", json=body)).status_code == 204
        assert (await client.post(f"{where}/interrupt")).status_code == 204
        assert handler.asked == [("One.", False), ("Two.", True), "interrupt"]
        refused = await client.post(f"{where}/say", json={"text": "mute"})
        assert refused.status_code == 409
        assert refused.json() == {"error": "this model can't speak a given text"}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"text": 3}', b'{"text": " "}', b'{"text": "a", "interrupt": 1}',
     b'{"text": "' + b"x" * 4001 + b'"}', b"[" * 17000],
)  # fmt: skip
async def test_a_body_that_says_nothing_is_refused(body):
    async with client_of(create_call_app(Operated())) as client:
        refused = await client.post("/calls/x/say", content=body)
        assert refused.status_code == 422
        assert "text" in refused.json()["error"]


@pytest.mark.parametrize(
    "authorization", [None, TOKEN, "Bearer wrong", f"Basic {TOKEN}", "Bearer é", "Bearer"]
)
async def test_the_api_needs_the_token(authorization):
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    requests = [
        ("GET", "/calls"),
        ("GET", "/calls/x"),
        ("DELETE", "/calls/x"),
        ("POST", "/calls/x/say"),
        ("POST", "/calls/x/interrupt"),
    ]
    async with client_of(create_call_app(Operated(), ServerConfig(token=TOKEN))) as client:
        for method, path in requests:
            refused = await client.request(method, path, headers=headers)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/calls", headers=HEADERS)).status_code == 200
        for path in ("/health", "/ready", "/openapi.json"):
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("settings", "client"),
    [
        ({}, "192.0.2.7"),
        ({"public_url": "https://talk.example.org/"}, "127.0.0.1"),
        ({"allowed_hosts": ("talk.example.org",)}, "127.0.0.1"),
        ({"allowed_origins": ("https://talk.example.org",)}, "127.0.0.1"),
    ],
)
async def test_without_a_token_only_this_machine_may_ask(settings, client):
    app = create_call_app(Operated(), ServerConfig(**settings))
    async with client_of(app, client) as outside:
        assert (await outside.get("/calls")).status_code == 401


async def test_a_foreign_page_can_not_end_a_call():
    async with client_of(create_call_app(Operated())) as client:
        for method in ("DELETE", "POST", "PUT"):
            refused = await client.request(
                method, "/calls/x", headers={"origin": "https://evil.example"}
            )
            assert refused.status_code == 403


async def test_the_log_advises_no_foreign_page_that_asked_for_calls(caplog):
    app = create_call_app(Operated(), ServerConfig())
    async with client_of(app) as client:
        refused = await client.delete("/calls/1", headers={"origin": "http://evil.example"})
    assert refused.status_code == 403
    [line] = [line for line in caplog.messages if "evil.example" in line]
    assert line == "refused a request of the page http://evil.example to the REST API"


async def test_a_call_whose_handler_sets_no_control_can_be_listed_and_ended():
    async def plain(signalling) -> None:
        while await signalling.receive() is not None:
            pass

    async with served(plain) as server, server.socket() as socket, client_of(server.app) as client:
        await answer(socket)
        (call,) = (await client.get("/calls")).json()["calls"]
        where = f"/calls/{call['id']}"
        assert (await client.get(where)).json()["state"] == {}
        assert (await client.post(f"{where}/interrupt")).status_code == 409
        assert (await client.delete(where)).status_code == 204
        assert (await receive_close(socket))[1] == 1000


async def test_the_state_of_an_agent_has_its_counters_and_no_words():
    app = create_app(
        lambda edge: Agent(edge=edge, llm=ScriptedRealtime([]), instructions="Top secret."),
        ServerConfig(port=0),
    )
    async with (
        serving(app, app.config) as server,
        server.socket() as socket,
        client_of(app) as client,
    ):
        await answer(socket)
        assert (await answer(socket))["type"] == "agent"
        (call,) = (await client.get("/calls")).json()["calls"]
        response = await client.get(f"/calls/{call['id']}")
        state = response.json()["state"]
        assert state["agent"]["stats"]["edge"]["lost_packets"] == 0
        assert state["edge"] == "new"
        assert "secret" not in response.text


def collect_references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(collect_references(inner) for inner in value.values()))
    if isinstance(value, list):
        return set().union(*(collect_references(inner) for inner in value))
    return set()


async def test_the_openapi_document_describes_every_route_of_the_api():
    app = create_call_app(Operated(), ServerConfig(token=TOKEN))
    async with client_of(app) as client:
        document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    described = {
        (path, method.upper())
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    }
    page = {"/", "/favicon.svg", "/favicon.ico", "/static/{name}", "/call", "/openapi.json"}
    routes = {
        (route.path, method)
        for route in app.routes
        for method in getattr(route, "methods", None) or ()
        if route.path not in page and method != "HEAD"
    }
    assert described == routes
    for reference in collect_references(document):
        found: dict = document
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
        assert found
    names = [
        operation["operationId"]
        for item in document["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    assert len(set(names)) == len(names) == len(described)
    for path, item in document["paths"].items():
        assert bool(re.search(r"\{call_id\}", path)) == ("parameters" in item)
    assert document["security"] == [{"token": []}]


@pytest.mark.parametrize("passed_on", ["", "/voice"])
async def test_the_app_works_under_the_path_of_its_public_address(passed_on):
    config = ServerConfig(public_url="https://talk.example.org/voice/", token=TOKEN)
    async with client_of(create_call_app(Operated(), config)) as client:
        assert (await client.get(f"{passed_on}/ready")).status_code == 200
        assert "<html" in (await client.get(f"{passed_on}/")).text
        assert (await client.get(f"{passed_on}/static/app.js")).status_code == 200
        document = (await client.get(f"{passed_on}/openapi.json")).json()
        assert document["servers"] == [{"url": "/voice"}]
        moved = await client.get("/voice")
        assert (moved.status_code, moved.headers["location"]) == (308, "/voice/")


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("10.0.0.2", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.2", ["203.0.113.9, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.2", ["203.0.113.9", "192.0.2.7, 10.0.0.3"], "192.0.2.7"),
        ("10.0.0.2", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.2", ["192.0.2.7"], "192.0.2.7"),
        ("10.0.0.2", ["192.0.2.7, junk"], "10.0.0.2"),
        ("10.0.0.2", ["10.0.0.9, 10.0.0.3"], "10.0.0.9"),
        ("10.0.0.2", [], "10.0.0.2"),
        ("192.0.2.99", ["127.0.0.1"], "192.0.2.99"),
        ("junk", ["127.0.0.1"], "junk"),
    ],
)
async def test_only_a_trusted_proxy_names_the_caller(peer, forwarded, seen):
    clients = []

    async def app(scope, receive, send) -> None:
        clients.append((scope["client"][0], scope["duologue.peer"]))

    middleware = OriginMiddleware(app, ServerConfig(trusted_proxies=("10.0.0.0/8",)))
    headers = [(b"host", b"localhost"), *((b"x-forwarded-for", v.encode()) for v in forwarded)]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    await middleware(scope | {"client": (peer, 5)}, None, None)
    assert clients == [(seen, (peer, 5))]


async def test_ids_of_calls_are_no_secrets_of_the_page():
    async with served(Operated(), token=TOKEN) as server, server.socket(TOKEN) as socket:
        assert "token" not in json.dumps(await answer(socket)).lower()


async def test_metrics_are_behind_the_token_and_only_where_they_are_switched_on():
    metrics = Metrics()
    config = ServerConfig(token=TOKEN)
    app = create_app(lambda edge: None, config, metrics=metrics)
    async with client_of(app) as client:
        assert (await client.get("/metrics")).status_code == 401
        answer = await client.get("/metrics", headers=HEADERS)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "duologue_draining 0.0" in answer.text
        await app.drain(0.1)
        assert "duologue_draining 1.0" in (await client.get("/metrics", headers=HEADERS)).text
    async with client_of(create_app(lambda edge: None, config)) as client:
        assert (await client.get("/metrics", headers=HEADERS)).status_code == 404
