"""The page in Debian's WebKit, which has no WebRTC: the page says so, and nothing fails."""

import asyncio
import os
import shutil
import socket
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from server_fixture import served, until

pytestmark = pytest.mark.browser

DRIVER, XVFB = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")


@asynccontextmanager
async def screen():
    """Run an X server that shows nothing, and yield its name."""
    if XVFB is None:
        pytest.skip("Xvfb is not installed: apt-get install xvfb")
    process = await asyncio.create_subprocess_exec(
        *(XVFB, "-displayfd", "1", "-screen", "0", "1000x800x24", "-nolisten", "tcp"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(10):
            yield ":" + (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def webkit(home: Path):
    """Run WebKitGTK's MiniBrowser, and yield a function that sends it WebDriver's commands."""
    browsers = sorted(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"))
    if DRIVER is None or not browsers:
        pytest.skip("WebKit is not installed: apt-get install webkit2gtk-driver")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    async with screen() as display:
        # The sandbox of WebKit does not start for root.
        own = {
            "DISPLAY": display,
            "HOME": str(home),
            "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",
        }
        process = await asyncio.create_subprocess_exec(
            DRIVER, f"--port={port}", env=os.environ | own, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False
            ) as http:
                await until(lambda: is_open(port), 10)
                options = {"binary": str(browsers[-1]), "args": ["--automation"]}
                wanted = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
                made = (await http.post("/session", json={"capabilities": wanted})).json()["value"]
                path = f"/session/{made['sessionId']}"

                async def command(name, **body):
                    return (await http.post(f"{path}/{name}", json=body)).json()["value"]

                yield command
                await http.delete(path)
        finally:
            process.kill()
            await process.wait()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_page_says_in_webkit_that_it_can_not_make_calls(tmp_path):
    async with served(None) as server, webkit(tmp_path) as command:
        await command("url", url=server.url)

        async def value(expression):
            return await command("execute/sync", script=f"return {expression}", args=[])

        if await value("typeof RTCPeerConnection") != "undefined":
            pytest.skip("this WebKit has WebRTC, which was not tried")
        # The page's modules may still be loading.
        async with asyncio.timeout(10):
            while not (said := await value("document.querySelector('#notice-text').textContent")):
                await asyncio.sleep(0.05)
        assert said.startswith("This browser can't make calls")
        assert server.calls.sessions == 0
