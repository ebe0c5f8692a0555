"""The built-in engine: its response time, how soon it falls silent, and its word errors."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.corpus import (
    INTERRUPTIONS,
    LONG_SENTENCES,
    QUESTIONS,
    REAL_LONG,
    REAL_SHORT,
    REAL_UNFINISHED,
    recorded,
    stretches,
    synthesise,
)
from benchmarks.figures import Figure, give, median, percentile
from duologue.agent.agent import Agent
from duologue.audio import AudioFrame, Samples
from duologue.edges import wav
from duologue.events import (
    AgentTurnStartedEvent,
    Event,
    InterruptionEvent,
    SpeechHeldEvent,
    TurnMetricsEvent,
    UserTranscriptEvent,
    UserTurnEndedEvent,
    UserTurnStartedEvent,
)
from duologue.providers.local._realtime import Realtime
from duologue.vad.words import plain_words

MARK = 3
"""Accuracy in ms with which events and recording are aligned."""
INSTRUCTIONS = (
    "You are Ava, a friendly voice assistant. You speak with the person over the phone. "
    "Answer in one or two short plain sentences."
)
TARGETS = {"tiny": (400, 500), "small": (620, 700)}
"""Longest wait after short and after long sentences, in ms."""
TEXTS = {
    "austen-0880": "he was not an ill disposed young man",
    "austen-0930": "he might even have been made amiable himself",
    "jfk": "and so my fellow americans ask not what your country can do for you "
    "ask what you can do for your country",
}


async def converse(
    profile: str,
    clips: Sequence[AudioFrame],
    interjections: Sequence[wav.Interjection] = (),
    *,
    cut_after_s: float | None = None,
    answers: int = 0,
    tap: Callable[[Event], None] | None = None,
) -> tuple[Samples, Samples, int, list[tuple[float, Event]]]:
    """Hold a conversation; return the audio of both sides, its rate, and timed events.

    With ``cut_after_s``, replies after the first ``answers`` are interrupted, because they do not
    matter. ``tap`` gets each event as it comes.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conversation.wav"
        edge = wav.Edge(clips, path, interjections=interjections, settle_s=0.6)
        agent = Agent(edge=edge, llm=Realtime(profile), instructions=INSTRUCTIONS)
        events: list[tuple[float, Event]] = []
        agent.events.tap(lambda event: events.append((time.monotonic(), event)))
        if tap is not None:
            agent.events.tap(tap)

        if cut_after_s is not None:

            @agent.events.subscribe
            async def cut(event: AgentTurnStartedEvent) -> None:
                nonlocal answers
                answers -= 1
                if answers < 0:
                    await asyncio.sleep(cut_after_s)
                    agent.interrupt()

        async with agent.join():
            await agent.finish()
        with wave.open(str(path)) as file:
            both = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)
            return both[:, 0], both[:, 1], file.getframerate(), events


@dataclass(frozen=True, slots=True)
class Answers:
    """The replies to some clips.

    Attributes:
        waits: Milliseconds from the end of each clip to the agent's first sample.
        cut_in: Clips that were taken for complete before their end, at a pause.
        cpu: CPU seconds of this process in a second of speech.
        steps: When the agent reached each step, by its own clock.
    """

    waits: list[float]
    cut_in: int
    cpu: float
    steps: list[TurnMetricsEvent]

    def table(self) -> str:
        """Return the median of each step in ms after the end of speech."""
        steps = {
            "endpoint": [step.endpoint_ms for step in self.steps],
            "transcript": [step.transcript_ms for step in self.steps],
            "first text": [step.first_text_ms for step in self.steps],
            "first audio": [step.first_audio_ms for step in self.steps],
            "gate": [step.first_played_ms for step in self.steps],
        }
        known = {name: [ms for ms in times if ms is not None] for name, times in steps.items()}
        return ", ".join(f"{name} {median(times):.0f}" for name, times in known.items() if times)


async def answers_to(profile: str, clips: Sequence[AudioFrame]) -> Answers:
    """Speak the clips, each once the reply to the one before has been cut after 0.8 s."""
    used: list[tuple[float, float]] = []

    def note_cpu(event: Event) -> None:
        match event:
            case UserTurnStartedEvent():
                begun.append((time.monotonic(), time.process_time()))
            case UserTurnEndedEvent() if begun:
                at, cpu = begun.pop()
                used.append((time.monotonic() - at, time.process_time() - cpu))
                begun.clear()
            case _:
                pass

    begun: list[tuple[float, float]] = []
    person, agent, rate, events = await converse(profile, clips, cut_after_s=0.8, tap=note_cpu)
    spoken = stretches(person, rate, gap_s=1.0)
    replies = [begin for begin, _ in stretches(agent, rate, level=50)]
    waits, cut_in = [], 0
    for (begin, end), (after, _) in zip(spoken, [*spoken[1:], (len(person), 0)], strict=True):
        cut_in += any(begin < reply < end for reply in replies)
        first = next((reply for reply in replies if end <= reply < after), None)
        if first is not None:
            waits.append((first - end) / rate * 1000)
    seconds, cpu = (sum(each) for each in zip(*used, strict=True))
    steps = [event for _, event in events if isinstance(event, TurnMetricsEvent)]
    return Answers(waits, cut_in, cpu / seconds, steps)


