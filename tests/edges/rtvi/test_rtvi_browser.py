"""Pipecat's official JavaScript client in a real Chromium talks with an agent."""

import asyncio
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from page import SPEECH, chromium
from server_fixture import serving, until
from starlette.applications import Starlette

from duologue import Agent
from duologue.hosting import create_app
from duologue.server import ServerConfig
from duologue.testing import Reply, ScriptedRealtime
from served_app import on_loopback

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

CLIENT = Path(__file__).parent / "client"
ESBUILD = CLIENT / "node_modules" / ".bin" / "esbuild"
TOKEN = "a-token-for-the-test"  # noqa: S105


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def script(tmp_path_factory) -> str:
    """The client and its packages as one script."""
    if shutil.which("node") is None or not ESBUILD.exists():
        pytest.skip(f"Pipecat's client is not installed: npm ci --ignore-scripts in {CLIENT.name}")
    out = tmp_path_factory.mktemp("rtvi") / "client.js"
    made = await asyncio.create_subprocess_exec(
        ESBUILD, "client.js", "--bundle", "--log-level=error", f"--outfile={out}", cwd=CLIENT
    )
    assert await made.wait() == 0
    return out.read_text()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    async with chromium(SPEECH / "austen-0880.wav") as browser:
        yield browser


@asynccontextmanager
async def app_page(browser, origin, script, *, served=False):
    """A page of an application at an origin: the server's own, or another one of this machine."""
    context = await browser.new_context()
    await context.add_init_script(script)
    if not served:
        # A page of our server could not make audio worklets, because of its content policy.
        html = {"body": "<body></body>", "content_type": "text/html"}
        await context.route(f"{origin}/app", lambda route: route.fulfill(**html))
    page = await context.new_page()
    page.set_default_timeout(8000)
    await page.goto(f"{origin}/app")
    try:
        yield page
    finally:
        await context.close()


async def wait_for(page, name, *, count=1):
    await page.wait_for_function(
        "([name, count]) => log.filter((entry) => entry[0] === name).length >= count",
        arg=[name, count],
    )


async def logged(page, name):
    return [data for kind, data in await page.evaluate("log") if kind == name]


async def test_the_official_client_talks(browser, script):
    agents = []

    def make_agent(edge):
        model = ScriptedRealtime([Reply("I hear you. Well.", seconds=1.0)], transcripts=["Hello."])
        agents.append(Agent(edge=edge, llm=model))
        return agents[-1]

    config = ServerConfig(port=0, max_tick_delay_ms=None, token=TOKEN)
    async with (
        serving(create_app(make_agent, config, rtvi=True), config) as server,
        app_page(browser, server.origin, script) as page,
    ):
        ready = await page.evaluate(
            "([url, token]) => makeClient().connect({webrtcRequestParams:"
            " request(url, token, {room: 7})})",
            [f"{server.origin}/api/offer", TOKEN],
        )
        assert ready["version"] == "2.1.0"
        (agent,) = agents
        assert agent.edge.request_data == {"room": 7}
        await wait_for(page, "botStoppedSpeaking")
        assert (await logged(page, "userTranscript"))[-1]["text"] == "Hello."
        assert len(await logged(page, "userStartedSpeaking")) == 1
        outputs = await logged(page, "botOutput")
        assert [each["text"] for each in outputs if each["spoken_status"] == "new"] == [
            "I hear you. ",
            "Well.",
        ]
        assert outputs[-1]["spoken_status"] == "completed"
        spoken = "".join(each["text"] for each in await logged(page, "botTtsText"))
        assert spoken
        assert "I hear you. Well.".startswith(spoken)
        assert (await logged(page, "metrics"))[0]["ttfb"][0]["processor"] == "agent"
        energy = await page.evaluate(
            "transport.pc.getStats().then((stats) => [...stats.values()].find((each) =>"
            " each.type === 'inbound-rtp' && each.kind === 'audio').totalAudioEnergy)"
        )
        assert energy > 0.001
        await page.evaluate("client.disconnect()")
        await until(lambda: server.calls.sessions == 0)
        texts = [item.text for item in agent.conversation]
        assert texts == ["Hello.", "I hear you. Well."]


async def test_the_official_client_of_another_site_writes_and_calls(browser, script):
    edges = []

    def make_agent(edge):
        edge.handle("double", lambda data: data * 2)
        edges.append(edge)
        return Agent(edge=edge, llm=ScriptedRealtime([Reply("Good.", seconds=0.4)]))

    async with on_loopback(Starlette()) as site:
        origin = f"http://{site}"
        config = ServerConfig(
            port=0, max_tick_delay_ms=None, token=TOKEN, allowed_origins=(origin,)
        )
        async with (
            serving(create_app(make_agent, config, rtvi=True), config) as server,
            app_page(browser, origin, script, served=True) as page,
        ):
            await write_and_call(page, server, edges)


async def write_and_call(page, server, edges):
    wrong = await page.evaluate(
        "(url) => makeClient({}, false).startBotAndConnect(request(url, 'wrong'))"
        ".catch((error) => error.message)",
        f"{server.origin}/start",
    )
    assert "right token" in wrong
    await page.evaluate(
        "([url, token]) => makeClient({}, false).startBotAndConnect("
        "request(url, token, {body: {room: 8}}))",
        [f"{server.origin}/start", TOKEN],
    )
    (edge,) = edges
    assert edge.request_data == {"room": 8}
    await page.evaluate("client.sendText('How are you?')")
    await wait_for(page, "botStoppedSpeaking")
    assert await page.evaluate("client.sendClientRequest('double', 21)") == 42
    failed = await page.evaluate(
        "client.sendClientRequest('nothing', 1).catch((failed) => failed.data.error)"
    )
    assert failed == "nothing handles nothing here"
    assert await edge.call_client("where", {"exact": True}) == {"city": "Oslo", "exact": True}
    edge.send_message({"color": "red"})
    await wait_for(page, "serverMessage")
    assert await logged(page, "serverMessage") == [{"color": "red"}]
    await page.evaluate("client.disconnectBot()")
    await wait_for(page, "disconnected")
    await until(lambda: server.calls.sessions == 0)


async def test_the_official_client_comes_back_after_its_connection_was_lost(browser, script):
    agents = []

    def make_agent(edge):
        replies = [Reply("One.", seconds=0.4), Reply("Two.", seconds=0.4)]
        agents.append(Agent(edge=edge, llm=ScriptedRealtime(replies)))
        return agents[-1]

    config = ServerConfig(port=0, max_tick_delay_ms=None)
    async with (
        serving(create_app(make_agent, config, rtvi=True), config) as server,
        app_page(browser, server.origin, script) as page,
    ):
        await page.evaluate(
            "(url) => makeClient({}, false).connect({webrtcRequestParams: request(url)})",
            f"{server.origin}/api/offer",
        )
        await page.evaluate("client.sendText('First')")
        await wait_for(page, "botStoppedSpeaking")
        # What the client does when ICE has failed, which would take it ten seconds to find out.
        await page.evaluate("transport.attemptReconnection(true)")
        await page.wait_for_function("transport.dc.readyState === 'open'")
        await page.evaluate("client.sendText('Second')")
        await wait_for(page, "botStoppedSpeaking", count=2)
        assert server.calls.sessions == len(agents) == 1
        texts = [item.text for item in agents[0].conversation]
        assert texts == ["First", "One.", "Second", "Two."]
