"""A person's voice in a real Chromium, the built-in engine, and what the page shows."""

import os
import wave

import numpy as np
import pytest
import pytest_asyncio
from page import chromium, open_page, talk
from server_fixture import serving

from duologue.agent.agent import Agent, User
from duologue.audio import Resampler
from duologue.hosting import create_app
from duologue.items import AgentItem
from duologue.providers import local
from duologue.server import ServerConfig

pytestmark = [
    pytest.mark.browser,
    pytest.mark.weights,
    pytest.mark.asyncio(loop_scope="module"),
]

PROFILE = os.environ.get("DUOLOGUE_TEST_PROFILE", "tiny")
SCREENSHOT = os.environ.get("DUOLOGUE_SCREENSHOT")
"""Where to write the image for the documentation; None writes none."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def voice(weights, tmp_path_factory):
    """Speak a question, interrupt some seconds into the reply, and stay silent.

    The engine is loaded before anybody calls, as `duologue serve` does, because Chromium's
    microphone already runs by then and would speak the interruption before the first reply has
    begun.
    """
    from duologue.providers.local import engine

    loaded = await engine.load(PROFILE)
    await loaded.llm.prepare("You are Ada, a friendly storyteller.", [])

    async def spoken(text):
        tts = engine.load_tts()
        parts = [frame.samples async for frame in tts.synthesize(text)]
        resampler = Resampler(tts.rate, 48000)
        return np.concatenate((resampler.push(np.concatenate(parts)), resampler.flush()))

    def silence(seconds):
        return np.zeros(int(48000 * seconds), np.int16)

    samples = np.concatenate(
        (
            silence(2.0),
            await spoken("Please tell me a long story about a dog and a cat."),
            silence(4.0),
            await spoken("No, wait, tell me what is the capital of France."),
            silence(30.0),
        )
    )
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(samples.tobytes())
    return path


async def test_a_voice_in_the_browser_interrupts_the_engine(voice):
    agents = []

    def make(edge):
        agents.append(
            Agent(
                edge=edge,
                llm=local.Realtime(PROFILE),
                agent_user=User("Ada", "ada"),
                instructions="You are Ada, a friendly storyteller.",
            )
        )
        return agents[-1]

    config = ServerConfig(port=0, max_tick_delay_ms=None)
    async with (
        chromium(voice) as browser,
        serving(create_app(make, config), config) as server,
        open_page(browser, server.url, viewport={"width": 1000, "height": 700}) as page,
    ):
        await talk(page)
        await page.wait_for_selector("text=capital of France", timeout=30000)
        await page.locator(".agent .words").nth(1).wait_for(timeout=15000)
        await page.wait_for_timeout(1500)
        if SCREENSHOT:
            await page.screenshot(path=SCREENSHOT)
        shown = await page.inner_text("body")
        struck = await page.locator("s").all_inner_texts()
        [agent] = agents
        said = [item for item in agent.conversation if isinstance(item, AgentItem)]
        assert "long story about a dog" in shown
        assert "capital of France" in shown
        assert "".join(struck).strip()
        assert said[0].state == "cut"
        assert said[0].played_ms > 300
        assert said[0].text in shown
        assert agent.llm.epoch >= 1
