"""Check the engine's replies to the demo's recorded caller: ``python -m benchmarks.demo [N]``.

In each of the N conversations the caller has another level and another background noise, and
interrupts the reply at another moment, so that they differ. They run in virtual time.
"""

from __future__ import annotations

import random
import sys

import numpy as np

from benchmarks.figures import Figure, give
from duologue import Agent
from duologue.audio import AudioFrame
from duologue.cli.demo import GREETING, INSTRUCTIONS, clip, recorded_caller
from duologue.cli.options import make_realtime
from duologue.cli.run import converse
from duologue.events import AgentTranscriptEvent, InterruptionEvent, UserTranscriptEvent
from duologue.testing import run_virtual

RIGHT = (
    ("seven to ten",),
    ("blue door", "small house", "harbour"),
    ("ninety", "90"),
    ("behind the house",),
)
"""Words of which each reply must contain one, in the order of the questions."""


def conversation(number: int, profile: str) -> tuple[list[bool], str]:
    """Return which replies were right, the interrupted one last, and all texts."""
    chance = random.Random(number)  # noqa: S311
    loudness, noise = 10 ** chance.uniform(-0.6, 0.0), 10 ** chance.uniform(0.0, 1.7)
    noises = np.random.default_rng(number)

    def changed(name: str) -> AudioFrame:
        frame = clip(name)
        louder = frame.samples * loudness + noises.normal(0, noise, len(frame))
        return AudioFrame(np.clip(louder, -32768, 32767).astype(np.int16), frame.rate)

    edge = recorded_caller(None, changed, chance.uniform(0.8, 2.2))
    llm = make_realtime(profile, offline=False)
    agent = Agent(edge=edge, llm=llm, instructions=INSTRUCTIONS)
    events = run_virtual(converse(agent, echo=False, say=GREETING, measured=False)).events
    said = [e.text for _, e in events if isinstance(e, AgentTranscriptEvent) and e.final][1:]
    cut = any(isinstance(e, InterruptionEvent) and e.played_ms for _, e in events)
    right = [
        any(word in answer.lower() for word in words)
        for words, answer in zip(RIGHT, said, strict=False)
    ]
    right += [False] * (len(RIGHT) - len(right))
    asked = [e.text for _, e in events if isinstance(e, UserTranscriptEvent) and e.final]
    return [*right, cut and len(said) == len(RIGHT)], " | ".join([*asked, "->", *said])


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    profile = sys.argv[2] if len(sys.argv) > 2 else "small"
    good = 0
    for number in range(count):
        right, words = conversation(number, profile)
        good += all(right)
        sys.stderr.write(f"{number} {right} {words}\n")
    give(
        [
            Figure(
                f"conversations of the demo in which `{profile}` answers all four questions right",
                f"{count} of {count}",
                f"{good} of {count}",
                good == count,
                "the caller's loudness, the noise and the moment of the interruption differ",
            )
        ]
    )


if __name__ == "__main__":
    main()
