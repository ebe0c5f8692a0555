"""The pages of recorded calls in a real Chromium, served and as one file."""

import asyncio
import contextlib
import socket

import httpx
import pytest
import pytest_asyncio
import uvicorn
from click.testing import CliRunner
from page import chromium, open_page

from duologue import ConfigError
from duologue.cli import main
from duologue.observe import Recorder, read_calls, view
from duologue.observe.page_server import view_app
from duologue.testing import Reply, ScriptedRealtime, ToolUse, run_virtual
from fake_edge import FakeEdge, join_agent

WORDS = "Your order </script> comes on Thursday, unless the weather changes <!--"


async def one_call(folder, name, *, fails=False):
    edge = FakeEdge()
    model = ScriptedRealtime(
        [
            Reply(tools=[ToolUse("look_up", {"order": 4711})]),
            Reply(WORDS, seconds=8.0),
            Reply("Sorry.", fails="the quota is used up" if fails else None),
        ],
        transcripts=["where is my order", "that is too late"],
    )

    def prepare(agent):
        @agent.tool
        async def look_up(order: int) -> str:
            """Look up an order."""
            await asyncio.sleep(0.5)
            return "sent"

    recorder = Recorder(folder, name=name)
    async with join_agent(model, edge, prepare, recorder=recorder):
        await edge.be_silent(0.5)
        await edge.speak(1.0)
        await edge.be_silent(4.0)
        await edge.speak(1.5)
        await edge.be_silent(3.0)


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calls")
    run_virtual(one_call(folder, "good"))
    run_virtual(one_call(folder, "bad", fails=True))
    return folder


@contextlib.asynccontextmanager
async def serving(path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(view_app(path), log_level="warning"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://localhost:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            await task


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser():
    async with chromium() as browser:
        yield browser


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="module")
async def test_the_list_shows_the_unusual_first_and_leads_to_a_call(browser, calls):
    async with serving(calls) as url, open_page(browser, url) as page:
        names = page.locator("#rows a")
        assert await names.all_inner_texts() == ["bad", "good"]
        await page.fill("#filter", "no such words")
        assert await page.locator("#no-calls").is_visible()
        await page.fill("#filter", "thursday")
        assert await names.count() == 2
        await page.check("#only-errors")
        assert await names.all_inner_texts() == ["bad"]
        await names.first.click()
        await page.wait_for_selector("#turns li")
        assert "the quota is used up" in await page.inner_text("#why")
        await page.click("#back")
        assert await page.locator("#rows tr").count() == 2


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="module")
async def test_a_call_plays_and_moves_by_keys_and_finds_words(browser, calls):
    async with serving(calls) as url, open_page(browser, f"{url}calls/good") as page:
        turns = page.locator("#turns li")
        assert await turns.count() == 5
        reply = turns.nth(2)
        heard = await reply.locator(".heard").inner_text()
        unheard = await reply.locator(".unheard").text_content()
        assert (heard + unheard).replace(" ", "") == WORDS.replace(" ", "")
        assert await reply.locator(".latency b").count() >= 4
        await page.keyboard.press("j")
        assert "where is my order" in await page.inner_text(".now")
        await page.keyboard.press("ArrowRight")
        at = await page.evaluate("document.getElementById('audio').currentTime")
        assert at == pytest.approx(5.5, abs=0.1)
        await page.keyboard.press(" ")
        async with asyncio.timeout(5):
            while await page.evaluate("document.getElementById('audio').currentTime") < at + 0.2:
                await asyncio.sleep(0.05)
        await page.keyboard.press(" ")
        await page.get_by_role("button", name="Play", exact=True).wait_for()
        await page.keyboard.press("/")
        await page.keyboard.type("weather")
        assert await page.locator("#turns li:visible").count() == 1
        assert await page.inner_text("mark") == "weather"


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="module")
async def test_one_file_needs_nothing_else(browser, calls, tmp_path):
    out = tmp_path / "call.html"
    result = CliRunner().invoke(main, ["view", str(calls / "good"), "--static", str(out)])
    assert result.exit_code == 0, result.output
    async with open_page(browser, out.as_uri(), color_scheme="dark") as page:
        await page.wait_for_function("document.getElementById('audio').duration > 9")
        assert await page.locator("#turns li").count() == 5
        assert WORDS[:20] in await page.inner_text("#turns")


async def test_the_server_answers_to_this_machine_only_and_leaves_the_folder_alone(calls):
    async with serving(calls) as url, httpx.AsyncClient() as client:
        answer = await client.get(url, headers={"host": "evil.example"})
        assert answer.status_code == 400
        for name in ("none", "..%2fgood", "%2e%2e"):
            assert (await client.get(f"{url}calls/{name}")).status_code == 404
        part = await client.get(f"{url}calls/good/audio.ogg", headers={"range": "bytes=0-3"})
        assert (part.status_code, part.content) == (206, b"OggS")


def test_a_notebook_shows_a_call(calls):
    html = view(calls / "good" / "audio.ogg")._repr_html_()
    assert html.startswith("<iframe srcdoc=")
    assert "Thursday" in html


def test_what_is_no_call_is_one_sentence(tmp_path, calls):
    with pytest.raises(ConfigError, match="no recorded call in"):
        read_calls(tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        read_calls(tmp_path / "none")
    result = CliRunner().invoke(main, ["view", str(calls), "--static", str(tmp_path / "x.html")])
    assert result.exit_code == 2
    assert "has 2 calls" in result.output


def test_explain_prints_one_line_for_each_thing(calls):
    result = CliRunner().invoke(main, ["explain", str(calls)])
    assert result.exit_code == 0
    assert 'the person said "that is too late"' in result.output
    assert result.output.index("bad:") < result.output.index("good:")
