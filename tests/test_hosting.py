"""An agent for each caller: requests, call handlers, failures, and the end."""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress

import pytest
import websockets
from server_fixture import answer, receive_close, serving, until
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    SimpleUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Mount
from starlette.testclient import TestClient

from duologue import Agent, User
from duologue.audio import AudioFrame
from duologue.edges.browser import Edge
from duologue.edges.webrtc import CallEdge
from duologue.errors import ConfigError, ErrorKind, SessionError
from duologue.hosting import CallEnd, create_app
from duologue.items import UserItem
from duologue.rtc.config import PeerError
from duologue.server import CallRefusedError, CallRequest, ServerConfig
from duologue.stores import SqliteStores
from duologue.testing import ScriptedRealtime
from duologue.testing.caller import Caller

CONFIG = ServerConfig(port=0, max_tick_delay_ms=None)


class Page:
    """The signalling of a page over a real WebSocket."""

    def __init__(self, socket) -> None:
        self._socket = socket

    async def receive(self):
        try:
            return json.loads(await self._socket.recv())
        except websockets.ConnectionClosed:
            return None

    async def send(self, message) -> None:
        with suppress(websockets.ConnectionClosed):
            await self._socket.send(json.dumps(message))


@asynccontextmanager
async def calling(server, on_audio: Callable[[AudioFrame], None] = lambda frame: None):
    """Yield a caller that is connected over WebRTC."""
    async with server.socket() as socket, Caller(Page(socket), on_audio=on_audio) as caller:
        yield caller


def page_of(app: Starlette, headers: dict[str, str] | None = None) -> TestClient:
    own = {"host": "localhost", "origin": "http://localhost"}
    return TestClient(app, base_url="http://localhost", headers=own | (headers or {}))


def scripted(edge: CallEdge, *replies: str) -> Agent:
    return Agent(
        edge=edge, llm=ScriptedRealtime(list(replies) or ["Yes."]), agent_user=User("Ada", "ada")
    )


async def test_an_agent_may_be_made_by_an_async_function_that_reads_the_request():
    requests: list[CallRequest] = []

    async def make_agent(edge: CallEdge) -> Agent:
        await asyncio.sleep(0)
        requests.append(edge.request)
        return scripted(edge)

    headers = {"cookie": "room=5; theme=dark", "x-tag": "a", "user-agent": "test"}
    app = create_app(make_agent, ServerConfig())
    client = page_of(app, headers)
    with client.websocket_connect("/call?guest=Ada&guest=Eve&room=7") as socket:
        socket.send_json({"type": "hello"})
        assert socket.receive_json()["type"] == "config"
        assert socket.receive_json() == {"type": "agent", "name": "Ada"}
        socket.send_json({"type": "bye"})
    (request,) = requests
    assert request.query == {"guest": "Eve", "room": "7"}
    assert request.cookies == {"room": "5", "theme": "dark"}
    assert request.headers["x-tag"] == "a"
    assert request.client == "testclient"
    assert request.user is None
    assert "dark" not in repr(request)


class Key(AuthenticationBackend):
    async def authenticate(self, conn):
        name = conn.headers.get("x-user")
        if name is None:
            raise AuthenticationError("no user")
        return AuthCredentials(["talk"]), SimpleUser(name)


def test_the_user_of_the_surrounding_app_is_in_the_request():
    requests: list[CallRequest] = []

    def make_agent(edge: CallEdge) -> Agent:
        requests.append(edge.request)
        return scripted(edge)

    app = Starlette(
        routes=[Mount("/voice", create_app(make_agent, ServerConfig()))],
        middleware=[Middleware(AuthenticationMiddleware, backend=Key())],
    )
    client = page_of(app, {"x-user": "Grace"})
    assert client.get("/voice").url.path == "/voice/"
    assert "static/app.js" in client.get("/voice/").text
    with client.websocket_connect("/voice/call") as socket:
        socket.send_json({"type": "hello"})
        assert socket.receive_json()["type"] == "config"
        assert socket.receive_json()["type"] == "agent"
        socket.send_json({"type": "bye"})
    assert requests[0].user.display_name == "Grace"


