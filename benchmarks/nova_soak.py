"""A conversation of a thousand minutes with Nova Sonic, in virtual time.

``python -m benchmarks.nova_soak [MINUTES]``. A stream ends after eight minutes, so the session
replaces it some two hundred times, by its own policy. Once a minute the person says something, and
the model replies.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.figures import Figure, give, rss_mb
from benchmarks.kill_soak import Said, by_turn, misplaced, said_in
from benchmarks.simulator_probes import FIRST_HZ, RATE, STEP_HZ, Backend, delay_words, known_to
from duologue.agent.agent import Agent
from duologue.audio import AudioFrame
from duologue.events import RealtimeReconnectedEvent
from duologue.providers import aws
from duologue.testing import NovaSimulator, Reply, run_virtual
from duologue.vad.energy import EnergyVAD

ANSWER = "An answer. It has two sentences."
LATE_S = 0.7
CHUNK_S = 0.1
PITCHES = 60
"""Turns after which a pitch is used again."""


class Caller:
    """A caller who keeps nothing, with 100 ms of audio at a time."""

    output_rate = 24000
    quality = "estimated"
    lead_ms = 0
    latency_ms = 0.0

    def __init__(self) -> None:
        self.hz = 0.0
        self.heard_s = 0.0
        self.sent_s = 0.0

    async def run(self, person: Any, ready: Callable[[], None]) -> None:
        ready()
        size = round(RATE * CHUNK_S)
        silence = np.zeros(size, np.int16)
        loop = asyncio.get_running_loop()
        due, at = loop.time(), np.arange(size)
        while True:
            due += CHUNK_S
            await asyncio.sleep(max(0.0, due - loop.time()))
            tone = (9000 * np.sin(2 * np.pi * self.hz / RATE * at)).astype(np.int16)
            person.push_audio(AudioFrame(tone if self.hz else silence, RATE))
            self.sent_s += CHUNK_S

    def play(self, frame: AudioFrame | None) -> None:
        self.heard_s += 0.02 * (frame is not None)

    def clear(self) -> None: ...


class Questions:
    """Transcripts of turns by their pitch, although pitches are used again."""

    def __init__(self) -> None:
        self._newest = 0

    def __len__(self) -> int:
        return PITCHES

    def __getitem__(self, pitch: int) -> str:
        last = self._newest - 5
        number = last + (pitch - last) % PITCHES
        self._newest = max(self._newest, number)
        return question(number)


def question(number: int) -> str:
    """Return what the person says in a turn."""
    return f"question number {number}"


_OTHERS = (
    "duologue.items",
    "duologue.realtime.commands",
    "duologue.simulators",
    "duologue.testing",
)
"""Modules whose objects are kept on purpose: the conversation's items, and everything that the
simulated model was sent.
"""


def live_objects() -> int:
    """Count the live objects of the library outside these modules."""
    gc.collect()
    kinds = (type(one) for one in gc.get_objects())
    return sum(_is_ours(kind) for kind in kinds)


def _is_ours(kind: type) -> bool:
    module = kind.__module__
    ours = isinstance(module, str) and module.startswith("duologue.")
    return ours and not module.startswith(_OTHERS)


def resident_mb() -> float:
    """Return the resident memory after returning free memory, if the C library can do that."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return rss_mb()


def kept_now(minute: float) -> Kept:
    """Count what is in memory now."""
    objects = live_objects()
    return Kept(round(minute), resident_mb(), objects, tasks_now())


def tasks_now() -> int:
    """Count live tasks."""
    return len(asyncio.all_tasks())


@dataclass
class Kept:
    """What is in memory after ``minute`` minutes."""

    minute: int
    rss: float
    objects: int
    tasks: int


