"""An agent tested without a model and without waiting: a script answers, in virtual time.

    python examples/scripted_agent.py

Eight seconds of conversation take some milliseconds. The function `test_greets_and_answers` is
what a test of yours looks like.
"""

import numpy as np

from duologue import Agent, AudioFrame
from duologue.edges import wav
from duologue.items import AgentItem, UserItem
from duologue.realtime.commands import Say
from duologue.testing import ScriptedRealtime, virtual_time


def a_voice(seconds: float, rate: int = 16000) -> AudioFrame:
    """A tone: the scripted model hears turns by loudness, and its script says what they meant."""
    at = np.arange(int(seconds * rate))
    return AudioFrame((8000 * np.sin(2 * np.pi * 300 / rate * at)).astype(np.int16), rate)


async def converse(agent: Agent) -> None:
    """The part that is yours: greet, then talk until the person has left."""
    async with agent.join():
        await agent.say("Good morning.")
        await agent.finish()


@virtual_time
async def test_greets_and_answers() -> None:
    model = ScriptedRealtime(
        ["Breakfast is from seven to ten."], transcripts=["When is breakfast?"]
    )
    person = wav.Edge(a_voice(1.2), wait_for_greeting=True)
    agent = Agent(edge=person, llm=model)

    await converse(agent)

    said = [
        (type(item), item.text)
        for item in agent.conversation
        if isinstance(item, UserItem | AgentItem)
    ]
    assert said == [
        (AgentItem, "Good morning."),
        (UserItem, "When is breakfast?"),
        (AgentItem, "Breakfast is from seven to ten."),
    ]
    assert [command.text for command in model.commands if isinstance(command, Say)] == [
        "Good morning."
    ]
    for item in agent.conversation:
        print(item)


if __name__ == "__main__":
    test_greets_and_answers()
