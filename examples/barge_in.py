"""A person coughs into one answer and interrupts the next: what was heard of each.

    python examples/barge_in.py

A cough holds the agent's voice for a moment; a sentence ends it. The history keeps only what
was heard. A script is the model and time is virtual, so it is over at once.
"""

import asyncio

import numpy as np

from duologue import Agent, AudioFrame, BargeInPolicy
from duologue.edges import wav
from duologue.events import InterruptionEvent, SpeechHeldEvent, SpeechResumedEvent
from duologue.testing import ScriptedRealtime, run_virtual


def voice(seconds: float, rate: int = 16000) -> AudioFrame:
    at = np.arange(int(seconds * rate))
    return AudioFrame((8000 * np.sin(2 * np.pi * 300 / rate * at)).astype(np.int16), rate)


async def main() -> None:
    model = ScriptedRealtime(
        [
            "We have twelve rooms, a garden, and a library with a fireplace.",
            "Guests park behind the house, and the gate is open from six in the morning.",
            "A double room is ninety euros.",
        ],
        # "": a turn without words, which is what a cough is.
        transcripts=["Tell me about the hotel.", "", "Where can I park?", "And what is a room?"],
    )
    edge = wav.Edge(
        [voice(1.0), voice(1.0)],
        interjections=[
            wav.Interjection(voice(0.15), after_agent_speech_s=1.5),
            wav.Interjection(voice(1.0), after_agent_speech_s=2.0, after_clips=2),
        ],
    )
    policy = BargeInPolicy(min_speech_s=0.2, words_within_s=0.6)
    agent = Agent(edge=edge, llm=model, barge_in=policy)

    @agent.events.subscribe
    async def show(event: SpeechHeldEvent | SpeechResumedEvent | InterruptionEvent) -> None:
        now = asyncio.get_running_loop().time()
        match event:
            case SpeechHeldEvent():
                print(f"{now:6.2f} s  held: the person may be speaking")
            case SpeechResumedEvent():
                print(f"{now:6.2f} s  resumed after {event.held_ms} ms: it was nothing")
            case InterruptionEvent():
                print(f"{now:6.2f} s  interrupted after {event.played_ms} ms ({event.quality})")
                print(f"          heard: {event.heard_text!r}")

    async with agent.join():
        await agent.finish()

    for item in agent.conversation:
        print(item)


if __name__ == "__main__":
    run_virtual(main())
