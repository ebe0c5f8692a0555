"""How soon both voices are back after a page has lost its network, in headless Chromium.

``python -m benchmarks.reconnect`` breaks each of three things ten times, under a call that speaks
both ways all the time: the WebSocket (a proxy resets it), the address (the WebRTC connection and
the TCP connection swallow everything, as after a change of networks, and only new ones get
through), and the page itself (it is loaded again). The person's voice is back when the server has
its next packet, the agent's when the page reports to have played more.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.figures import Figure, give, median
from broken_network import RoutedSignalling, TcpProxy, tcp_proxy
from duologue.audio import AudioFrame
from duologue.clock import LoopClock
from duologue.edges.webrtc import CallEdge
from duologue.server import CallSignalling, ServerConfig, create_call_app, serve_app
from duologue.ticker import ticker_for
from duologue.video import VideoFrame

if TYPE_CHECKING:
    from playwright.async_api import Page

    from duologue.testing.network import BadNetwork

TIMES = 10
SETTLE_S = 1.5
GIVE_UP_S = 15.0
FLAGS = (
    "--no-sandbox",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--allow-loopback-in-peer-connection",
)


class Scene:
    """Calls whose agent is a tone; knows when it last heard of the person and of the ear."""

    wants_video = False
    is_idle = True

    def __init__(self, stack: AsyncExitStack) -> None:
        self.networks: list[BadNetwork] = []
        self.signalling: CallSignalling | None = None
        self.calls = 0
        self.heard: list[float] = []
        self.played: list[float] = []
        self._stack = stack
        tone = np.sin(np.arange(480) * 2 * np.pi * 300 / 24000) * 8000
        self._tone = AudioFrame(tone.astype(np.int16), 24000)

    async def __call__(self, signalling: CallSignalling) -> None:
        self.calls += 1
        self.signalling = signalling
        routed = RoutedSignalling(signalling, self.networks, self._stack)
        edge = CallEdge(routed, loopback=True, keep_s=signalling.keep_s)
        ticks = ticker_for(LoopClock()).subscribe(lambda now: edge.play(self._tone))
        try:
            await edge.run(self, lambda: None)
        finally:
            ticks.cancel()

    def push_audio(self, frame: AudioFrame) -> None:
        self.heard.append(time.perf_counter())

    def push_video(self, make_frame: Callable[[], VideoFrame]) -> None:
        pass

    def push_text(self, text: str) -> None:
        pass

    def push_digit(self, digit: str) -> None:
        pass

    def report_played(self, samples: int) -> None:
        self.played.append(time.perf_counter())

    def connection_lost(self) -> None:
        pass

    def connection_restored(self) -> None:
        pass

    async def wait_until_listening(self) -> None:
        pass


def longest_gap(times: list[float], since: float) -> float:
    """Return the longest time between two moments, from shortly before ``since``."""
    later = [at for at in times if at > since - 0.5]
    return max(
        (after - before for before, after in itertools.pairwise(later)),
        default=GIVE_UP_S,
    )


async def voices_back(scene: Scene, since: float, quiet_s: float) -> float:
    """Return the seconds from ``since`` until both voices go on after a silence."""
    async with asyncio.timeout(GIVE_UP_S):
        while True:
            await asyncio.sleep(0.01)
            back = []
            for times in (scene.heard, scene.played):
                later = [at for at in times if at > since - 0.5]
                gaps = [
                    after
                    for before, after in itertools.pairwise(later)
                    if after - before > quiet_s and after > since
                ]
                back += gaps[:1]
            if len(back) == 2:
                return max(back) - since


async def lose_socket(scene: Scene, proxy: TcpProxy, page: Page) -> tuple[float, float]:
    """Break the socket; return the seconds until the next one, and the longest gap of a voice."""
    call = scene.signalling
    sockets = call.sockets  # type: ignore[union-attr]
    since = time.perf_counter()
    proxy.cut()
    async with asyncio.timeout(GIVE_UP_S):
        while call.sockets == sockets:  # type: ignore[union-attr]
            await asyncio.sleep(0.005)
    back = time.perf_counter() - since
    await asyncio.sleep(1.0)
    return back, max(longest_gap(scene.heard, since), longest_gap(scene.played, since))


async def change_address(scene: Scene, proxy: TcpProxy, page: Page) -> tuple[float, float]:
    """Swallow what the connections of now carry; return the seconds until both voices are back."""
    since = time.perf_counter()
    for network in scene.networks:
        network.cut = True
    proxy.swallow()
    back = await voices_back(scene, since, 0.3)
    return back, back


async def load_again(scene: Scene, proxy: TcpProxy, page: Page) -> tuple[float, float]:
    """Load the page again; return the seconds until both voices are back."""
    since = time.perf_counter()
    await page.reload()
    back = await voices_back(scene, since, 0.3)
    return back, back


type Break = Callable[[Scene, TcpProxy, "Page"], Awaitable[tuple[float, float]]]


async def measure(scene: Scene, proxy: TcpProxy, page: Page, break_it: Break) -> list[float]:
    """Break one thing again and again; return the longest times of both kinds."""
    backs, gaps = [], []
    for _ in range(TIMES):
        await asyncio.sleep(SETTLE_S)
        back, gap = await break_it(scene, proxy, page)
        backs.append(back)
        gaps.append(gap)
    return [median(backs), max(backs), max(gaps)]


async def main() -> None:
    from playwright.async_api import async_playwright

    config = ServerConfig(port=0, max_tick_delay_ms=None)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with AsyncExitStack() as stack:
        scene = Scene(stack)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        app = create_call_app(scene, config)
        serving = tasks.create_task(serve_app(app, config, ready=ready.set_result, signals=False))
        port = int((await ready).rsplit(":", 1)[1].strip("/"))
        proxy = await stack.enter_async_context(tcp_proxy(port))
        driver = await stack.enter_async_context(async_playwright())
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = await driver.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            page = await browser.new_page()
            await page.goto(f"http://localhost:{proxy.port}/")
            await page.click("#talk")
            await page.wait_for_selector('body[data-call="live"]')
            socket = await measure(scene, proxy, page, lose_socket)
            address = await measure(scene, proxy, page, change_address)
            again = await measure(scene, proxy, page, load_again)
        finally:
            await browser.close()
            serving.cancel()
        one_call = scene.calls == 1
    note = f"{TIMES} times each, one call" if one_call else f"{scene.calls} calls instead of one"
    figures = [
        Figure(
            "reconnect of a call: socket lost, signalling back",
            "<= 1.5 s",
            f"median {socket[0]:.2f} s, longest {socket[1]:.2f} s",
            reached=socket[1] <= 1.5 and one_call,
            note=f"{note}; longest gap of a voice {socket[2]:.2f} s",
        )
    ]
    for name, found in (("address changed", address), ("page loaded again", again)):
        figures.append(
            Figure(
                f"reconnect of a call: {name}, both voices back",
                "<= 3 s",
                f"median {found[0]:.2f} s, longest {found[1]:.2f} s",
                reached=found[1] <= 3 and one_call,
                note=note,
            )
        )
    give(figures)


if __name__ == "__main__":
    asyncio.run(main())
