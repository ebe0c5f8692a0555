"""The page in Debian's Firefox: a call, a conversation, and its end."""

import numpy as np
import pytest
from firefox import firefox
from server_fixture import serving, until

from duologue import Agent, Processor
from duologue.hosting import create_app
from duologue.server import ServerConfig
from duologue.testing import Reply, ScriptedRealtime

pytestmark = pytest.mark.browser

LONG = "This answer is a long one and it goes on for quite a while without any end in sight."


class Loudness(Processor):
    """Keeps the loudest sample of the last frame."""

    def __init__(self):
        self.last = 0

    def audio(self, frame):
        self.last = int(np.abs(frame.samples.astype(int)).max(initial=0))
        # Returns nothing, because the fake microphone is a tone without end.


async def test_a_person_talks_in_firefox(tmp_path):
    loudness = Loudness()
    agents = []

    def make_agent(edge):
        model = ScriptedRealtime([Reply(LONG, seconds=8.0), "Short."])
        agents.append(Agent(edge=edge, llm=model, processors=[loudness]))
        return agents[-1]

    config = ServerConfig(port=0, max_tick_delay_ms=None)
    async with (
        serving(create_app(make_agent, config), config) as server,
        firefox(tmp_path) as page,
    ):
        await page.open(server.url)
        await page.click("#talk")
        await page.wait_for_selector('body[data-call="live"]')
        (agent,) = agents
        await until(lambda: loudness.last > 1000, 5)
        await page.write("#text", "tell me")
        await page.wait_for_selector('body[data-turn="agent"]')
        assert LONG in await page.text(".agent .words")
        await page.wait_for("document.querySelector('.agent .words').firstChild.data.length > 10")
        assert agent.edge.quality == "confirmed"
        await page.write("#text", "stop")
        await page.wait_for_selector("s")
        heard = await page.evaluate("document.querySelector('.agent .words').firstChild.data")
        cut = next(item for item in agent.conversation.items if getattr(item, "played_ms", None))
        assert cut.text == heard.strip()
        assert 300 < cut.played_ms < 7000
        assert agent.edge.counters["reports_ignored"] == 0
        await page.wait_for("document.body.textContent.includes('Short.')")
        # A page that is loaded again takes up its call.
        await page.reload()
        await page.wait_for_selector('body[data-call="live"]')
        await page.wait_for("document.body.textContent.includes('Short.')")
        assert len(agents) == 1
        loudness.last = 0
        await until(lambda: loudness.last > 1000, 5)
        await page.click("#mute")
        await until(lambda: loudness.last == 0)
        await page.click("#talk")
        await until(lambda: server.calls.sessions == 0)
        assert page.complaints == []
