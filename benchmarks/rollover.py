"""A change of connections in the middle of a conversation: what is audible, what is lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.figures import Figure
from benchmarks.kill_soak import LATE_S, compare, early_note, heard_ms
from benchmarks.simulator_probes import SIDES, FakePerson, events_of, known_to, meeting
from duologue.events import RealtimeReconnectedEvent
from duologue.items import AgentItem
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.testing import Reply

LONG = " ".join(f"word{index}" for index in range(60))
ANSWER = " ".join(f"word{index}" for index in range(10))
LEFT_S = 10.0
"""Seconds that a goAway leaves."""
SCALE = 5.0
"""Speed of Nova's clock: a stream ends after 96 s instead of 480."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a provider's connections are changed."""

    named: str
    paces: tuple[float, float]
    """How fast the two speeches are generated, as a factor of real time; 0 is in a burst."""
    at: float
    """When the change comes, in s of the connection."""
    begin: tuple[float, float]
    """When the two speeches are requested."""
    come: Callable[[Any, Any], None]
    """Make the change."""
    options: dict[str, Any] = field(default_factory=dict)


def _roll_over(agent: Any, _: Any) -> None:
    agent.llm.roll_over()


def _goes(_: Any, far: Any) -> None:
    far.simulator.go_away(time_left=LEFT_S)


def _ages(*_: Any) -> None:
    """Do nothing, because the change comes by itself."""


def nova_options(scale: float) -> dict[str, Any]:
    """Return options for a faster clock of the service, and the session's own limits with it."""
    from duologue.providers.aws._realtime import ROLL_OVER

    policy = ReconnectPolicy(
        max_age_s=(ROLL_OVER.max_age_s or 0.0) / scale,
        roll_over_ahead_s=ROLL_OVER.roll_over_ahead_s / scale,
        base_s=0.1,
        cap_s=1.0,
    )
    return {"reconnect": policy, "simulator": {"clock_scale": scale}}


CHANGES = {
    "openai": Change("roll-over asked for", (0.0, 1.1), 3.0, (0.0, 0.0), _roll_over),
    "qwen": Change("roll-over asked for", (0.0, 1.1), 3.0, (0.0, 0.0), _roll_over),
    "gemini": Change(f"goAway with {LEFT_S:.0f} s left", (0.0, 2.5), 3.0, (0.0, 0.0), _goes),
    # The change is due after 60 s, and comes by 72 s in any case.
    "nova": Change(
        "roll-over at the age limit", (0.0, 1.1), 60.0, (58.0, 46.0), _ages, nova_options(SCALE)
    ),
}


async def speech(
    name: str, change: Change, which: int, *, roll: bool
) -> tuple[np.ndarray, int, int]:
    """Return the audio of a speech from first to last frame, its gaps, and the connections."""
    person = FakePerson()
    options = dict(change.options) if roll else {}
    replies = [Reply(LONG, pace=change.paces[which])]
    async with meeting(SIDES[name], person, replies, **options) as (agent, far):
        await asyncio.sleep(change.begin[which])
        said = agent.simple_response("talk")
        await asyncio.sleep(change.at - change.begin[which])
        if roll:
            change.come(agent, far)
        await said
        await asyncio.sleep(1)
        sounding = [index for index, frame in enumerate(person.frames) if frame is not None]
        gaps = sounding[-1] - sounding[0] + 1 - len(sounding)
        return person.played_audio, gaps, len(far.simulator.sessions)


async def one_speech(name: str) -> list[Figure]:
    """Compare a speech with a change of connections in its middle with one without."""
    change = CHANGES[name]
    differ, gaps_ms, changes, seconds = 0, 0, 0, 0.0
    for which in (0, 1):
        whole, _, _ = await speech(name, change, which, roll=False)
        heard, gaps, connections = await speech(name, change, which, roll=True)
        same = min(len(whole), len(heard))
        differ += int(np.count_nonzero(whole[:same] != heard[:same]))
        differ += max(len(whole), len(heard)) - same
        gaps_ms += gaps * 20
        changes += connections - 1
        seconds += len(heard) / 24000
    pace = "in real time" if change.paces[1] < 1.5 else f"{change.paces[1]} times as fast as speech"
    scaled = f", its clock {SCALE:.0f} times as fast" if name == "nova" else ""
    return [
        Figure(
            f"{change.named} in the middle of a speech: gap, samples unlike those without one",
            "none, 0",
            f"{gaps_ms} ms, {differ}",
            not gaps_ms and not differ and changes == 2,
            f"{seconds:.0f} s of speech in two, one that came in a burst and one {pace}, "
            f"{SIDES[name].transport}{scaled}, {changes} changes of connections, virtual time",
        )
    ]


