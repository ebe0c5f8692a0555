"""Talk to the built-in engine by this machine's microphone and loudspeaker.

    python examples/microphone.py

Needs the extras local and mic, and on Linux the PortAudio library. `duologue doctor` says what is
missing. Ctrl-C ends it.
"""

from duologue import Agent, run
from duologue.edges import microphone
from duologue.events import AgentTranscriptEvent, UserTranscriptEvent
from duologue.providers import local


async def main() -> None:
    agent = Agent(
        edge=microphone.Edge(),  # with headphones: microphone.Edge(echo_cancellation=False)
        llm=local.Realtime("small"),
        instructions="You are a friendly voice assistant. Answer in one short spoken sentence.",
    )

    @agent.events.subscribe
    def show(event: UserTranscriptEvent | AgentTranscriptEvent) -> None:
        if event.final:
            print("you:  " if isinstance(event, UserTranscriptEvent) else "agent:", event.text)

    async with agent.join():
        agent.say("Hello, I'm listening.")
        await agent.finish()


if __name__ == "__main__":
    run(main())
