"""Which of sixty sounds interrupt the agent, in virtual time.

``python -m benchmarks.sounds openai|gemini|nova|qwen|pipeline [-v]``. The service is simulated: it
detects turns by their level alone, so it takes every sound for speech, and it knows the words of
each, which it reports half a second late. What the library makes of that is measured.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import simulator_probes
from benchmarks.figures import Figure, give, median
from benchmarks.simulator_probes import SIDES, FakePerson, events_of, meeting
from benchmarks.sound_clips import RATE, Clip, clips
from duologue.audio import AudioFrame
from duologue.events import (
    AgentTurnStartedEvent,
    InterruptionEvent,
    SpeechHeldEvent,
    SpeechResumedEvent,
)
from duologue.testing import Reply, run_virtual
from duologue.vad.earshot import EarshotVAD

import conformance_targets  # isort: skip - in the folder that `simulator_probes` puts on the path

LONG = " ".join(f"word{index}" for index in range(24))
"""About ten seconds of speech."""
WORDS_LATE_S = 0.5
AFTER_S = 6.0
FIRST_S = 0.75
"""Seconds after the start of a sound at which the agent resumes, if it is undecided by then."""
NOISE_LEVEL = 6.0
"""RMS of the microphone's own noise."""


class Caller(FakePerson):
    """A person who makes one sound during the agent's speech."""

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self._clip = clip.samples
        self._at: int | None = None
        self.began = 0.0

    async def run(self, person: Any, ready: Any) -> None:
        self.person = person
        ready()
        rng = np.random.default_rng(7)
        while not self.hung_up.is_set():
            await asyncio.sleep(0.02)
            samples = np.rint(NOISE_LEVEL * rng.standard_normal(320)).astype(np.int16)
            if self._at is not None:
                piece = self._clip[self._at : self._at + 320]
                samples[: len(piece)] += piece
                self._at += 320
            person.push_audio(AudioFrame(samples, RATE))

    def make_the_sound(self) -> None:
        """Begin with the next frame."""
        self.began = asyncio.get_running_loop().time()
        self._at = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to the agent's speech; times in s since the start of the sound."""

    clip: Clip
    cut_at: float | None
    silent_s: float
    """Longest time for which it was held before it resumed."""
    answers: int
    """Speeches that followed."""


class Knows(simulator_probes.Backend):
    """A backend that knows what is said in every turn."""

    said = ""

    def open(self, setup: Any) -> Any:
        connection = super().open(setup)
        transmit = connection.transmit

        def transmitted(command: Any) -> None:
            if type(command).__name__ == "EndTurn":
                self.words = [self.said] * 99  # It looks them up by the pitch of the turn.
            transmit(command)

        connection.transmit = transmitted
        return connection


@asynccontextmanager
async def call(name: str, caller: Caller, clip: Clip) -> AsyncGenerator[Any]:
    """Connect an agent with the provider's default settings."""
    vad = EarshotVAD("simulate")
    replies = [Reply(LONG), *["And an answer to that."] * 9]
    options: dict[str, Any] = {"vad": vad}
    match name:
        case "pipeline":
            async with _pipeline(caller, clip, replies) as agent:
                yield agent
                return
        case "openai":
            from duologue.providers import openai

            options["turn_detection"] = openai.ServerVAD()
        case "qwen":
            from duologue.providers import qwen

            options["turn_detection"] = qwen.ServerVAD()
        case "gemini":
            from duologue.providers import gemini

            options["turn_detection"] = gemini.ServerVAD()
        case "nova":
            options["simulator"] = {"endpointing_ms": {"HIGH": 1500}}
    Knows.said = clip.words
    conformance_targets.Backend = Knows
    late = 0.0 if name == "nova" else WORDS_LATE_S
    async with meeting(SIDES[name], caller, replies, words_late_s=late, **options) as (agent, _):
        yield agent


@asynccontextmanager
async def _pipeline(caller: Caller, clip: Clip, replies: Any) -> AsyncGenerator[Any]:
    from duologue.pipeline.pipeline import Pipeline

    class Hears(conformance_targets._LocalStream):
        async def text(self) -> str:
            await asyncio.sleep(0.15)
            return self.words

    class STT(conformance_targets._LocalSTT):
        def stream(self) -> Hears:
            return Hears(clip.words)

    texts = [r if isinstance(r, Reply) else Reply(r) for r in replies]
    model = Pipeline(
        llm=conformance_targets._LocalLLM(texts),
        stt=STT(()),
        tts=conformance_targets._LocalTTS(),
        vad=EarshotVAD("simulate"),
        turn=conformance_targets._AlwaysOver(),
    )
    async with simulator_probes.join_agent(model, caller) as agent:
        yield agent


