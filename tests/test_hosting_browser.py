"""Real calls: Chromium, the page, WebRTC, an agent, and a scripted model."""

import asyncio
import time
from dataclasses import replace

import pytest
import pytest_asyncio
from page import SPEECH, chromium, open_page, talk
from server_fixture import serving, until

from duologue.agent.agent import Agent, User
from duologue.edges.browser import Edge
from duologue.errors import ConfigError
from duologue.hosting import create_app
from duologue.server import ServerConfig
from duologue.testing import SCRIPTED_CAPABILITIES
from duologue.testing.scripted import Reply, ScriptedRealtime

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    async with chromium() as browser:
        yield browser


SIGHTED = replace(SCRIPTED_CAPABILITIES, user_transcripts="partial", video=True)
LONG = "This answer is a long one and it goes on for quite a while without any end in sight."


class Desk:
    """Makes an agent with a scripted model for each caller, and keeps them."""

    def __init__(self, *replies: Reply | str, transcripts=("what is up",)) -> None:
        self.replies, self.transcripts = replies, transcripts
        self.agents: list[Agent] = []
        self.models: list[ScriptedRealtime] = []

    def __call__(self, edge) -> Agent:
        model = ScriptedRealtime(self.replies, transcripts=self.transcripts, capabilities=SIGHTED)
        agent = Agent(edge=edge, llm=model, agent_user=User("Ada", "ada"))
        self.agents.append(agent)
        self.models.append(model)
        return agent


async def test_a_person_writes_gets_a_reply_and_interrupts_it(browser):
    desk = Desk(Reply(LONG, seconds=8.0), "Short.")
    config = ServerConfig(port=0, max_tick_delay_ms=None)
    async with (
        serving(create_app(desk, config), config) as server,
        open_page(browser, server.url, MUTED) as page,
    ):
        await talk(page)
        await page.wait_for_selector('body[data-turn="listening"]')
        await page.fill("#text", "tell me")
        await page.locator("#text").press("Enter")
        await page.wait_for_selector('body[data-turn="agent"]')
        assert await page.locator(".agent .who").inner_text() == "Ada"
        assert LONG in await page.locator(".agent .words").inner_text()
        await asyncio.sleep(2.0)
        await page.fill("#text", "stop")
        await page.locator("#text").press("Enter")
        await page.wait_for_selector("s")
        heard = await page.evaluate("document.querySelector('.agent .words').firstChild.data")
        (cut, *_) = [item for item in desk.agents[0].conversation.items if item_is_cut(item)]
        assert cut.text == heard.strip()
        assert 1000 < cut.played_ms < 3000
        assert LONG.startswith(cut.text)
        rest = await page.locator("s").text_content()
        assert (cut.text + rest.removeprefix("Not heard:")) == LONG
        await page.wait_for_selector("text=Short.")
        await page.wait_for_selector('body[data-turn="listening"]')
        await page.click("#talk")
        await until(lambda: server.calls.sessions == 0)
        assert not desk.models[0].connected


async def test_speech_gets_a_reply():
    desk = Desk("Yes.", transcripts=["he was not an ill disposed young man"])
    config = ServerConfig(port=0, max_tick_delay_ms=None)
    async with (
        chromium(SPEECH / "austen-0880.wav") as browser,
        serving(create_app(desk, config), config) as server,
        open_page(browser, server.url) as page,
    ):
        await talk(page)
        await page.wait_for_selector(".person .words")
        await page.wait_for_selector(".agent .words")
        await page.wait_for_selector(".latency .track")
        assert "ms" in await page.locator("#pace").inner_text()
        assert desk.models[0].received_samples > 24000


async def test_an_edge_serves_the_page_itself(browser):
    ready = asyncio.get_running_loop().create_future()
    model = ScriptedRealtime(["Hello to you."], capabilities=SIGHTED)
    agent = Agent(edge=Edge(port=0, ready=ready.set_result), llm=model)

    async def converse() -> float:
        async with agent.join():
            await agent.say("Hello to you.")
            await agent.finish()
            return time.monotonic()

    async with asyncio.TaskGroup() as tasks:
        conversation = tasks.create_task(converse())
        address = await asyncio.wait_for(ready, 3)
        assert address.startswith("http://localhost:")
        async with open_page(browser, address, MUTED) as page:
            await talk(page)
            await page.wait_for_selector('text="Hello to you."')
            await page.wait_for_selector('body[data-turn="listening"]')
            async with open_page(browser, address, MUTED) as other:
                await other.click("#talk")
                await other.wait_for_selector("#notice:not([hidden])")
                said = await other.locator("#notice-text").inner_text()
                assert "one person talks already" in said
            await page.click("#talk")
            left = await conversation
        assert time.monotonic() - left < 1
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", int(address.split(":")[2].strip("/")))


async def test_an_agent_that_leaves_ends_the_call_on_the_page(browser):
    ready = asyncio.get_running_loop().create_future()
    agent = Agent(
        edge=Edge(port=0, ready=ready.set_result),
        llm=ScriptedRealtime([LONG], capabilities=SIGHTED),
    )
    leave = asyncio.Event()

    async def converse() -> float:
        async with agent.join():
            agent.say(LONG)
            await leave.wait()
            began = time.monotonic()
        return time.monotonic() - began

    async with asyncio.TaskGroup() as tasks:
        conversation = tasks.create_task(converse())
        async with open_page(browser, await ready, MUTED) as page:
            await talk(page)
            await page.wait_for_selector('body[data-turn="agent"]')
            leave.set()
            assert await conversation < 1.0
            await page.wait_for_selector('body[data-call="idle"]')
            assert await page.locator("#turns > li").last.inner_text() == "the conversation is over"
            assert await page.locator("#notice").is_hidden()


async def test_an_edge_on_a_taken_port_reports_it():
    ready = asyncio.get_running_loop().create_future()
    first = Edge(port=0, ready=ready.set_result)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(first.run(None, lambda: None))
        port = int((await ready).split(":")[2].strip("/"))
        with pytest.raises(ConfigError, match="choose another port"):
            await Edge(port=port).run(None, lambda: None)
        began = time.monotonic()
        running.cancel()
        await asyncio.wait({running})
        assert time.monotonic() - began < 0.5
        with pytest.raises(ConfigError, match="make a new one"):
            await first.run(None, lambda: None)


MUTED = """
const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await real(wanted);
    stream.getAudioTracks().forEach((track) => { track.enabled = false;
        Object.defineProperty(track, "enabled", { set() {}, get: () => false }); });
    return stream;
};
"""


def item_is_cut(item) -> bool:
    return getattr(item, "state", "") == "cut"
