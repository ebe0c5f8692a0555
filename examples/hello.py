"""A recorded question, answered by the built-in engine: no key, no account.

    python examples/hello.py [QUESTION.wav [PROFILE]]

The first run fetches the weights: 640 MB for the profile small, 254 MB for tiny, which talks
nonsense more often. Both voices end up in hello.wav.
"""

import sys
from pathlib import Path

from duologue import Agent, run
from duologue.edges import wav
from duologue.events import AgentTranscriptEvent, TurnMetricsEvent, UserTranscriptEvent
from duologue.providers import local

QUESTION = Path(__file__).parents[1] / "src/duologue/cli/clips/breakfast.flac"


async def main(question: str | Path = QUESTION, profile: str = "small") -> None:
    agent = Agent(
        edge=wav.Edge(question, "hello.wav"),
        llm=local.Realtime(profile),
        instructions="You are the receptionist of a small hotel. Breakfast is from seven to ten.",
    )

    @agent.events.subscribe
    def show(event: UserTranscriptEvent | AgentTranscriptEvent) -> None:
        if event.final:
            print("person:" if isinstance(event, UserTranscriptEvent) else "agent: ", event.text)

    @agent.events.subscribe
    def time(event: TurnMetricsEvent) -> None:
        print(f"        first sound {event.first_played_ms:.0f} ms after the end of speech")

    async with agent.join():
        await agent.finish()


if __name__ == "__main__":
    run(main(*sys.argv[1:3]))
