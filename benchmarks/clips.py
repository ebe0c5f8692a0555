"""What the recorded callers of the benchmarks say: synthesised questions, and real people."""

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

INTERRUPTIONS = (
    "Wait, stop for a second.",
    "Actually, never mind about that.",
    "Hold on, I have another question.",
    "No, that is not what I meant.",
    "Sorry, could you say that again?",
)

SPEECH = Path(__file__).parent.parent / "tests" / "data" / "speech"


async def synthesise(text: str) -> AudioFrame:
    """A sentence as a caller says it, at 16 kHz, without silence around it."""
    tts = engine.load_tts()
    parts = [frame.samples async for frame in tts.synthesize(text)]
    resampler = Resampler(tts.rate, RATE)
    samples = np.concatenate((resampler.push(np.concatenate(parts)), resampler.flush()))
    return AudioFrame(trim(samples), RATE)


def trim(samples: Samples, level: int = 300) -> Samples:
    """Without the silence before and after."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > level)
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def recorded(name: str) -> AudioFrame:
    """A clip of a real person."""
    with wave.open(str(SPEECH / f"{name}.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return AudioFrame(samples, file.getframerate())


def stretches(
    samples: Samples, rate: int, *, level: int = 300, gap_s: float = 0.4
) -> list[tuple[int, int]]:
    """Where there is sound: begin and end samples, joined over gaps shorter than ``gap_s``."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > level)
    if not len(loud):
        return []
    breaks = np.flatnonzero(np.diff(loud) > gap_s * rate)
    begins = [loud[0], *loud[breaks + 1]]
    ends = [*loud[breaks], loud[-1]]
    return [(int(begin), int(end) + 1) for begin, end in zip(begins, ends, strict=True)]