def test_the_app_can_be_mounted_in_fastapi_under_a_path():
    fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed")
    around = fastapi.FastAPI()
    around.mount("/a/voice", create_app(scripted, ServerConfig()))

    @around.get("/")
    def home() -> dict[str, bool]:
        return {"home": True}

    client = page_of(around)
    assert client.get("/").json() == {"home": True}
    assert client.get("/a/voice").url.path == "/a/voice/"
    assert "static/app.js" in client.get("/a/voice/").text
    assert client.get("/a/voice/static/app.js").status_code == 200
    assert client.post("/a/voice/call").status_code == 204
    with client.websocket_connect("/a/voice/call") as socket:
        socket.send_json({"type": "hello"})
        assert socket.receive_json()["type"] == "config"
        assert socket.receive_json()["type"] == "agent"
        socket.send_json({"type": "bye"})


def first_message(app, **options) -> dict:
    """Return the message that the page gets of a call that fails at once."""
    client = page_of(app)
    with client.websocket_connect("/call") as socket:
        socket.send_json({"type": "hello"})
        while (message := socket.receive_json())["type"] != "error":
            pass
        close = socket.receive()
    return message | {"close": close["code"]}


def raising(error: BaseException) -> Callable[[CallEdge], Agent]:
    def make_agent(edge: CallEdge) -> Agent:
        raise error

    return make_agent


@pytest.mark.parametrize("error", [RuntimeError("secret"), SystemExit(3), StopIteration()])
def test_a_make_agent_that_raises_is_logged_once_and_the_server_continues(error, caplog):
    app = create_app(raising(error), ServerConfig())
    for _ in range(3):
        message = first_message(app)
        assert (message["code"], message["close"]) == ("failed", 1011)
        assert message["message"].startswith("Something failed on the server")
    errors = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert [r.getMessage().split(":")[0] for r in errors] == ["make_agent failed"]
    assert app.state.calls.sessions == 0


@pytest.mark.parametrize(
    ("make_agent", "says"),
    [
        (lambda edge: None, "make_agent must return an Agent, not None"),
        (
            lambda edge: Agent(edge=CallEdge(None), llm=ScriptedRealtime()),
            "the edge that it was given",
        ),
        (raising(ConfigError("there is no such voice")), "there is no such voice"),
    ],
)
def test_a_wrong_result_of_make_agent_is_reported_in_a_sentence(make_agent, says):
    assert says in first_message(create_app(make_agent, ServerConfig()))["message"]


def test_a_call_can_be_refused_with_a_sentence(caplog):
    app = create_app(raising(CallRefusedError("Please sign in first.")), ServerConfig())
    message = first_message(app)
    assert (message["code"], message["close"]) == ("refused", 4403)
    assert message["message"] == "Please sign in first."
    assert not caplog.records


class Refused:
    """A connection that fails because of a wrong key."""

    async def run(self, receive) -> None:
        raise SessionError(
            "the key was not accepted: check OPENAI_API_KEY", code="401", kind=ErrorKind.FATAL
        )

    def transmit(self, command) -> None: ...


class Locked(ScriptedRealtime):
    def open(self, setup) -> Refused:
        return Refused()


async def test_a_wrong_key_is_reported_on_the_page_in_one_line(caplog):
    app = create_app(lambda edge: Agent(edge=edge, llm=Locked()), CONFIG)
    async with serving(app, CONFIG) as server, server.socket() as socket:
        page = Page(socket)
        caller = Caller(page, on_audio=lambda frame: None)
        with suppress(PeerError):  # the call may end before it is connected on this side
            async with caller:
                await until(lambda: caller.errors)
        assert "the key was not accepted" in " ".join(caller.errors)
        await until(lambda: server.calls.sessions == 0)
    lines = [r for r in caplog.records if r.name.startswith("duologue.server")]
    assert [r.getMessage() for r in lines] == [
        "a call ended: the key was not accepted: check OPENAI_API_KEY"
    ]
    assert lines[0].exc_info is None


