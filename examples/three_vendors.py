"""A pipeline of three vendors: Deepgram hears, OpenAI's text model replies, Cartesia speaks.

    python examples/three_vendors.py QUESTION.wav VOICE_ID

DEEPGRAM_API_KEY, OPENAI_API_KEY and CARTESIA_API_KEY hold the keys: `duologue doctor` looks at
them. Each service keeps one connection for the whole conversation. Deepgram finds the end of the
turn, and the model begins at its guess of it. Without arguments the hearing and the voice are
simulated on this machine, and the model always says the same. Both voices end up in
three_vendors.wav.

Another vendor is another word: `anthropic.LLM("claude-haiku-4-5")`, `elevenlabs.TTS(...)`.
"""

import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from duologue import Agent, run
from duologue.edges import wav
from duologue.events import AgentTranscriptEvent, ErrorEvent, UserTranscriptEvent
from duologue.items import Item
from duologue.pipeline.interfaces import LLM, LLMOutput, TextDelta
from duologue.providers import cartesia, deepgram, openai
from duologue.realtime.commands import ToolSpec

QUESTION = Path(__file__).parents[1] / "src/duologue/cli/clips/breakfast.flac"
INSTRUCTIONS = (
    "You are the receptionist of a small hotel. Breakfast is from seven to ten. Be brief."
)


async def talk(question: str | Path, llm: LLM, stt: deepgram.STT, tts: cartesia.TTS) -> None:
    agent = Agent(
        edge=wav.Edge(question, "three_vendors.wav"),
        llm=llm,
        stt=stt,
        tts=tts,
        instructions=INSTRUCTIONS,
    )

    @agent.events.subscribe
    def show(event: UserTranscriptEvent | AgentTranscriptEvent) -> None:
        if event.final:
            print("person:" if isinstance(event, UserTranscriptEvent) else "agent: ", event.text)

    @agent.events.subscribe
    def complain(event: ErrorEvent) -> None:
        print(f"{event.source}: {event.message}", file=sys.stderr)

    async with agent.join():
        await agent.finish()


async def main(question: str, voice: str) -> None:
    llm = openai.LLM("gpt-5-mini")
    await talk(question, llm, deepgram.STT(), cartesia.TTS(voice))
    await llm.close()


class Receptionist:
    """In place of a vendor's text model where there is no key: the simplest part of all."""

    model = "receptionist"
    tools_reliable = True

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        pass

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        for words in ("From seven ", "to ten."):
            yield TextDelta(words)


async def simulated() -> None:
    from duologue.testing import CartesiaSimulator, DeepgramSimulator

    async with (
        DeepgramSimulator(transcripts=["When is breakfast?"]) as hears,
        CartesiaSimulator() as speaks,
    ):
        stt = deepgram.STT(base_url=hears.url, api_key=hears.key)
        tts = cartesia.TTS("voice", base_url=speaks.url, api_key=speaks.key)
        await talk(QUESTION, Receptionist(), stt, tts)


if __name__ == "__main__":
    run(main(*sys.argv[1:]) if len(sys.argv) == 3 else simulated())