async def answer(
    profile: str, what: str, clips: Sequence[AudioFrame], target_ms: float | None
) -> list[Figure]:
    """Return the time from the end of speech to the agent's first sample, from the recording."""
    found = await answers_to(profile, clips)
    middle = median(found.waits)
    length = median([clip.duration for clip in clips])
    return [
        Figure(
            f"end of speech to first agent sample, {what} of {length:.1f} s (median), wav edge, "
            f"`{profile}`, median",
            "published" if target_ms is None else f"<= {target_ms:.0f} ms",
            f"{middle:.0f} ms (p90 {percentile(found.waits, 90):.0f})",
            target_ms is None or middle <= target_ms,
            f"{len(found.waits)} turns; by the engine's own clock, median ms: {found.table()}; "
            f"answered at a pause before their end: {found.cut_in} of {len(clips)}; "
            f"CPU while the person speaks: {found.cpu:.2f} of a core",
        )
    ]


async def barge_in(profile: str) -> list[Figure]:
    """Return the times from the first sample of an interruption to the agent's last sample."""
    questions = [await synthesise(question) for question in QUESTIONS]
    cuts = [await synthesise(INTERRUPTIONS[n % len(INTERRUPTIONS)]) for n in range(len(questions))]
    waits, after_vad, stale = [], [], 0
    for number, (question, cut) in enumerate(zip(questions, cuts, strict=True)):
        interjection = wav.Interjection(cut, 0.5 + 0.07 * number)
        person, agent, rate, events = await converse(
            profile, [question], [interjection], cut_after_s=0.3, answers=1
        )
        held = [at for at, event in events if isinstance(event, SpeechHeldEvent)]
        starts = [at for at, event in events if isinstance(event, AgentTurnStartedEvent)]
        cuts_at = [at for at, event in events if isinstance(event, InterruptionEvent)]
        sounds = stretches(agent, rate, level=0, gap_s=0.25)
        spoken = stretches(person, rate, gap_s=0.3)
        begin = next((b for b, _ in spoken if sounds and b > sounds[0][0]), None)
        if begin is None or not held or not cuts_at or len(starts) < 2:
            continue

        # The time of an event in the recording, aligned by the first audio.
        mark = sounds[0][0] - starts[0] * rate
        last = max(end for start, end in sounds if start < begin)
        waits.append((last - begin) / rate * 1000)
        after_vad.append((last - mark - held[0] * rate) / rate * 1000)
        silent_from = int(mark + (cuts_at[0] + MARK / 1000) * rate)
        silent = agent[silent_from : int(mark + (starts[1] - 0.01) * rate)]
        stale += int(np.count_nonzero(silent))
    if not waits:
        return [Figure("barge-in", "<= 350 ms", "no interruption was seen", reached=False)]
    worst, late = percentile(waits, 95), percentile(after_vad, 95)
    return [
        Figure(
            f"person's first speech sample to last agent sample, `{profile}`, p95",
            "<= 350 ms",
            f"{worst:.0f} ms (median {median(waits):.0f})",
            worst <= 350,
            f"{len(waits)} interruptions",
        ),
        Figure(
            "of which after the VAD has said speech, p95",
            "<= 20 ms",
            f"{max(late, 0):.0f} ms",
            late <= 20,
        ),
        Figure(
            "samples of an old epoch after interrupt() returned",
            "0",
            str(stale),
            stale == 0,
            "recordings of the interruptions above; the contract is property-tested",
        ),
    ]


def word_errors(said: Sequence[str], meant: Sequence[str]) -> int:
    """Return the number of inserted, missing and changed words (Levenshtein)."""
    row = list(range(len(meant) + 1))
    for i, word in enumerate(said, 1):
        previous, row[0] = row[0], i
        for j, other in enumerate(meant, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (word != other))
    return row[-1]


async def understanding(profile: str) -> list[Figure]:
    """Measure the word error rate on clips of real people, through the whole conversation."""
    errors = words = 0
    parts = []
    for name, text in TEXTS.items():
        *_, events = await converse(profile, [recorded(name)])
        finals = [e.text for _, e in events if isinstance(e, UserTranscriptEvent) and e.final]
        wrong = word_errors(plain_words(" ".join(finals)), plain_words(text))
        parts.append(f"{name} {wrong} of {len(text.split())}")
        errors, words = errors + wrong, words + len(text.split())
    rate = errors / words * 100
    return [
        Figure(
            "word error rate, clips of real people",
            "<= 5 %",
            f"{rate:.1f} %",
            rate <= 5,
            "; ".join(parts),
        )
    ]


async def latency(profile: str, what: str) -> list[Figure]:
    """Return the figures of one kind of utterances."""
    short_ms, long_ms = TARGETS[profile]
    match what:
        case "short":
            clips = [await synthesise(text) for text in QUESTIONS]
            return await answer(profile, "short questions", clips, short_ms)
        case "long":
            clips = [await synthesise(text) for text in LONG_SENTENCES[:6]]
            return await answer(profile, "long sentences", clips, long_ms)
        case "real-short":
            clips = [recorded(name) for name in REAL_SHORT * 4]
            return await answer(profile, "short utterances of real people", clips, short_ms)
        case "real-unfinished":
            clips = [recorded(name) for name in REAL_UNFINISHED * 2]
            what = "utterances of real people that sound unfinished"
            return await answer(profile, what, clips, None)
        case _:
            clips = [recorded(name) for name in REAL_LONG * 2]
            return await answer(profile, "long sentences of real people", clips, long_ms)


async def main() -> None:
    """Measure what the arguments name: a profile and a kind of utterances, or another figure."""
    match sys.argv[1:]:
        case [("tiny" | "small") as profile, *kinds]:
            figures = []
            for what in kinds or ["short", "long", "real-short", "real-unfinished", "real-long"]:
                figures += await latency(profile, what)
            give(figures)
        case ["barge-in"]:
            give(await barge_in("tiny"))
        case ["words"]:
            give(await understanding("tiny"))
        case _:
            sys.exit("usage: engine (tiny | small) [KIND ...] | barge-in | words")


if __name__ == "__main__":
    asyncio.run(main())
