"""Debian's Firefox, driven by WebDriver BiDi, which it speaks by itself."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import ifaddr
import pytest
import websockets

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")

_PREFERENCES = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    # Nothing outside this machine is asked for anything.
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.proxy.allow_hijacking_localhost": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "remote.log.level": "Error",
}


class Page:
    """A tab of the browser."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._next_id = 0
        self._context = ""
        self.complaints: list[str] = []

    async def command(self, method: str, **params) -> dict:
        """Send a command and return its result."""
        self._next_id += 1
        number = self._next_id
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(20):
            while True:
                message = json.loads(await self._socket.recv())
                if message.get("id") == number:
                    if message["type"] == "error":
                        raise RuntimeError(f"{method}: {message['message']}")
                    return message["result"]
                if message.get("method") == "log.entryAdded":
                    entry = message["params"]
                    if entry["level"] == "error":
                        self.complaints.append(entry.get("text") or "")

    async def open(self, url: str) -> None:
        """Open an address in a new tab."""
        await self.command("session.subscribe", events=["log.entryAdded"])
        self._context = (await self.command("browsingContext.create", type="tab"))["context"]
        await self.command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    async def reload(self) -> None:
        """Load the page again."""
        await self.command("browsingContext.reload", context=self._context, wait="complete")

    async def evaluate(self, expression: str):
        """Return the value of an expression, or of its promise."""
        result = await self.command(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then((it) => JSON.stringify(it ?? null))",
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    async def wait_for(self, expression: str, seconds: float = 10.0) -> None:
        """Wait until an expression is true in the page."""
        try:
            async with asyncio.timeout(seconds):
                while not await self.evaluate(expression):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{expression} did not become true") from None

    async def wait_for_selector(self, selector: str) -> None:
        """Wait until the page has an element."""
        await self.wait_for(f"!!document.querySelector({json.dumps(selector)})")

    async def text(self, selector: str) -> str:
        """Return the text of an element."""
        return await self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")

    async def click(self, selector: str) -> None:
        """Click an element."""
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    async def write(self, selector: str, text: str) -> None:
        """Write into a field and press Enter."""
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        keys = [
            {"type": kind, "value": key}
            for key in [*text, "\ue007"]
            for kind in ("keyDown", "keyUp")
        ]
        await self.command(
            "input.performActions",
            context=self._context,
            actions=[{"type": "key", "id": "keyboard", "actions": keys}],
        )


def _has_network() -> bool:
    addresses = (each.ip for adapter in ifaddr.get_adapters() for each in adapter.ips)
    return any(not ip_address(each).is_loopback for each in addresses if isinstance(each, str))


@asynccontextmanager
async def firefox(profile: Path) -> AsyncIterator[Page]:
    """Run a headless Firefox with a fake microphone; skip the test if there is none.

    Args:
        profile: An empty folder.
    """
    if FIREFOX is None:
        pytest.skip("Firefox is not installed: apt-get install firefox-esr")
    if not _has_network():
        pytest.skip("Firefox makes no calls over the loopback address, and there is no other")
    lines = (f"user_pref({json.dumps(n)}, {json.dumps(v)});" for n, v in _PREFERENCES.items())
    (profile / "user.js").write_text("\n".join(lines))
    process = await asyncio.create_subprocess_exec(
        FIREFOX,
        "--headless",
        "--no-remote",
        "--profile",
        str(profile),
        "--remote-debugging-port=0",
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env={"HOME": str(profile), "MOZ_HEADLESS": "1", "PATH": "/usr/bin:/bin"},
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            address = None
            while address is None:
                line = await process.stderr.readline()
                assert line, "Firefox has ended"
                address = re.search(rb"WebDriver BiDi listening on (ws://\S+)", line)
        reading = asyncio.ensure_future(process.stderr.read())  # so that it never waits for us
        async with websockets.connect(
            f"{address[1].decode()}/session", max_size=None, proxy=None
        ) as socket:
            page = Page(socket)
            await page.command("session.new", capabilities={})
            yield page
        reading.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
