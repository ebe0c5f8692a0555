"""The recorded callers of the benchmarks: synthesised questions, and real people."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from duologue.audio import AudioFrame, Resampler, Samples
from duologue.providers.local import engine

RATE = 16000

QUESTIONS = (
    "What time does the swimming pool open?",
    "Can you tell me a short joke?",
    "How far is it to the railway station?",
    "I would like to know what the weather is like today.",
    "Do you have a room for two people on Friday?",
    "Who wrote the play about Romeo and Juliet?",
    "Please recommend a good book for the weekend.",
    "What is the capital of Australia?",
    "How do I make a simple tomato soup?",
    "Is breakfast included in the price?",
    "Why is the sky blue during the day?",
    "Could you explain what a black hole is?",
    "What should I wear to a wedding in the summer?",
    "Tell me something interesting about elephants.",
    "How many minutes are there in a day?",
    "Where can I park my car tonight?",
)

_LONG = """
I am planning a trip with my parents and my two children for the last week of August, and I would
like to know which town by the sea you think would suit all of us best.

My neighbour told me yesterday that the old bakery behind the church is going to close at the end
of the month, so can you tell me where else I could buy good bread around here?

We have been looking for a flat with three rooms and a balcony close to the river since last
winter, and now I wonder whether we should rather buy a small house outside of the city.

When I was a student I used to play the piano every single evening before I went to bed, and now
that I have a little more time again I would like to know how to begin once more.

The garden behind our house gets a lot of sun in the morning but hardly any in the afternoon, so
please tell me which vegetables would grow there without too much work.

I have to give a short speech at the wedding of my best friend in two weeks from now, and although
I know her very well I have no idea at all how I should begin.

Because the train was late again this morning I missed the meeting with our customer, and now I
need a polite way to explain to them what happened and to ask for another date.

Could you explain to me in simple words why the days are so much longer in the summer than in the
winter, and why the weather is still warmest only some weeks after the longest day?
"""

LONG_SENTENCES = tuple(" ".join(text.split()) for text in _LONG.split("\n\n"))
"""Questions without a pause, 8 to 12 s each."""

REAL_SHORT = ("austen-0930", "cards-1")
"""Complete utterances of real people, 1 to 3 s each."""

REAL_UNFINISHED = ("austen-0880", "cards-3", "cards-5")
"""Utterances of real people that end with the voice of a comma, 2 to 4 s each."""

REAL_LONG = ("austen-0870", "austen-0880+austen-0890", "austen-0920+austen-0930", "jfk")
"""Sentences of real people, 7 to 11 s each; those joined by + follow each other in the book."""

INTERRUPTIONS = (
    "Wait, stop for a second.",
    "Actually, never mind about that.",
    "Hold on, I have another question.",
    "No, that is not what I meant.",
    "Sorry, could you say that again?",
)

SPEECH = Path(__file__).parent.parent / "tests" / "data" / "speech"


async def synthesise(text: str) -> AudioFrame:
    """Return a spoken sentence at 16 kHz, without silence around it."""
    tts = engine.load_tts()
    parts = [frame.samples async for frame in tts.synthesize(text)]
    resampler = Resampler(tts.rate, RATE)
    samples = np.concatenate((resampler.push(np.concatenate(parts)), resampler.flush()))
    return AudioFrame(trim(samples), RATE)


def trim(samples: Samples, level: int = 300) -> Samples:
    """Remove the silence before and after."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > level)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def recorded(name: str) -> AudioFrame:
    """Return a clip of a real person, or several one after the other ("a+b")."""
    parts = []
    for part in name.split("+"):
        with wave.open(str(SPEECH / f"{part}.wav")) as file:
            assert file.getframerate() == RATE
            parts.append(np.frombuffer(file.readframes(file.getnframes()), np.int16))
    return AudioFrame(np.concatenate(parts), RATE)


def stretches(
    samples: Samples, rate: int, *, level: int = 300, gap_s: float = 0.4
) -> list[tuple[int, int]]:
    """Return where there is audio: start and end samples, joined across gaps below ``gap_s``."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > level)
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > gap_s * rate)
    begins = [loud[0], *loud[breaks + 1]]
    ends = [*loud[breaks], loud[-1]]
    return [(int(begin), int(end) + 1) for begin, end in zip(begins, ends, strict=True)]