async def conversation(name: str, count: int, seed: int) -> list[Figure]:
    """Make ``count`` changes at random moments of turns and replies, some in mid-sentence."""
    side = SIDES[name]
    dice = random.Random(seed)  # noqa: S311
    person = FakePerson()
    turns = [f"question number {index}" for index in range(count)]
    change = FORCED[name]
    options = {**change.options, "words_late_s": LATE_S}
    options["simulator"] = {**options.get("simulator", {}), "keep_audio": True}
    # Generated only a little faster than real time, so that some changes come during it.
    script = [Reply(ANSWER, pace=1.1)] * (count * 4)
    busy = 0
    async with meeting(side, person, script, turns, **options) as (agent, far):

        def note(event: object) -> None:
            nonlocal busy
            if isinstance(event, RealtimeReconnectedEvent):
                busy += person.voice or agent.llm.pending

        agent.events.tap(note)
        for _ in turns:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(change.come(agent, far, dice))
                await person.speak(1.0)
                # Long enough for a reply that was broken off to be resumed and finished.
                await asyncio.sleep(dice.uniform(14.0, 18.0))
        await asyncio.sleep(20)
        items = [*agent.conversation]
        found = compare(items, known_to(name, far), turns, ANSWER)
        newest = heard_ms(far.simulator.sessions, side.rate)
        wrong_ms = sum(abs(newest.get(n, 0) - person.spoken_ms[n]) for n in range(len(turns)))
        lost_ms = agent.llm.lost_audio * 1000 / agent.llm.capabilities.input_rate
        changes = events_of(agent, RealtimeReconnectedEvent)
        gap = max((event.gap_ms for event in changes), default=0)
        answers = sum(isinstance(item, AgentItem) for item in items)
    return [
        Figure(
            f"{change.named} at random moments of turns and answers: user audio lost or doubled, "
            "history items lost or doubled",
            "0 ms, 0",
            f"{wrong_ms + lost_ms:.0f} ms, {found.wrong}",
            not (wrong_ms or lost_ms or found.wrong) and busy >= count / 10,
            f"{len(turns)} turns of 1 s, {answers} answers, {len(changes)} changes, {busy} of them "
            "while the person spoke, or the model did or was about to (longest time without a "
            f"connection {gap} ms), transcripts {LATE_S} s late, virtual time; lengths "
            f"to 4 ms{early_note(found)}",
        )
    ]


@dataclass(frozen=True, slots=True)
class Forced:
    """Changes that come whether anyone speaks or not."""

    named: str
    come: Callable[[Any, Any, random.Random], Awaitable[None]]
    options: dict[str, Any] = field(default_factory=dict)


async def _hurried(agent: Any, _: Any, dice: random.Random) -> None:
    await asyncio.sleep(dice.uniform(0.0, 6.0))
    agent.llm.roll_over(dice.uniform(0.0, 1.5))


async def _gone(_: Any, far: Any, dice: random.Random) -> None:
    await asyncio.sleep(dice.uniform(0.0, 6.0))
    far.simulator.go_away(time_left=dice.uniform(1.0, 3.0))


async def _old(*_: Any) -> None:
    """Do nothing, because the change comes by itself."""


FORCED = {
    "qwen": Forced("roll-over within 0 to 1.5 s", _hurried),
    "gemini": Forced("goAway with 1 to 3 s left", _gone),
    # A stream ends after 16 s, and is to be replaced between 10 and 12 s.
    "nova": Forced("the stream's age limit, clock 30 times as fast,", _old, nova_options(30.0)),
}


async def rolling(name: str, count: int, seed: int) -> list[Figure]:
    """Return both figures; for OpenAI only the first."""
    figures = await one_speech(name)
    return figures + (await conversation(name, count, seed) if name in FORCED else [])
