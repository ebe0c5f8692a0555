"""Running calls, as the page of the server shows them."""

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
import pytest_asyncio
import websockets
from page import chromium, open_page
from served_program import running_program
from server_fixture import serving

from duologue import Agent
from duologue.agent.agent import User
from duologue.edges import websocket
from duologue.events import (
    AgentTranscriptEvent,
    AgentTurnStartedEvent,
    ErrorEvent,
    ToolEndEvent,
    ToolStartEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)
from duologue.hosting import create_app
from duologue.observe.live import MAX_ANSWER_BYTES, MAX_CHARS, MAX_ENTRIES, LiveCall
from duologue.server import ServerConfig
from duologue.testing import Reply, ScriptedRealtime, ToolUse, run_virtual
from fake_edge import FakeEdge, join_agent

TOKEN = "correct-horse-battery"  # noqa: S105
WORDS = "Your order <b>comes</b> on Thursday"


def followed(events):
    """Return a call in which these events have happened."""
    agent = Agent(edge=FakeEdge(), llm=ScriptedRealtime([]), agent_user=User("Ada", "ada"))
    live = LiveCall(agent)
    for event in events:
        agent.events.emit(event)
    return live


def turn(number, text="hello"):
    return [
        UserTurnStartedEvent("p", f"t{number}", 100.0),
        UserTurnEndedEvent("p", text, turn_id=f"t{number}"),
        AgentTurnStartedEvent(f"s{number}"),
        AgentTranscriptEvent("Hi.", False, f"s{number}"),
    ]


def test_a_question_gets_what_has_changed_since_the_one_before():
    live = followed([*turn(1), ToolStartEvent("c", "look_up", "{}")])
    first = live.changes(0)
    assert [t["id"] for t in first["turns"]] == ["person t1", "agent s1", "tool c"]
    assert first["call"]["agent"] == "Ada"
    same = live.changes(first["version"])
    assert set(same) == {"version", "seconds"}
    live._record(ToolEndEvent("c", "look_up", "done", "4", 0.2, at=live._zero + 1.0))
    live._record(UserTranscriptEvent("hello you", True, "p", "t1", at=live._zero + 1.1))
    changed = live.changes(first["version"])
    assert {t["id"]: t.get("text", t.get("output")) for t in changed["turns"]} == {
        "person t1": "hello you",
        "tool c": "4",
    }
    assert live.changes(10**9)["version"] == changed["version"]


def test_what_is_kept_of_a_call_without_end_is_bounded():
    live = followed([])
    for number in range(3 * MAX_ENTRIES):
        for event in turn(number, "x" * 3 * MAX_CHARS):
            live._record(event)
        live._record(AgentTranscriptEvent("y" * 3 * MAX_CHARS, False, f"s{number}"))
        live._record(ToolStartEvent(f"c{number}", "f", "z" * 3 * MAX_CHARS))
        live._record(ErrorEvent("model", "oh" * MAX_CHARS))
    story = live._reader.story
    for entries in (story.person, story.agent, story.tools, story.problems):
        assert len(entries) == MAX_ENTRIES
    assert {len(t.generated) for t in story.agent} == {MAX_CHARS}
    assert len(live._changed) <= 4 * MAX_ENTRIES
    version, found = 0, {}
    while (answer := live.changes(version))["version"] != version:
        assert len(json.dumps(answer["turns"])) < 1.1 * MAX_ANSWER_BYTES
        found |= {t["id"]: t for t in answer["turns"]}
        version = answer["version"]
    assert len(found) == 3 * MAX_ENTRIES


def test_a_reply_that_may_still_come_is_not_missed():
    live = followed(turn(1)[:2])
    assert live.changes(0)["call"]["why"] == []
    live._zero -= 20.0
    (line,) = live.changes(0)["call"]["why"]
    assert '"hello" got no reply' in line["text"]


def test_a_row_of_the_list_has_numbers_and_no_words():
    row = {}

    async def talk():
        edge = FakeEdge()
        model = ScriptedRealtime(
            [Reply(tools=[ToolUse("look_up")]), Reply(WORDS, seconds=8.0), Reply("Sorry.")],
            transcripts=["where is my order", "that is too late"],
        )
        lives = []

        def prepare(agent):
            lives.append(LiveCall(agent))

            @agent.tool
            async def look_up() -> str:
                """Look it up."""
                return "4"

        async with join_agent(model, edge, prepare):
            await edge.speak(1.0)
            await edge.be_silent(4.0)
            await edge.speak(1.5)
            await edge.be_silent(3.0)
        row.update(lives[0].summary())

    run_virtual(talk())
    assert (row["turns"], row["interruptions"], row["errors"]) == (2, 1, 0)
    assert row["median_ms"] > 0
    assert "order" not in json.dumps(row)


class Desk:
    """A server whose caller speaks over a WebSocket, and what it hears."""

    def __init__(self, **options):
        self.config = ServerConfig(port=0, max_tick_delay_ms=None, **options)
        self.gate = asyncio.Event()

    def make(self, edge):
        model = ScriptedRealtime([Reply(tools=[ToolUse("look_up")]), Reply(WORDS, seconds=60.0)])
        agent = Agent(edge=edge, llm=model, agent_user=User("Ada", "ada"))

        @agent.tool
        async def look_up() -> str:
            """Look up an order."""
            await self.gate.wait()
            return "sent"

        return agent

    def app(self, **options):
        app = create_app(self.make, self.config, **options)
        websocket.mount(app, self.make)
        return app


MOVED = "before => document.getElementById('time').textContent != before"