async def test_a_wrong_key_is_reported_on_the_page_of_an_edge_that_serves_itself():
    ready = asyncio.get_running_loop().create_future()
    agent = Agent(edge=Edge(port=0, ready=ready.set_result), llm=Locked())

    async def converse() -> None:
        with pytest.raises(SessionError, match="the key was not accepted"):
            await agent.join().__aenter__()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(converse())
        address = (await ready).replace("http", "ws") + "call"
        async with websockets.connect(address) as socket:
            await socket.send('{"type": "hello"}')
            caller = Caller(Page(socket), on_audio=lambda frame: None)
            with suppress(PeerError):
                async with caller:
                    await asyncio.wait_for(caller.ended.wait(), 5)
            messages = [*caller.errors, *map(str, caller.events)]
            with suppress(websockets.ConnectionClosed):
                while True:
                    messages.append(str(await socket.recv()))
    assert "the key was not accepted" in " ".join(messages)


async def test_a_program_may_handle_the_whole_call():
    received: list[AudioFrame] = []
    said: list[str] = []

    async def handle_call(edge: CallEdge) -> None:
        agent = scripted(edge)
        await edge.introduce("Ada")
        async with agent.join():
            greeting = agent.say("Good morning.")
            await greeting
            said.append(greeting.heard_text)
            await agent.finish()
        said.append("over")

    app = create_app(handle_call=handle_call, config=CONFIG)
    async with serving(app, CONFIG) as server:
        async with calling(server, received.append) as caller:
            while not said:
                caller.report_played()
                await asyncio.sleep(0.05)
            assert said == ["Good morning."]
            assert any(frame.samples.any() for frame in received)
            assert not caller.ended.is_set()
        await until(lambda: said[-1] == "over")
        await until(lambda: server.calls.sessions == 0)


async def test_make_agent_may_handle_the_call_itself():
    ends: list[CallEnd] = []

    async def conduct(edge: CallEdge) -> None:
        async with scripted(edge).join() as agent:
            await agent.finish()

    app = create_app(conduct, CONFIG, on_end=ends.append)
    async with serving(app, CONFIG) as server:
        async with calling(server):
            pass
        await until(lambda: ends)
    assert ends[0].agent is None
    assert ends[0].error is None


def test_an_async_make_agent_that_forgets_to_return_is_reported():
    async def forgets(edge: CallEdge) -> None:
        scripted(edge)

    assert "must return an Agent, not None" in first_message(create_app(forgets))["message"]


async def test_on_end_gets_the_agent_after_the_place_of_the_call_is_free():
    ends: list[CallEnd] = []
    free: list[int] = []

    async def on_end(end: CallEnd) -> None:
        free.append(app.state.calls.sessions)
        await asyncio.sleep(0.05)
        ends.append(end)

    app = create_app(scripted, CONFIG, on_end=on_end)
    async with serving(app, CONFIG) as server:
        async with calling(server) as caller:
            await caller.send_text("hello")
            await until(lambda: any(e["type"] == "AgentTurnStartedEvent" for e in caller.events))
        await until(lambda: ends)
    (end,) = ends
    assert free == [0]
    assert end.error is None
    assert 0 < end.seconds < 10
    assert end.agent is not None
    assert end.agent.conversation.items[0].text == "hello"
    assert end.edge.request.headers["host"].startswith("localhost")


