"""A long conversation whose connection is killed at random moments: losses and duplicates."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.figures import Figure
from benchmarks.simulator_probes import (
    FIRST_HZ,
    SIDES,
    STEP_HZ,
    FakePerson,
    events_of,
    known_to,
    meeting,
    on_connection,
)
from duologue.events import RealtimeReconnectedEvent
from duologue.items import AgentItem, UserItem

LATE_S = 0.7
TURNS = 60
ANSWER = "An answer."


def loud_ms(samples: np.ndarray, rate: int) -> int:
    """Return the milliseconds of speech in a turn, from first to last, rounded to 4."""
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 1000)
    if not len(loud):
        return 0
    holes = np.diff(loud)
    # A tone of 400 Hz or more is never below a ninth of its amplitude for 2 ms.
    length = loud[-1] - loud[0] - int(holes[holes > rate // 500].sum())
    return 4 * round(length * 250 / rate)


def pitch(samples: np.ndarray, rate: int) -> float:
    """Return the frequency of the loudest tone in Hz."""
    spectrum = np.abs(np.fft.rfft(samples.astype(float)))
    return float(np.argmax(spectrum)) * rate / len(samples)


def heard_ms(sessions: Iterable[Any], rate: int) -> dict[int, int]:
    """Return how much of each turn the model has heard in its sessions, oldest first.

    The last copy of a turn counts; earlier ones were broken off.
    """
    newest: dict[int, int] = {}
    for session in sessions:
        for turn in session.user_turns:
            number = round((pitch(turn.samples, rate) - FIRST_HZ) / STEP_HZ)
            newest[number] = loud_ms(turn.samples, rate)
    return newest


def misplaced(said: list[str], meant: list[str]) -> int:
    """Count turns that are missing, duplicated or in another place."""
    wrong = sum(abs(said.count(turn) - 1) for turn in meant) + sum(t not in meant for t in said)
    return wrong or int(said != meant)


type Said = list[tuple[str, str]]
"""What was said, as (role, text)."""


@dataclass
class Items:
    """What is wrong with a conversation, and with what the model knows of it."""

    wrong: int = 0
    """Items that are lost or duplicated, or user turns in another place."""
    early: int = 0
    """Parts of replies that the model has before the turn that they answer.

    It got that turn again, and an item that cannot be placed before another stays where it is.
    """


def compare(items: list[Any], known: Said, turns: list[str], answer: str) -> Items:
    """Compare the turns, each with one reply, with the conversation here and at the model."""
    mine = said_in(items)
    found = Items(misplaced([words for role, words in mine if role == "user"], turns))
    # One speech per turn: more of them are replies that were given twice.
    found.wrong += abs(sum(role == "agent" for role, _ in mine) - len(turns))
    found.wrong += misplaced([words for role, words in known if role == "user"], turns)
    here, there = by_turn(mine), by_turn(known)
    early = there.get("", [])
    for turn in turns:
        replies, pieces = here.get(turn, []), there.get(turn, [])
        found.wrong += not " ".join(replies).endswith(answer)
        whole = next((at for at, piece in enumerate(pieces) if piece.endswith(answer)), None)
        said_early = whole is None and any(piece.endswith(answer) for piece in early)
        found.wrong += whole is None and not said_early
        own = 0 if said_early else len(pieces) if whole is None else whole + 1
        # A reply that was resumed is one item here, and may be two parts there.
        most = 1 if replies == [answer] else 2
        found.early += len(early)
        found.wrong += max(0, len(early) + own - most)
        early = pieces[own:]
    found.wrong += len(early)
    return found


def said_in(items: list[Any]) -> Said:
    """Return what the items say."""
    return [
        ("user" if isinstance(item, UserItem) else "agent", item.text or "")
        for item in items
        if isinstance(item, UserItem | AgentItem)
    ]


def early_note(found: Items) -> str:
    """Return a note about misplaced parts, if there are any."""
    if not found.early:
        return ""
    return f"; the model has {found.early} pieces of answers before what they answer"


def by_turn(said: Said) -> dict[str, list[str]]:
    """Return the replies to each user turn; those before the first under an empty key."""
    answers: list[str] = []
    found = {"": answers}
    for role, words in said:
        if role == "user":
            answers = found.setdefault(words, [])
        else:
            answers.append(words)
    return found


class Killer:
    """Kills ``count`` connections: at random moments, and one in ten as soon as it opens."""

    def __init__(self, far: Any, count: int, dice: random.Random) -> None:
        self._far = far
        self._count = count
        self._dice = dice
        self.killed = 0
        self.early = 0
        self._sessions: dict[int, Any] = {}
        on_connection(far.simulator, self._opened)

    def sessions(self) -> list[Any]:
        """Return all sessions so far, oldest first; the simulator keeps only the newest."""
        simulator = self._far.simulator
        self._sessions |= {id(session): session for session in simulator.sessions}
        opened = len(simulator.sessions) + simulator.sessions_dropped
        if len(self._sessions) != opened:
            raise RuntimeError(f"{opened} sessions were opened, not {len(self._sessions)}")
        return [*self._sessions.values()]

    def _opened(self, cut: Callable[[], None]) -> None:
        self.sessions()
        if self.killed < self._count and self._dice.random() < 0.1:
            self.killed += 1
            self.early += 1
            asyncio.get_running_loop().call_soon(cut)

    async def run(self) -> None:
        """Kill open connections until ``count`` is reached."""
        while self.killed < self._count:
            await asyncio.sleep(self._dice.uniform(0.5, 6.5))
            if self._far.simulator._open:
                self.killed += 1
                await self._far.drop_connection()


async def kills(name: str, count: int, seed: int) -> list[Figure]:
    """Kill ``count`` connections while the person takes one turn after another."""
    side = SIDES[name]
    person = FakePerson()
    turns = [f"question number {index}" for index in range(TURNS)]
    options: dict[str, Any] = {"words_late_s": LATE_S, "simulator": {"keep_audio": True}}
    async with meeting(side, person, [ANSWER] * 400, turns, **options) as (agent, far):
        killer = Killer(far, count, random.Random(seed))  # noqa: S311
        async with asyncio.TaskGroup() as tasks:
            killing = tasks.create_task(killer.run())
            for _ in turns:
                await person.speak(1.0)
                await asyncio.sleep(6.0)
            await killing
        await asyncio.sleep(15)
        items = [*agent.conversation]
        found = compare(items, known_to(name, far), turns, ANSWER)
        newest = heard_ms(killer.sessions(), side.rate)
        wrong_ms = sum(abs(newest.get(n, 0) - person.spoken_ms[n]) for n in range(len(turns)))
        lost_ms = agent.llm.lost_audio * 1000 / agent.llm.capabilities.input_rate
        again = len(events_of(agent, RealtimeReconnectedEvent))
        answers = sum(isinstance(item, AgentItem) for item in items)
    return [
        Figure(
            f"connection killed at {killer.killed} random moments: user audio lost or doubled, "
            "history items lost or doubled",
            "0 ms, 0",
            f"{wrong_ms + lost_ms:.0f} ms, {found.wrong}",
            not (wrong_ms or lost_ms or found.wrong),
            f"{len(turns)} turns of 1 s, {answers} answers, {again} new connections "
            f"(one in ten is killed at once, {killer.early} in all), TCP resets, transcripts "
            f"{LATE_S} s late, virtual time; lengths to 4 ms{early_note(found)}",
        )
    ]
