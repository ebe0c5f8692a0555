"""A model that hears, and a voice of your choice: OpenAI answers in text, ElevenLabs speaks it.

    python examples/half_cascade.py QUESTION.wav VOICE_ID

OPENAI_API_KEY and ELEVENLABS_API_KEY hold the keys. Without arguments, both services are simulated
on this machine. Both voices end up in half_cascade.wav.
"""

import sys
from pathlib import Path

from duologue import Agent, run
from duologue.edges import wav
from duologue.events import AgentTranscriptEvent, UserTranscriptEvent
from duologue.providers import elevenlabs, openai

QUESTION = Path(__file__).parents[1] / "src/duologue/cli/clips/breakfast.flac"


async def talk(question: str | Path, model: openai.Realtime, voice: elevenlabs.TTS) -> None:
    agent = Agent(edge=wav.Edge(question, "half_cascade.wav"), llm=model, tts=voice)

    @agent.events.subscribe
    def show(event: UserTranscriptEvent | AgentTranscriptEvent) -> None:
        if event.final:
            print("person:" if isinstance(event, UserTranscriptEvent) else "agent: ", event.text)

    async with agent.join():
        await agent.finish()


async def main(question: str, voice: str) -> None:
    await talk(question, openai.Realtime(output="text"), elevenlabs.TTS(voice))


async def simulated() -> None:
    from duologue.testing import ElevenLabsSimulator, OpenAISimulator

    openai_service = OpenAISimulator(
        replies=["From seven to ten."], transcripts=["When is breakfast?"]
    )
    async with openai_service as hears, ElevenLabsSimulator() as speaks:
        model = openai.Realtime(output="text", base_url=hears.url, api_key=hears.key)
        await talk(QUESTION, model, elevenlabs.TTS("v", base_url=speaks.url, api_key=speaks.key))


if __name__ == "__main__":
    run(main(*sys.argv[1:]) if len(sys.argv) == 3 else simulated())
