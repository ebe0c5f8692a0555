"""The pages of recorded calls in a real Chromium, served and as one file."""

import asyncio
import contextlib
import shutil
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
from duologue.observe.recorder import read_events
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


@pytest.mark.browser
@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_works_in_the_frame_of_a_notebook(browser, calls, tmp_path):
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<p>[1]</p>{view(calls / 'good')._repr_html_()}")
    async with open_page(browser, notebook.as_uri()) as page:
        frame = page.frame_locator("iframe")
        await frame.locator("#turns li").first.wait_for()
        assert await frame.locator("#turns li").count() == 5
        assert await frame.locator("#legend span:visible").all_inner_texts() == ["held", "cut"]


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


def test_explain_takes_several_calls(calls):
    result = CliRunner().invoke(main, ["explain", str(calls / "good"), str(calls), str(calls)])
    assert [line.partition(":")[0] for line in result.output.splitlines() if line[0] != " "] == [
        "bad",
        "good",
    ]


def damaged(calls, tmp_path, how):
    """Copy a call and damage it; return its folder."""
    folder = tmp_path / "damaged"
    shutil.copytree(calls / "good", folder)
    events, audio = folder / "events.jsonl", folder / "audio.ogg"
    match how:
        case "cut audio":
            audio.write_bytes(audio.read_bytes()[:300])
        case "no audio":
            audio.write_bytes(b"")
        case "no object":
            events.write_text('[1]\n7\n"x"\nnull\n' + events.read_text())
        case "no number":
            line = '{"t": 1e999, "type": "UserTurnStartedEvent", "turn_id": "x", "speech_ms": NaN}'
            events.write_text(f"{line}\n{events.read_text()}")
            (folder / "call.json").write_text('{"seconds": 1e999}')
        case _:
            events.write_bytes(b"\xff\xfe\n" + events.read_bytes())
    return folder


@pytest.mark.parametrize(
    "how", ["cut audio", "no audio", "no object", "no number", "other encoding"]
)
def test_a_damaged_call_is_shown_as_far_as_it_can_be_read(calls, tmp_path, how):
    folder = damaged(calls, tmp_path, how)
    page = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["view", str(folder), "--static", str(page)])
    assert (result.exit_code, result.exception) == (0, None), result.output
    html = page.read_text()
    assert "Thursday" in html
    assert ("audio.ogg is missing, empty or damaged" in html) == (how in ("cut audio", "no audio"))
    assert ("data:audio/ogg" in html) == (how not in ("cut audio", "no audio"))
    assert '": Infinity' not in html
    assert '": NaN' not in html
    explained = CliRunner().invoke(main, ["explain", str(folder)])
    assert explained.exit_code == 0
    assert 'the person said "that is too late"' in explained.output


async def test_a_damaged_call_is_served_beside_the_others(calls, tmp_path):
    folder = damaged(calls, tmp_path, "cut audio")
    shutil.copytree(calls / "good", tmp_path / "whole")
    async with serving(tmp_path) as url, httpx.AsyncClient() as client:
        listed = (await client.get(url)).text
        assert '"whole"' in listed
        assert f'"{folder.name}"' in listed
        assert (await client.get(f"{url}calls/{folder.name}")).status_code == 200


async def test_a_call_that_cannot_be_read_does_not_hide_the_others(
    calls, tmp_path, monkeypatch, caplog
):
    def read(folder):
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return read_events(folder)

    for name in ("locked", "whole"):
        shutil.copytree(calls / "good", tmp_path / name)
    monkeypatch.setattr("duologue.observe.call.read_events", read)
    assert [call.name for call in read_calls(tmp_path)] == ["whole"]
    assert "locked/events.jsonl: permission denied" in caplog.text
    async with serving(tmp_path) as url, httpx.AsyncClient() as client:
        assert (await client.get(url)).status_code == 200
        assert (await client.get(f"{url}calls/locked")).status_code == 404


def test_a_port_that_is_taken_is_one_line(calls):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = CliRunner().invoke(main, ["view", str(calls), "--port", str(port)])
    assert result.exit_code == 2
    assert result.output == (
        f"duologue: can't listen on port {port} (Address already in use): "
        "choose another port, or 0 for a free one\n"
    )
