"""How soon the agent is silent when the person interrupts it, in real time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.corpus import recorded
from benchmarks.figures import Figure, median, percentile
from benchmarks.simulator_probes import (
    RATE,
    SIDES,
    FakePerson,
    Side,
    events_of,
    meeting,
    watch_sent,
)
from duologue.audio import AudioFrame, Samples
from duologue.events import InterruptionEvent
from duologue.simulators.faults import Delay, Fault
from duologue.vad.earshot import EarshotVAD

LONG = " ".join(f"word{index}" for index in range(60))
GAP_S = 0.3
AWAY_MS = 150.0


class Voice(FakePerson):
    """A person with a recorded voice, because the VAD is made for real voices."""

    def __init__(self) -> None:
        super().__init__()
        clip = recorded("austen-0880").samples
        self._clip = clip[int(0.24 * RATE) :]

    async def run(self, person: Any, ready: Any) -> None:
        self.person = person
        ready()
        at = 0
        while not self.hung_up.is_set():
            await asyncio.sleep(0.02)
            at = at + 320 if self.voice else 0
            samples = self._clip[at - 320 : at] if at else np.zeros(320, np.int16)
            person.push_audio(AudioFrame(samples, RATE))


class Deaf:
    """Voice activity detection that never detects speech."""

    rate = 16000
    frame_samples = 256

    def stream(self) -> Deaf:
        return self

    def push(self, samples: Samples) -> float:
        del samples
        return 0.0


@dataclass
class Rounds:
    """The measurements of each interruption; times in ms."""

    took: list[float] = field(default_factory=list)
    """From the signal to the closed gate."""
    late: list[float] = field(default_factory=list)
    """From the signal to the last sample that the edge got."""
    stale: int = 0
    """Frames that the edge got after the gate was closed."""
    voiced: list[float] = field(default_factory=list)
    """From the start of the person's speech to the signal."""
    missed: int = 0
    """Rounds without the signal, or without silence after it."""


async def measure(
    side: Side, rounds: int, *, server: bool, person: Any = None, **options: Any
) -> Rounds:
    """Interrupt a speech ``rounds`` times.

    With ``server`` the signal is the server's, otherwise our own.
    """
    found = Rounds()
    loop = asyncio.get_running_loop()
    person = person or FakePerson()
    words = [LONG] * (rounds * 3), ["stop it"] * rounds
    async with meeting(side, person, *words, **options) as (agent, far):
        call = agent._live.session
        shut: list[float] = []
        signals: list[float] = []
        hold, interrupt, hear = call.playout.hold, call.playout.interrupt, call.push_audio
        entered = 0.0

        def held() -> None:
            hold()
            shut.append(loop.time())
            if not server:
                signals.append(entered)

        def interrupted(epoch: int) -> Any:
            cuts = interrupt(epoch)
            shut.append(loop.time())
            return cuts

        def heard(frame: AudioFrame) -> None:
            nonlocal entered
            entered = loop.time()
            hear(frame)

        def sent(kind: str, text: str) -> None:
            if server and side.speech(kind, text):
                signals.append(loop.time())

        call.playout.hold, call.playout.interrupt = held, interrupted
        call.push_audio = heard
        watch_sent(far.session, sent)
        for _ in range(rounds):
            agent.simple_response("talk")
            await asyncio.sleep(1.5)
            shut.clear()
            signals.clear()
            before = len(events_of(agent, InterruptionEvent))
            spoke = loop.time()
            await person.speak(0.4)
            async with asyncio.timeout(5):
                while len(events_of(agent, InterruptionEvent)) == before:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.6)
            if not (signals and shut):
                found.missed += 1
                continue
            began, gate = signals[0], shut[0]
            found.voiced.append((began - spoke) * 1000)
            found.took.append((gate - began) * 1000)
            # The person speaks on for 0.3 s, and then 0.3 s pass: audio before that is stale.
            after = [at for at in person.at if began < at < began + 2 * GAP_S]
            found.late.append((max(after, default=began) - began) * 1000)
            found.stale += sum(at > gate for at in after)
            agent.interrupt()
            await asyncio.sleep(GAP_S)
    return found


def figure(side: Side, rounds: int, found: Rounds, named: str, note: str) -> Figure:
    """Return the figure of all rounds."""
    worst, last = percentile(found.took, 99), max(found.late)
    return Figure(
        f"{named} to the gate shut; last sample handed to the edge; samples after the gate",
        "<= 2 ms p99; <= 2 ms; 0",
        f"{worst:.2f} ms (median {median(found.took):.2f}); {last:.2f} ms; {found.stale}",
        worst <= 2 and last <= 2 and not found.stale and not found.missed,
        f"{rounds} interruptions 1.5 s into a burst, {side.transport}, real time; {note}; in "
        f"{sum(ms > 0 for ms in found.late)} of them a frame left after it",
    )


async def interrupts(name: str, rounds: int) -> list[Figure]:
    """Measure from the first sign that the person speaks, wherever it is, to silence."""
    side = SIDES[name]
    same = "server in the same process"
    # On this machine the service gets the audio so soon that it would always be first.
    away = {"faults": [Fault(Delay(AWAY_MS, 0.0))]}
    vad = EarshotVAD("simulate")
    found = await measure(side, rounds, server=False, person=Voice(), vad=vad, simulator=away)
    late = await measure(side, rounds, server=True, vad=Deaf())
    return [
        figure(
            side,
            rounds,
            found,
            "the person's sample by which EarshotVAD says speech",
            f"a recorded voice, {median(found.voiced):.0f} ms after it began (median), the server "
            f"{AWAY_MS:.0f} ms away",
        ),
        figure(
            side,
            rounds,
            late,
            f"{side.signal} leaves the server, where nothing was heard here,",
            same,
        ),
    ]