async def talk(minutes: int) -> list[Figure]:
    """Talk for ``minutes``, and take samples in between."""
    dice = random.Random(5)  # noqa: S311
    began = time.perf_counter()
    questions, caller = Questions(), Caller()
    replies = deque([Reply(ANSWER)] * (minutes * 2))
    kept: list[Kept] = []
    turn = 0
    async with NovaSimulator(lambda: Backend(replies, questions)) as server:
        delay_words(server, LATE_S)
        keys = server.credentials
        credentials = aws.Credentials(keys.access_key, keys.secret_key)
        llm = aws.Realtime(base_url=server.url, credentials=credentials, vad=EnergyVAD())
        agent = Agent(edge=caller, llm=llm)
        gaps: list[int] = []

        def note(event: object) -> None:
            if isinstance(event, RealtimeReconnectedEvent):
                gaps.append(event.gap_ms)
                # The simulator keeps them for inspection; they would fill the memory.
                del server.sessions[:-2]

        agent.events.tap(note)
        async with agent.join():
            loop = asyncio.get_running_loop()
            start = loop.time()
            while (minute := (loop.time() - start) / 60) < minutes:
                if minute >= (len(kept) + 1) * minutes / 10:
                    kept.append(kept_now(minute))
                caller.hz = FIRST_HZ + STEP_HZ * (turn % PITCHES)
                await asyncio.sleep(dice.uniform(0.8, 2.5))
                caller.hz = 0.0
                turn += 1
                await asyncio.sleep(dice.uniform(45.0, 70.0))
            kept.append(kept_now(minute))
            far = SimpleNamespace(session=server.sessions[-1])
            known = known_to("nova", far)
            lost_ms = agent.llm.lost_audio * 1000 / agent.llm.capabilities.input_rate
        items = [*agent.conversation]
    took = time.perf_counter() - began
    meant = [question(number) for number in range(turn)]
    wrong = wrong_items(items, known, meant)
    return [
        Figure(
            f"{minutes} minutes: items lost or doubled, user audio lost",
            "0, 0 ms",
            f"{wrong}, {lost_ms:.0f} ms",
            not (wrong or lost_ms) and len(gaps) >= minutes / 6.5,
            f"{turn} turns and answers, {len(gaps)} changes of streams by the session's own "
            f"policy (longest time without one {max(gaps, default=0)} ms); the newest "
            f"{len(known) // 2} turns and answers are known to the model, as far as a history may "
            "go; transcripts "
            f"{LATE_S} s late, virtual time, {took / 60:.0f} minutes of real time",
        ),
        memory(kept),
    ]


def wrong_items(items: list[Any], known: Said, meant: list[str]) -> int:
    """Count items that are lost, duplicated or misplaced, here and at the model."""
    mine = said_in(items)
    wrong = misplaced([words for role, words in mine if role == "user"], meant)
    answers = by_turn(mine)
    wrong += sum(answers.get(turn) != [ANSWER] for turn in meant)
    # The oldest are left out, as many characters as are above the limit.
    first = next((at for at, (_, words) in enumerate(known) if words in meant), len(known))
    newest = known[first:]
    whole = [said for turn in meant for said in (("user", turn), ("agent", ANSWER))]
    wrong += sum(a != b for a, b in zip(newest, whole[len(whole) - len(newest) :], strict=True))
    return wrong + int(len(newest) < min(40, len(whole)))


def memory(kept: list[Kept]) -> Figure:
    """Compare the memory at the end with that after a tenth of the time."""
    first, last = kept[0], kept[-1]
    grown = last.rss - first.rss
    # A turn or a reply may be in flight.
    flat = abs(last.objects - first.objects) < 60 and last.tasks <= first.tasks + 1 and grown < 5
    rss = ", ".join(f"{one.rss:.0f}" for one in kept)
    return Figure(
        f"memory after {first.minute} and after {last.minute} minutes: objects of the library; "
        "tasks; MB",
        "as many; as many; < 5 MB more",
        f"{first.objects} and {last.objects}; {first.tasks} and {last.tasks}; {grown:+.1f} MB",
        flat,
        "objects by the garbage collector, without the conversation's own items, which are kept; "
        "MB: resident, what is free given back, of the whole process with the simulator (of which "
        f"the last two sessions are kept), every tenth: {rss}",
    )


def main() -> None:
    give(run_virtual(talk(int(sys.argv[1]) if len(sys.argv) > 1 else 1000), grace=0.0))


if __name__ == "__main__":
    main()