async def outcome(name: str, clip: Clip) -> Outcome:
    """Make one sound during the agent's speech, 1.5 s after its start."""
    caller = Caller(clip)
    async with call(name, caller, clip) as agent:
        loop = asyncio.get_running_loop()
        times: list[tuple[float, Any]] = []
        agent.events.tap(lambda event: times.append((loop.time(), event)))
        agent.simple_response("talk")
        while not caller.at:
            await asyncio.sleep(0.02)
        await asyncio.sleep(1.5)
        caller.make_the_sound()
        await asyncio.sleep(len(clip.samples) / RATE + AFTER_S)
        cuts = [at for at, event in times if isinstance(event, InterruptionEvent)]
        held = [at for at, event in times if isinstance(event, SpeechHeldEvent)]
        on = [at for at, event in times if isinstance(event, SpeechResumedEvent)]
        silent = max((b - a for a, b in zip(held, on, strict=False)), default=0.0)
        cut = cuts[0] - caller.began if cuts else None
        await asyncio.sleep(0 if cuts else 10)
        return Outcome(clip, cut, silent, len(events_of(agent, AgentTurnStartedEvent)) - 1)


def figures(name: str, found: list[Outcome]) -> list[Figure]:
    """Return which sounds interrupted the agent, and which words did not."""
    sounds = [one for one in found if not one.clip.words]
    words = [one for one in found if one.clip.words]
    kinds = Counter(one.clip.kind for one in sounds)
    cut = Counter(one.clip.kind for one in sounds if one.cut_at is not None)
    spared = [one for one in sounds if one.cut_at is None]
    through = [one for one in words if one.cut_at is None]
    silent_ms = 1000 * max((one.silent_s for one in sounds), default=0.0)
    times = [one.cut_at * 1000 for one in words if one.cut_at is not None]
    at_once = sum(ms <= 1000 * FIRST_S for ms in times)
    wrong = ", ".join(f"{count} of {kinds[kind]} {kind}" for kind, count in cut.items())
    share, missed = 100 * cut.total() / len(sounds), 100 * len(through) / len(words)
    real = sum(one.clip.real for one in found)
    all_kinds = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    far = (
        "its recogniser is a made one that knows the words of each sound, and takes 0.15 s"
        if name == "pipeline"
        else "the service is simulated, takes every sound for speech, knows the words of each, and "
        f"tells them {WORDS_LATE_S} s after its end of the turn"
    )
    return [
        Figure(
            "sounds without words that cut the agent; longest hold before it goes on",
            "<= 5 %; <= 600 ms",
            f"{share:.1f} % ({cut.total()} of {len(sounds)}); {silent_ms:.0f} ms",
            share <= 5 and silent_ms <= 605,
            f"{all_kinds}; cut by {wrong or 'none'}; new speech behind what went on: "
            f"{sum(one.answers for one in spared)} of {len(spared)} times; {real} of the "
            f"{len(found)} clips are of real people, the rest made "
            f"(benchmarks/sound_clips.py); virtual time; {far}",
        ),
        Figure(
            "short words in English, Hindi and Chinese that the agent goes on through",
            "<= 2 %",
            f"{missed:.1f} % ({len(through)} of {len(words)})",
            missed <= 2,
            f"{len(words)} words of {_length(words, min):.2f} to {_length(words, max):.2f} s, "
            "the agent silent from their first sound on; decided "
            f"{median(times):.0f} ms after they began (median; at most {max(times):.0f}), "
            f"{at_once} of them before the agent had gone on"
            if times
            else "none was cut",
        ),
    ]


def _length(found: list[Outcome], which: Callable[[Iterable[float]], float]) -> float:
    return which(len(one.clip.samples) / RATE for one in found)


async def measure(name: str, *, verbose: bool) -> list[Figure]:
    """Measure all sixty sounds."""
    found = []
    for clip in clips():
        one = await outcome(name, clip)
        found.append(one)
        if verbose:
            sys.stderr.write(
                f"{clip.kind:9} {clip.words:10} {len(clip.samples) / RATE:5.2f} s"
                f"  cut {one.cut_at and round(one.cut_at, 2)}"
                f"  held {one.silent_s:.2f}  answers {one.answers}\n"
            )
    return figures(name, found)


def main() -> None:
    name = sys.argv[1]
    give(run_virtual(measure(name, verbose="-v" in sys.argv), grace=0.0))


if __name__ == "__main__":
    main()