async def test_conversation_of_each_call_is_kept_in_the_stores(tmp_path):
    edges: list[CallEdge] = []

    def make_agent(edge: CallEdge) -> Agent:
        edges.append(edge)
        return scripted(edge)

    async with SqliteStores(tmp_path / "calls.db") as stores:
        app = create_app(make_agent, CONFIG, stores=stores)
        async with serving(app, CONFIG) as server, calling(server) as caller:
            await caller.send_text("hello")
            await until(lambda: any(e["type"] == "AgentTurnStartedEvent" for e in caller.events))
            call_id = getattr(edges[0], "session_id", "") or next(iter(server.calls.running))
        kept = await stores.conversation(call_id).load()
    assert [item.text for item in kept][:1] == ["hello"]


async def test_a_call_goes_on_in_another_server_with_its_history(tmp_path):
    agents: list[Agent] = []

    def make_agent(edge: CallEdge) -> Agent:
        agents.append(scripted(edge))
        return agents[-1]

    ticket = ""
    for _ in range(2):
        async with SqliteStores(tmp_path / "calls.db") as stores:
            app = create_app(make_agent, CONFIG, stores=stores)
            async with serving(app, CONFIG) as server, server.socket(None) as socket:
                await socket.send(json.dumps({"type": "hello", "ticket": ticket}))
                config = await answer(socket)
                assert config["resumed"] is bool(ticket)
                if not ticket:
                    session_id = config["ticket"].split(".")[1]
                    await stores.conversation(session_id).put(UserItem("u", "I am Robin."))
                else:
                    await until(lambda: len(agents[-1].conversation))
                ticket = config["ticket"]
                socket.transport.abort()  # lost, not hung up
    assert [item.text for item in agents[-1].conversation] == ["I am Robin."]


async def test_a_store_that_can_not_be_reached_does_not_end_a_call(tmp_path):
    ends: list[CallEnd] = []
    stores = SqliteStores(tmp_path / "calls.db")
    (tmp_path / "calls.db").mkdir()
    app = create_app(scripted, CONFIG, stores=stores, on_end=ends.append)
    async with stores, serving(app, CONFIG) as server:
        async with calling(server) as caller:
            await caller.send_text("hello")
            await until(lambda: any(e["type"] == "AgentTurnStartedEvent" for e in caller.events))
            await until(lambda: any(e["type"] == "ErrorEvent" for e in caller.events))
        await until(lambda: ends)
    assert ends[0].error is None


async def test_on_end_gets_the_error_of_a_failed_call_and_its_own_errors_are_logged(caplog):
    ends: list[CallEnd] = []

    def on_end(end: CallEnd) -> None:
        ends.append(end)
        raise OSError("the disk is full")

    app = create_app(raising(ConfigError("no such voice")), CONFIG, on_end=on_end)
    async with serving(app, CONFIG) as server:
        async with server.socket() as socket:
            assert (await answer(socket))["type"] == "config"
            assert (await receive_close(socket))[1] == 1011
        await until(lambda: "on_end failed" in caplog.text)
    assert str(ends[0].error) == "no such voice"
    assert ends[0].agent is None


async def test_on_end_also_runs_for_a_cancelled_call():
    ends: list[CallEnd] = []

    async def stubborn(edge: CallEdge) -> None:
        await asyncio.sleep(60)

    config = ServerConfig(port=0, end_timeout_s=0.1)
    app = create_app(handle_call=stubborn, config=config, on_end=ends.append)
    async with serving(app, config) as server:
        async with server.socket() as socket:
            await answer(socket)
        await until(lambda: ends)


def test_make_agent_or_handle_call_is_required():
    for options in ({}, {"make_agent": scripted, "handle_call": scripted}):
        with pytest.raises(ConfigError, match="one of the two"):
            create_app(**options)
    with pytest.raises(ConfigError, match="make_agent must be a function"):
        create_app(ServerConfig())


def test_a_handle_call_that_is_not_async_is_reported():
    assert "write async def" in first_message(create_app(handle_call=lambda edge: None))["message"]
