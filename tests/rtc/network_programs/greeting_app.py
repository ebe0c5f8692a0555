"""An app whose agent greets each caller, for tests that run `duologue serve`."""

from duologue import Agent
from duologue.testing import Reply, ScriptedRealtime


async def make_agent(edge) -> None:
    agent = Agent(edge=edge, llm=ScriptedRealtime([Reply("Hello.", seconds=5.0)]))
    async with agent.join():
        agent.say("Hello.")
        await agent.finish()
