"""Compare what is reported as heard of an interrupted speech with what was played of it."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import deque
from typing import Any

import numpy as np

from benchmarks.figures import Figure
from benchmarks.simulator_probes import SIDES, FakePerson, meeting
from duologue.audio import AudioFrame
from duologue.events import AgentTurnStartedEvent, InterruptionEvent
from duologue.testing import Reply
from duologue.testing.scripted import CHARS_PER_S


class Device(FakePerson):
    """An audio device with its own pace and buffer, which reports what it has played."""

    quality = "device"

    def __init__(self) -> None:
        super().__init__()
        self.buffer: deque[tuple[float, bool]] = deque()
        self.taken = 0
        self.done = 0
        self.loud = 0.0

    def play(self, frame: AudioFrame | None) -> None:
        now = asyncio.get_running_loop().time()
        loud = frame is not None and bool(np.any(frame.samples))
        self.drain(now)
        begin = max(now + 0.04, self.buffer[-1][0] + 0.02 if self.buffer else 0.0)
        self.buffer.append((begin, loud))
        self.taken += 480
        if self.taken % 960 == 0 and self.person is not None:
            self.person.report_played(self.done)

    def clear(self) -> None:
        self.drain(asyncio.get_running_loop().time())
        self.done += 480 * len(self.buffer)
        self.buffer.clear()

    def drain(self, now: float) -> None:
        """Play everything that was due by ``now``."""
        while self.buffer and self.buffer[0][0] + 0.02 <= now:
            _, loud = self.buffer.popleft()
            self.done += 480
            self.loud += 20.0 * loud


def speech(number: int) -> str:
    """Return the text of a speech; its first word identifies it."""
    words = [f"speech{number}", *(f"word{index}" for index in range(60))]
    sentences = [" ".join(words[at : at + 6]) for at in range(0, len(words), 6)]
    return " ".join(f"{sentence}." for sentence in sentences)


def of_speech(text: str) -> int | None:
    """Return the number of the speech that the words belong to."""
    found = re.match(r"speech(\d+)", text)
    return None if found is None else int(found[1])


def nova_knows(session: Any) -> list[str]:
    """Return the agent's words as a model knows them that follows the notes it is sent."""
    found: list[str] = []
    for said in session.conversation:
        if said.role == "ASSISTANT":
            found.append(said.text)
        for heard in re.findall(r"has heard no more than: (.*)\]", said.text):
            text = "" if heard == "nothing at all" else json.loads(heard)
            if found and (not text or of_speech(found[-1]) == of_speech(text)):
                found.pop()
            found += [text] if text else []
    return found


def known_words(name: str, far: Any) -> dict[int, str]:
    """Return what the model knows to have been heard, by speech."""
    if name == "nova":
        texts = nova_knows(far.session)
    else:
        texts = [words for role, words in far.history() if role == "agent"]
    return {number: text for text in texts if (number := of_speech(text)) is not None}


async def heard(name: str, rounds: int) -> list[Figure]:
    """Measure how much more, or less, is reported as heard than was really played."""
    side = SIDES[name]
    dice = random.Random(3)  # noqa: S311
    reported: list[tuple[float, float]] = []
    begun = 0.0
    # Every other speech is interrupted by the person's voice, and the reply to that is empty.
    script = [
        reply
        for number in range(0, rounds, 2)
        for reply in (Reply(speech(number)), Reply(speech(number + 1)), Reply("", 0.0))
    ]
    device = Device()
    async with meeting(side, device, script) as (agent, far):

        def note(event: object) -> None:
            nonlocal begun
            if isinstance(event, AgentTurnStartedEvent):
                begun = device.loud
            elif isinstance(event, InterruptionEvent):
                device.drain(asyncio.get_running_loop().time())
                reported.append((event.played_ms, device.loud - begun))

        agent.events.tap(note)
        for number in range(rounds):
            agent.simple_response("talk", interrupt=False)
            await asyncio.sleep(dice.uniform(0.3, 4.0))
            if number % 2:
                await device.speak(0.5)
                await asyncio.sleep(1.5)
            else:
                agent.interrupt()
                await asyncio.sleep(0.5)
        over = [claimed - played for claimed, played in reported]
        played = [ms for _, ms in reported]
        if name == "openai":
            events = far.session.events_in
            cuts = [e["audio_end_ms"] for e in events if e["type"] == "conversation.item.truncate"]
            to_model = [float(cut) - ms for cut, ms in zip(cuts, played, strict=True)]
            over_model, reported_to = max(*to_model, 0.0), "told to the program and to the model"
            figures = []
        else:
            agent.simple_response("talk", interrupt=False)
            await asyncio.sleep(0.5)
            over_model, reported_to = 0.0, "told to the program"
            figures = [in_words(known_words(name, far), played)]
    most, least = max(*over, over_model, 0.0), max(0.0, *(-value for value in over))
    return [
        Figure(
            f"heard audio over-claimed / under-claimed, {side.transport}, confirmed, worst",
            "0 / <= 60 ms",
            f"{most:.0f} / {least:.0f} ms",
            most <= 0 and least <= 60 and len(reported) == rounds,
            f"{len(reported)} interruptions, half by voice, {reported_to}; a "
            "device with 40 ms of buffer that reports every 40 ms; virtual time",
        ),
        *figures,
    ]


def in_words(known: dict[int, str], played: list[float]) -> Figure:
    """Return the same figure for a model that gets notes, by the time its words take to say."""
    more = {n: len(text) / CHARS_PER_S * 1000 - played[n] for n, text in known.items()}
    most, least = max(0.0, *more.values()), max(0.0, *(-ms for ms in more.values()))
    return Figure(
        "words that the model takes to have been heard, beyond what was played, worst",
        "0 ms",
        f"{most:.0f} ms",
        most < 1 and len(known) >= len(played) / 2,
        f"by the time that they take to say ({CHARS_PER_S} letters a second); at most {least:.0f} "
        f"ms too few; of {len(played) - len(known)} of {len(played)} speeches nothing",
    )
