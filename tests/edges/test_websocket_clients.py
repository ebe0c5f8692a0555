"""The reference clients of the WebSocket edge, in Python and in a real Chromium."""

import asyncio
import os
import runpy
import sys
import wave
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.responses import FileResponse, HTMLResponse
from starlette.routing import Route
from websockets.asyncio.server import serve
from websockets.typing import Subprotocol

from duologue import Agent
from duologue.edges import websocket
from duologue.events import AgentTurnEndedEvent, InterruptionEvent
from duologue.testing import Reply, ScriptedRealtime
from served_app import on_loopback

EXAMPLES = Path(__file__).parents[2] / "examples"
CHROMIUM = "/usr/bin/chromium"
PAGE = """<script type="module">
import { Talk } from "/websocket_client.js";
window.events = [];
const url = `ws://${location.host}/socket`;
window.talk = new Talk(url, { onEvent: (event) => events.push(event.type) });
await talk.start();
</script>"""


def speech(seconds=1.0, rate=16000):
    return np.tile(np.repeat([8000, -8000], rate // 400), round(seconds * 200)).astype("<i2")


async def until(condition, seconds=15.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(*replies):
    agents, events = [], []

    def make_agent(edge):
        agent = Agent(edge=edge, llm=ScriptedRealtime(replies, transcripts=["what time is it"] * 9))
        agent.events.tap(events.append)
        agents.append(agent)
        return agent

    async def page(request):
        return HTMLResponse(PAGE)

    async def script(request):
        return FileResponse(EXAMPLES / "websocket_client.js", media_type="text/javascript")

    app = Starlette(routes=[Route("/", page), Route("/websocket_client.js", script)])
    websocket.mount(app, make_agent, max_calls=2)
    async with on_loopback(app) as host:
        yield host, agents, events


def test_the_clients_are_short():
    for name in ("websocket_client.py", "websocket_client.js"):
        assert len((EXAMPLES / name).read_text().splitlines()) < 150


async def test_the_python_client_hears_the_agent(capsys):
    client = runpy.run_path(str(EXAMPLES / "websocket_client.py"))
    async with serving(Reply("Hello.", seconds=0.5)) as (host, agents, events):
        heard = await client["talk"](f"ws://{host}/socket", speech().tobytes(), 16000, seconds=2.5)
    assert np.count_nonzero(np.frombuffer(heard, "<i2")) > 7000
    assert "agent: Hello." in capsys.readouterr().out
    ended = [event for event in events if isinstance(event, AgentTurnEndedEvent)]
    assert [event.interrupted for event in ended] == [False]
    [item] = [item for item in agents[0].conversation.items if getattr(item, "speech_id", None)]
    assert item.text == "Hello."


@pytest.mark.parametrize("code", [1000, 1011])
async def test_the_python_client_keeps_what_it_heard_when_the_server_ends(code, tmp_path, capsys):
    client = runpy.run_path(str(EXAMPLES / "websocket_client.py"))

    async def end(socket):
        await socket.send(b"\1\0" * 3200)
        await asyncio.sleep(0.5)
        await socket.close(code, "enough")

    protocols = [Subprotocol("duologue.v1")]
    # The server reads nothing, so it sees the client's end only if all that was sent fits.
    async with serve(end, "127.0.0.1", 0, subprotocols=protocols, max_queue=None) as server:
        address = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/socket"
        heard = await client["talk"](address, speech(3).tobytes(), 16000)
    assert np.count_nonzero(np.frombuffer(heard, "<i2")) > 1600
    assert capsys.readouterr().err == f"the server ended the call: {code} enough\n"


async def test_the_python_client_says_in_a_line_that_it_can_not_call(tmp_path):
    with wave.open(str(tmp_path / "in.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(speech().tobytes())
    async with serve(lambda socket: socket.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    files = [str(tmp_path / "in.wav"), str(tmp_path / "out.wav")]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "websocket_client.py"),
        *files,
        f"ws://127.0.0.1:{port}/socket",
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().startswith("can't call ws://")
    assert errors.count(b"\n") == 1


@pytest.mark.browser
async def test_chromium_is_interrupted_and_confirms_what_it_played(tmp_path):
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    if not os.access(CHROMIUM, os.X_OK):
        pytest.skip(f"no Chromium at {CHROMIUM}: apt-get install chromium")
    with wave.open(str(tmp_path / "mic.wav"), "wb") as file:
        file.setparams((1, 2, 48000, 0, "NONE", ""))
        voice = np.tile(np.repeat([9000, -9000], 120), 200).astype("<i2")
        file.writeframes(np.concatenate((voice, np.zeros(144000, "<i2"))).tobytes())
    flags = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={tmp_path / 'mic.wav'}",
        "--autoplay-policy=no-user-gesture-required",
    ]
    long = [Reply("a" * 300, seconds=20.0)] * 9
    async with serving(*long) as (host, agents, events), playwright.async_playwright() as engine:
        browser = await engine.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            page = await browser.new_page()
            await page.goto(f"http://{host}/")
            await until(
                lambda: any(
                    e for e in events if isinstance(e, InterruptionEvent) and e.played_ms > 300
                ),
                30,
            )
            seen = await page.evaluate("events")
            await page.evaluate("talk.stop()")
            await until(lambda: not agents[0]._live)
        finally:
            await browser.close()
    cut = next(e for e in events if isinstance(e, InterruptionEvent) and e.played_ms > 300)
    assert cut.quality == "confirmed"
    assert "AgentTurnStartedEvent" in seen