@asynccontextmanager
async def calling(server):
    """Call a server by a WebSocket during the block."""
    async with websockets.connect(
        f"ws://localhost:{server.port}/socket", subprotocols=["duologue.v1"], close_timeout=0.1
    ) as caller:
        await caller.send(json.dumps({"type": "hello", "token": TOKEN}))
        yield caller


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    async with chromium() as browser:
        yield browser


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="module")
async def test_a_browser_sees_the_calls_of_a_server_as_they_go_on(browser):
    desk = Desk(token=TOKEN)
    app = desk.app(live=True)
    async with serving(app, desk.config) as server:
        url = f"http://localhost:{server.port}"
        async with open_page(browser, f"{url}/calls#token={TOKEN}") as page:
            await page.wait_for_selector("text=No call is running.")
            async with calling(server) as caller:
                await page.locator("#rows a").click()
                await page.wait_for_selector("text=Following")
                await caller.send('{"type": "text", "text": "where is my order"}')
                await page.wait_for_selector(".tool.turn")
                assert await page.inner_text(".tool .said") == "{} → running"
                desk.gate.set()
                await page.wait_for_selector("text=sent")
                await page.wait_for_selector(".agent .coming")
                assert await page.inner_text(".agent .said") == WORDS
                assert await page.inner_text("#agent-name") == "Ada"
                before = await page.inner_text("#time")
                await page.wait_for_function(
                    "t => document.getElementById('time').textContent != t", arg=before
                )
                (running,) = app.calls.running.values()
                running.call.control.interrupt()
                await page.wait_for_selector("text=Interrupted after")
                assert WORDS.endswith(await page.inner_text(".agent .unheard"))
                assert "by the program" in await page.inner_text("#why")
            await page.wait_for_selector("text=The call is over.")
            # Chromium itself complains about the status by which the page knows that.
            assert all("404" in text for text in page.complaints)
            page.complaints.clear()
            await page.click("#back")
            await page.wait_for_selector("text=No call is running.")


@asynccontextmanager
async def one_call(**options):
    """Serve one call; yield a client of the API, and the call's id."""
    desk = Desk(token=TOKEN)
    app = desk.app(**options)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with serving(app, desk.config) as server, calling(server):
        url = f"http://localhost:{server.port}"
        async with httpx.AsyncClient(base_url=url, headers=headers) as client:
            async with asyncio.timeout(3):
                while not (calls := (await client.get("/calls")).json()["calls"]):
                    await asyncio.sleep(0.02)
            yield client, calls[0]["id"]


async def test_behind_a_token_words_are_shown_only_if_that_is_switched_on():
    async with one_call(live=False) as (client, call_id):
        refused = await client.get(f"/calls/{call_id}/changes")
        assert refused.status_code == 409
        assert "--live" in refused.json()["error"]
        (row,) = (await client.get("/calls")).json()["calls"]
        assert "model" not in row
    assert ServerConfig(token=TOKEN).private  # on by default
    assert not ServerConfig(token=TOKEN, host="0.0.0.0").private  # noqa: S104


async def test_the_page_has_no_data_and_what_it_asks_needs_the_token():
    async with one_call(live=True) as (client, call_id):
        del client.headers["authorization"]
        for where in ("/calls", f"/calls/{call_id}"):
            page = await client.get(where, headers={"accept": "text/html,*/*"})
            assert (page.status_code, page.headers["vary"]) == (200, "accept")
            assert "sha256-" in page.headers["content-security-policy"]
            assert "unsafe" not in page.headers["content-security-policy"]
            assert call_id not in page.text
            assert (await client.get(where)).status_code == 401
        where = f"/calls/{call_id}/changes"
        assert (await client.get(where)).status_code == 401
        client.headers["authorization"] = f"Bearer {TOKEN}"
        assert (await client.get(where)).status_code == 200
        assert (await client.get(f"{where}?after=-1")).status_code == 422
        assert (await client.get("/calls/none/changes")).status_code == 404


PROGRAM = """
from duologue import Agent, run
from duologue.edges import websocket
from duologue.hosting import create_app
from duologue.server import ServerConfig, serve_app
from duologue.testing import Reply, ScriptedRealtime

def make_agent(edge):
    return Agent(edge=edge, llm=ScriptedRealtime([Reply("Which order?", seconds=30.0)]))

async def main():
    config = ServerConfig(port=0, workers=2, max_tick_delay_ms=None)
    app = create_app(make_agent, config)
    websocket.mount(app, make_agent)
    await serve_app(app, config)

run(main())
"""


async def test_each_worker_shows_the_calls_of_all():
    async with running_program(PROGRAM) as server:
        pids = await server.workers(2)
        address = server.url.replace("http", "ws") + "socket"
        options = {"subprotocols": ["duologue.v1"], "close_timeout": 0.1}
        async with AsyncExitStack() as stack:
            calls = []
            async with asyncio.timeout(15):
                # Connections of requests are spread, too, so two calls may meet in one worker.
                while {call["pid"] for call in calls} != set(pids):
                    caller = await stack.enter_async_context(websockets.connect(address, **options))
                    await caller.send('{"type": "hello"}')
                    before = len(calls)
                    while len(calls := (await server.get("/calls"))["calls"]) == before:
                        await asyncio.sleep(0.02)
            assert {call["model"] for call in calls} == {"script"}
            for call in calls:
                # A new connection each time, so both workers are asked for calls of the other.
                for _ in range(2):
                    answer = await server.get(f"/calls/{call['id']}/changes?after=0")
                    assert answer["call"]["agent"]
