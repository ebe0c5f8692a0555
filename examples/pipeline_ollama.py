"""A text model behind an OpenAI-compatible address as the language model of a pipeline.

    ollama run llama3.2                     # or llama.cpp's server, vLLM, ...
    python examples/pipeline_ollama.py QUESTION.wav [BASE_URL] [MODEL]

Hearing and voice come from the built-in engine; its language model is not loaded.
"""

import sys
from pathlib import Path

from duologue import Agent, run
from duologue.edges import wav
from duologue.events import ErrorEvent
from duologue.providers import local, openai


async def main(
    question: str | Path,
    base_url: str = "http://127.0.0.1:11434/v1",
    model: str = "llama3.2",
) -> None:
    llm = openai.LLM(model, base_url=base_url, options={"temperature": 0.3})
    agent = Agent(
        edge=wav.Edge(question, "answer.wav"),
        llm=local.Realtime(llm=llm),
        instructions="Answer in one or two short spoken sentences, without markdown.",
    )

    @agent.events.subscribe
    def complain(event: ErrorEvent) -> None:
        print(f"{event.source}: {event.message}", file=sys.stderr)

    async with agent.join():
        await agent.finish()
    await llm.close()

    for item in agent.conversation:
        print(item)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python examples/pipeline_ollama.py QUESTION.wav [BASE_URL] [MODEL]")
    run(main(*sys.argv[1:4]))
