"""Two conversations with one history: the second model knows what was said in the first.

    python examples/history.py [FILE.jsonl]

Run it again and the history continues: a `JsonlStore` keeps it in a file.
"""

import sys
from pathlib import Path

from duologue import Agent, AudioFrame, Conversation, JsonlStore
from duologue.edges import wav
from duologue.testing import ScriptedRealtime, run_virtual


async def talk(file: Path, question: str, answer: str) -> int:
    """One conversation; returns how many items the model began with."""
    conversation = Conversation(JsonlStore(file))
    known = len(conversation)
    edge = wav.Edge(AudioFrame.silence(0.1, 16000))
    agent = Agent(edge=edge, llm=ScriptedRealtime([answer]), conversation=conversation)
    async with agent.join():
        await agent.simple_response(question)
    return known


async def main(file: Path = Path("history.jsonl")) -> None:
    known = await talk(file, "My name is Robin.", "Hello Robin.")
    print(f"the first conversation began with {known} items")
    known = await talk(file, "What is my name?", "You are Robin.")
    print(f"the second began with {known} items")
    for item in Conversation(JsonlStore(file)):
        print(item)


if __name__ == "__main__":
    run_virtual(main(*map(Path, sys.argv[1:2])))
