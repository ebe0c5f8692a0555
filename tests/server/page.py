"""The page in a real Chromium, and a call handler that plays the agent's part."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from duologue.audio import AudioFrame
from duologue.clock import LoopClock
from duologue.edges.webrtc import CallEdge
from duologue.events import Event
from duologue.events.json import event_to_json
from duologue.ticker import ticker_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SPEECH = Path(__file__).parents[1] / "data" / "speech"

_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => violations.push(e.violatedDirective));
"""


class CallScene:
    """A call handler with a real WebRTC call, a tone as the agent's voice, and events on demand."""

    wants_video = True

    def __init__(self) -> None:
        self.calls = 0
        self.edge: CallEdge | None = None
        self.live = asyncio.Event()
        self.texts: list[str] = []
        self.received_samples = 0
        self.loudness = 0.0
        self.played_samples = 0
        self.video_frames = 0
        self.is_idle = True
        tone = np.sin(np.arange(480) * 2 * np.pi * 300 / 24000) * 8000
        self._tone = AudioFrame(tone.astype(np.int16), 24000)
        self.silent = False
        self.outages = 0

    async def __call__(self, signalling) -> None:
        self.calls += 1
        self.edge = edge = CallEdge(signalling, loopback=True, keep_s=signalling.keep_s)
        ticks = ticker_for(LoopClock()).subscribe(
            lambda now: edge.play(None if self.silent else self._tone)
        )
        try:
            await edge.run(self, self.live.set)
        finally:
            ticks.cancel()
            self.live.clear()

    def send_events(self, *events: Event) -> None:
        assert self.edge is not None
        for event in events:
            self.edge.send_event(event_to_json(event))

    def push_audio(self, frame: AudioFrame) -> None:
        self.received_samples += len(frame)
        self.loudness = float(np.abs(frame.samples.astype(float)).max(initial=0))

    def push_video(self, frame) -> None:
        self.video_frames += 1

    def push_text(self, text: str) -> None:
        self.texts.append(text)

    def report_played(self, samples: int) -> None:
        self.played_samples = samples

    def connection_lost(self) -> None:
        self.outages += 1

    def connection_restored(self) -> None:
        pass


@asynccontextmanager
async def chromium(voice: Path | None = None) -> AsyncIterator:
    """Run a headless browser with a fake microphone; skip the test if there is no browser."""
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    flags = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        "--allow-loopback-in-peer-connection",
    ]
    if voice is not None:
        flags.append(f"--use-file-for-fake-audio-capture={voice}%noloop")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def open_page(browser, url: str, script: str = "", **options) -> AsyncIterator:
    """Open a page in a context of its own; console errors of the page fail the test."""
    context = await browser.new_context(**options)
    await context.add_init_script(_WATCH + script)
    page = await context.new_page()
    page.set_default_timeout(8000)
    page.complaints = []
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on(
        "console",
        lambda said: page.complaints.append(said.text) if said.type == "error" else None,
    )
    await page.goto(url)
    try:
        yield page
        assert page.complaints == []
        assert await page.evaluate("violations") == []
    finally:
        await context.close()


async def talk(page, stage: CallScene | None = None) -> None:
    """Press Talk and wait until the call is connected on both sides."""
    await page.click("#talk")
    await page.wait_for_selector('body[data-call="live"]')
    if stage is not None:
        await asyncio.wait_for(stage.live.wait(), 5)
