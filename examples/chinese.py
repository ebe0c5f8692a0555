"""A pipeline whose language is Chinese: ElevenLabs hears, Qwen replies, Cartesia speaks.

    python examples/chinese.py QUESTION.wav VOICE_ID

ELEVENLABS_API_KEY, DASHSCOPE_API_KEY and CARTESIA_API_KEY hold the keys; the voice must be one that
speaks Chinese. Without arguments the hearing and the voice are simulated on this machine, and the
model always says the same. Both voices end up in chinese.wav.

What to know for a language other than English:

* Name the language to the recogniser and to the voice, so that they need not guess it.
* The recogniser of the built-in engine, its voice, and its rule for unfinished sentences know only
  English. Here silence ends a turn, a little later than by default, for a pause within a sentence.
* Text has no spaces: what was heard of a reply that is cut is counted by the character.
"""

import os
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from duologue import Agent, Endpointing, run
from duologue.edges import wav
from duologue.events import AgentTranscriptEvent, ErrorEvent, UserTranscriptEvent
from duologue.items import Item
from duologue.pipeline.interfaces import LLM, LLMOutput, TextDelta
from duologue.pipeline.pipeline import Pipeline
from duologue.providers import cartesia, elevenlabs, openai
from duologue.realtime.commands import ToolSpec
from duologue.vad.earshot import EarshotVAD

QUESTION = Path(__file__).parents[1] / "src/duologue/cli/clips/breakfast.flac"
QWEN = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
INSTRUCTIONS = "你是一家小旅馆的接待员。早餐时间是七点到十点。请用一句简短的口语回答。"


async def talk(question: str | Path, llm: LLM, stt: elevenlabs.STT, tts: cartesia.TTS) -> None:
    model = Pipeline(
        llm=llm,
        stt=stt,
        tts=tts,
        vad=EarshotVAD(),
        endpointing=Endpointing(vote_s=0.5),
    )
    edge = wav.Edge(question, "chinese.wav")
    agent = Agent(edge=edge, llm=model, instructions=INSTRUCTIONS)

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
    llm = openai.LLM("qwen-plus", base_url=QWEN, api_key=os.environ["DASHSCOPE_API_KEY"])
    stt = elevenlabs.STT(language="zh")
    await talk(question, llm, stt, cartesia.TTS(voice, language="zh"))
    await llm.close()


class Receptionist:
    """In place of the text model where there is no key."""

    model = "receptionist"
    tools_reliable = True

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None:
        pass

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        for words in ("早餐从七点", "到十点。", "欢迎您来。"):
            yield TextDelta(words)


async def simulated() -> None:
    from duologue.testing import CartesiaSimulator, ElevenLabsSimulator

    async with (
        # One transcript for each commit: the pipeline commits at every pause of the question.
        ElevenLabsSimulator(transcripts=["早餐几点开始", ""]) as hears,
        CartesiaSimulator() as speaks,
    ):
        stt = elevenlabs.STT(language="zh", base_url=hears.url, api_key=hears.key)
        tts = cartesia.TTS("voice", language="zh", base_url=speaks.url, api_key=speaks.key)
        await talk(QUESTION, Receptionist(), stt, tts)


if __name__ == "__main__":
    run(main(*sys.argv[1:]) if len(sys.argv) == 3 else simulated())
