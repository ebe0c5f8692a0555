"""A running `SIP` whose agents follow a script, for tests of calls."""

import asyncio
from contextlib import asynccontextmanager

import numpy as np

from duologue import Agent
from duologue.edges import telephone
from duologue.edges._agent_calls import limiter_of
from duologue.hosting import create_app
from duologue.server import ServerConfig
from duologue.testing import ScriptedRealtime

TONE = np.tile(np.repeat([8000, -8000], 20), 80).astype(np.int16)
"""0.4 s at 8 kHz."""


class Desk:
    """A running `SIP`, and what its calls did."""

    def __init__(self, sip, script=(), conduct=None):
        self.sip = sip
        self.script = list(script)
        self.conduct = conduct
        self.edges = []
        self.agents = []
        self.events = []
        self.failures = []
        self._tasks = []

    def make_agent(self, edge):
        return self.adopt(Agent(edge=edge, llm=ScriptedRealtime(list(self.script))))

    def adopt(self, agent):
        """Watch an agent, and conduct its call."""
        agent.events.tap(self.events.append)
        self.edges.append(agent.edge)
        self.agents.append(agent)
        if self.conduct is not None:
            self._tasks.append(asyncio.ensure_future(self._conduct(agent)))
        return agent

    async def _conduct(self, agent):
        await until(lambda: agent._live is not None and agent._live.person_joined.is_set())
        await agent.llm.ready()
        await self.conduct(agent)

    @property
    def address(self):
        return f"sip:+15550001111@{self.sip.listening}"

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def serving(script=(), conduct=None, *, max_calls=4, sip=None, **options):
    sip = sip or telephone.SIP("sip:bot@127.0.0.1", **{"listen": "127.0.0.1:0"} | options)
    desk = Desk(sip, script, conduct)
    # A busy machine must not refuse a call of a test.
    config = ServerConfig(max_sessions=max_calls, max_tick_delay_ms=None)
    async with sip.running(desk.make_agent, limiter_of(create_app(desk.make_agent, config), None)):
        yield desk
        await asyncio.gather(*desk._tasks)


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
