"""What holds of a session with OpenAI's protocol: silence, truth, and nothing lost.

``python -m benchmarks.openai_truth interrupts|heard|kills|rolling``. The conversations are those of
the conformance suite (``tests/conformance``), most in virtual time.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, give, median, percentile
from duologue.agent import Agent
from duologue.audio import AudioFrame
from duologue.events import AgentTurnStartedEvent, InterruptionEvent, RealtimeReconnectedEvent
from duologue.items import AgentItem, UserItem
from duologue.providers import openai
from duologue.testing import OpenAISimulator, Reply, run_virtual

sys.path[:0] = [str(Path(__file__).parent.parent / "tests" / part) for part in ("", "conformance")]

from subjects import FIRST_HZ, Line, conversation  # noqa: E402

LONG = " ".join(f"word{index}" for index in range(60))


def of(agent: Any, kind: type) -> list[Any]:
    return [event for event in agent.told if isinstance(event, kind)]


async def interrupts(rounds: int) -> list[Figure]:
    """Real time: the server says that somebody speaks; when does the last sample leave?"""
    took, late, stale = [], [], 0
    loop = asyncio.get_running_loop()
    async with conversation("openai-websocket", [LONG] * (rounds * 3), ["stop it"] * rounds) as (
        agent,
        line,
        far,
    ):
        call = agent._live.call
        shut, told = [], []
        hold = call.playout.hold
        send = far.session._line.send

        def held() -> None:
            hold()
            shut.append(loop.time())

        def sent(kind: str, text: str) -> None:
            if kind == "input_audio_buffer.speech_started":
                told.append(loop.time())
            send(kind, text)

        call.playout.hold = held
        far.session._line.send = sent
        for _ in range(rounds):
            agent.simple_response("talk")
            await asyncio.sleep(1.5)
            shut.clear()
            told.clear()
            before = len(of(agent, InterruptionEvent))
            await line.speak(0.4)
            async with asyncio.timeout(5):
                while len(of(agent, InterruptionEvent)) == before:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.6)
            began, gate = told[0], shut[0]
            took.append((gate - began) * 1000)
            # The person goes on for 0.3 s, and is waited for 0.3 s: what sounds before is old.
            after = [at for at in line.at if began < at < began + 0.6]
            late.append((max(after, default=began) - began) * 1000)
            stale += sum(at > gate for at in after)
            agent.interrupt()
            await asyncio.sleep(0.3)
    worst, last = percentile(took, 99), max(late)
    return [
        Figure(
            "speech_started leaves the server to the gate shut; last sample handed to the edge; "
            "samples after the gate",
            "<= 2 ms p99; <= 2 ms; 0",
            f"{worst:.2f} ms (median {median(took):.2f}); {last:.2f} ms; {stale}",
            worst <= 2 and last <= 2 and not stale,
            f"{rounds} interruptions 1.5 s into a burst, WebSocket, real time; server in the same "
            f"process; in {sum(ms > 0 for ms in late)} of them a frame left after speech_started",
        )
    ]


class Device(Line):
    """A sound device: plays at its own pace, with a buffer, and says what it has played."""

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
        self._drain(now)
        begin = max(now + 0.04, self.buffer[-1][0] + 0.02 if self.buffer else 0.0)
        self.buffer.append((begin, loud))
        self.taken += 480
        if self.taken % 960 == 0 and self.person is not None:
            self.person.played(self.done)

    def clear(self) -> None:
        self._drain(asyncio.get_running_loop().time())
        self.done += 480 * len(self.buffer)
        self.buffer.clear()

    def _drain(self, now: float) -> None:
        while self.buffer and self.buffer[0][0] + 0.02 <= now:
            _, loud = self.buffer.popleft()
            self.done += 480
            self.loud += 20.0 * loud


async def heard(rounds: int) -> list[Figure]:
    """How much more, or less, is claimed as heard than was really played."""
    dice = random.Random(3)  # noqa: S311
    told: list[tuple[float, float]] = []
    begun = 0.0
    # Each second speech is interrupted by the person's voice, which is answered by nothing.
    script = [Reply(LONG), Reply(LONG), Reply("", 0.0)] * (rounds // 2)
    async with OpenAISimulator(replies=script) as server:
        device = Device()
        llm = openai.Realtime(
            transport="websocket",
            base_url=server.url,
            api_key=server.key,
            turn_detection=openai.ServerVAD(silence_duration_ms=300),
        )
        agent = Agent(edge=device, llm=llm)

        def note(event: object) -> None:
            nonlocal begun
            if isinstance(event, AgentTurnStartedEvent):
                begun = device.loud
            elif isinstance(event, InterruptionEvent):
                device._drain(asyncio.get_running_loop().time())
                told.append((event.played_ms, device.loud - begun))

        agent.events.tap(note)
        async with agent.join():
            for number in range(rounds):
                agent.simple_response("talk", interrupt=False)
                await asyncio.sleep(dice.uniform(0.3, 4.0))
                if number % 2:
                    await device.speak(0.5)
                    await asyncio.sleep(1.5)
                else:
                    agent.interrupt()
                    await asyncio.sleep(0.5)
        cuts = [
            event["audio_end_ms"]
            for event in server.sessions[-1].events_in
            if event["type"] == "conversation.item.truncate"
        ]
    over = [claimed - played for claimed, played in told]
    to_model = [float(str(cut)) - played for cut, (_, played) in zip(cuts, told, strict=True)]
    most, least = max(*over, *to_model, 0.0), max(0.0, *(-value for value in over))
    return [
        Figure(
            "heard audio over-claimed / under-claimed, WebSocket, confirmed, worst",
            "0 / <= 60 ms",
            f"{most:.0f} / {least:.0f} ms",
            most <= 0 and least <= 60 and len(told) == rounds,
            f"{len(told)} interruptions, half by voice, told to the program and to the model; a "
            "device with 40 ms of buffer that reports every 40 ms; virtual time",
        )
    ]


def loud_ms(samples: np.ndarray) -> int:
    """Milliseconds of speech in a turn, rounded to 4: from its first to its last, without holes."""
    loud = np.flatnonzero(np.abs(samples.astype(int)) > 1000)
    if not len(loud):
        return 0
    holes = np.diff(loud)
    # A tone of 400 Hz and more is never below a ninth of its height for as long as 2 ms.
    length = loud[-1] - loud[0] - int(holes[holes > 48].sum())
    return 4 * round(length / 96)


def pitch(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples.astype(float)))
    return float(np.argmax(spectrum)) * 24000 / len(samples)


async def kills(count: int, seed: int) -> list[Figure]:
    """A long conversation whose connection is killed at random moments."""
    dice = random.Random(seed)  # noqa: S311
    turns = [f"question number {index}" for index in range(60)]
    options: dict[str, Any] = {"simulator": {"keep_audio": True, "transcription_delay": 0.7}}
    killed, early = 0, 0
    async with conversation("openai-websocket", ["An answer."] * 400, turns, **options) as (
        agent,
        line,
        far,
    ):
        over = asyncio.Event()
        make = far.simulator._session

        def session(line: Any, configuration: Any) -> Any:
            nonlocal killed, early
            made = make(line, configuration)
            if killed < count and dice.random() < 0.1:
                killed += 1
                early += 1
                asyncio.get_running_loop().call_soon(line.cut)
            return made

        far.simulator._session = session

        async def kill() -> None:
            nonlocal killed
            while killed < count:
                await asyncio.sleep(dice.uniform(0.5, 6.5))
                if far.simulator._open:
                    killed += 1
                    await far.lose()
            over.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(kill())
            for _ in turns:
                await line.speak(1.0)
                await asyncio.sleep(6.0)
            await over.wait()
        await asyncio.sleep(15)
        items = [*agent.conversation]
        said = [item.text for item in items if isinstance(item, UserItem)]
        answers = [item for item in items if isinstance(item, AgentItem)]
        wrong = misplaced(said, turns)
        # An answer that broke off may be two items, but each turn has one before the next.
        follows = [isinstance(item, AgentItem) for item in items[1:]]
        wrong += sum(
            isinstance(item, UserItem) and not answered
            for item, answered in zip(items, [*follows, False], strict=True)
        )
        # One speech for each turn: more of them are answers that were given twice.
        wrong += abs(len(answers) - len(turns))
        known = far.history()
        wrong += misplaced([words for role, words in known if role == "user"], turns)
        wrong += abs(sum(role == "agent" for role, _ in known) - len(answers))
        # The last time that a turn was heard is the one that counts; earlier ones broke off.
        newest: dict[int, int] = {}
        for session in far.simulator.sessions:
            for turn in session.heard:
                number = round((pitch(turn.samples) - FIRST_HZ) / 100)
                newest[number] = loud_ms(turn.samples)
        wrong_ms = sum(abs(newest.get(n, 0) - line.spoken_ms[n]) for n in range(len(turns)))
        lost_ms = agent.llm.lost_audio / 24
        again = len(of(agent, RealtimeReconnectedEvent))
    return [
        Figure(
            f"connection killed at {killed} random moments: user audio lost or doubled, "
            "history items lost or doubled",
            "0 ms, 0",
            f"{wrong_ms + lost_ms:.0f} ms, {wrong}",
            not (wrong_ms or lost_ms or wrong),
            f"{len(turns)} turns of 1 s, {len(answers)} answers, {again} new connections "
            f"(one in ten is killed at once, {early} in all), TCP resets, transcripts 0.7 s late, "
            "virtual time; lengths to 4 ms",
        )
    ]


def misplaced(said: list[str], meant: list[str]) -> int:
    """Turns that are missing, there twice, or in another place."""
    wrong = sum(abs(said.count(turn) - 1) for turn in meant) + sum(t not in meant for t in said)
    return wrong or int(said != meant)


async def speech(*, pace: float, roll: bool) -> tuple[np.ndarray, int, int]:
    """What the person got of a speech, from its first frame to its last; gaps; connections."""
    async with conversation("openai-websocket", [Reply(LONG, pace=pace)]) as (agent, line, far):
        told = agent.simple_response("talk")
        await asyncio.sleep(3)
        if roll:
            agent.llm.roll_over()
        await told
        await asyncio.sleep(1)
        sounding = [index for index, frame in enumerate(line.frames) if frame is not None]
        gaps = sounding[-1] - sounding[0] + 1 - len(sounding)
        return line.sound, gaps, len(far.simulator.sessions)


async def rolling() -> list[Figure]:
    """A change of connections asked for in the middle of a speech, beside the same without."""
    differ, gaps_ms, changes, seconds = 0, 0, 0, 0.0
    for pace in (0.0, 1.1):
        whole, _, _ = await speech(pace=pace, roll=False)
        heard, gaps, connections = await speech(pace=pace, roll=True)
        same = min(len(whole), len(heard))
        differ += int(np.count_nonzero(whole[:same] != heard[:same]))
        differ += max(len(whole), len(heard)) - same
        gaps_ms += gaps * 20
        changes += connections - 1
        seconds += len(heard) / 24000
    return [
        Figure(
            "roll-over asked for in the middle of a speech: gap, samples unlike those without one",
            "none, 0",
            f"{gaps_ms} ms, {differ}",
            not gaps_ms and not differ and changes == 2,
            f"{seconds:.0f} s of speech in two, one that came in a burst and one in real time, "
            f"WebSocket, {changes} changes of connections, virtual time",
        )
    ]


def main() -> None:
    match sys.argv[1]:
        case "interrupts":
            give(asyncio.run(interrupts(24)))
        case "heard":
            give(run_virtual(heard(60), grace=0.0))
        case "kills":
            give(run_virtual(kills(100, 11), grace=0.0))
        case "rolling":
            give(run_virtual(rolling(), grace=0.0))


if __name__ == "__main__":
    main()
