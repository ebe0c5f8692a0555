"""What holds of a session with OpenAI's protocol: silence, truth, and nothing lost.

``python -m benchmarks.openai_truth interrupts|heard|kills|rolling|setup``. The conversations are
those of the conformance suite (``tests/conformance``), most in virtual time.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, give, median, percentile
from duologue.agent import Agent
from duologue.audio import AudioFrame
from duologue.events import InterruptionEvent, RealtimeReconnectedEvent
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
    took, stale = [], 0
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
            shut.append(time.perf_counter())

        def sent(kind: str, text: str) -> None:
            if kind == "input_audio_buffer.speech_started":
                told.append(time.perf_counter())
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
            cut = asyncio.get_running_loop().time()
            took.append((shut[0] - told[0]) * 1000)
            await asyncio.sleep(0.6)
            # The person goes on for 0.2 s, and is waited for 0.3 s: what sounds before is old.
            stale += sum(cut + 0.001 < at < cut + 0.4 for at in line.at)
            agent.interrupt()
            await asyncio.sleep(0.3)
    worst = percentile(took, 99)
    return [
        Figure(
            "speech_started leaves the server to the gate shut, after which no sample leaves, p99",
            "<= 2 ms, 0 stale samples",
            f"{worst:.2f} ms (median {median(took):.2f}), {stale} stale",
            worst <= 2 and not stale,
            f"{rounds} interruptions 1.5 s into a burst, WebSocket; server in the same process",
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
    over, under = [0.0], [0.0]
    script = [Reply(LONG) for _ in range(rounds)]
    async with OpenAISimulator(replies=script) as server:
        device = Device()
        llm = openai.Realtime(transport="websocket", base_url=server.url, api_key=server.key)
        agent = Agent(edge=device, llm=llm)
        told: list[InterruptionEvent] = []

        @agent.events.subscribe
        def note(event: InterruptionEvent) -> None:
            told.append(event)

        async with agent.join():
            for _ in range(rounds):
                before = device.loud
                agent.simple_response("talk", interrupt=False)
                await asyncio.sleep(dice.uniform(0.3, 4.0))
                agent.interrupt()
                device._drain(asyncio.get_running_loop().time())
                played = device.loud - before
                await asyncio.sleep(0.5)
                claimed = told[-1].played_ms
                over.append(claimed - played)
                under.append(played - claimed)
    return [
        Figure(
            "heard audio over-claimed / under-claimed, WebSocket, confirmed, worst",
            "0 / <= 60 ms",
            f"{max(0.0, *over):.0f} / {max(0.0, *under):.0f} ms",
            max(over) <= 0 and max(under) <= 60,
            f"{rounds} interruptions; a device with 40 ms of buffer that reports every 40 ms",
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


async def kills(count: int) -> list[Figure]:
    """A long conversation whose connection is killed at random moments."""
    dice = random.Random(11)  # noqa: S311
    turns = [f"question number {index}" for index in range(60)]
    options: dict[str, Any] = {"simulator": {"keep_audio": True}}
    wrong_ms, missing, doubled = 0, 0, 0
    killed = 0
    async with conversation("openai-websocket", ["An answer."] * 400, turns, **options) as (
        agent,
        line,
        far,
    ):
        over = asyncio.Event()

        async def kill() -> None:
            nonlocal killed
            while killed < count:
                await asyncio.sleep(dice.uniform(0.5, 6.5))
                if agent.llm.connected:
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
        said = [i.text for i in agent.conversation if isinstance(i, UserItem)]
        answers = [i for i in agent.conversation if isinstance(i, AgentItem)]
        missing = sum(turn not in said for turn in turns)
        doubled = sum(said.count(turn) > 1 for turn in turns)
        known = [words for role, words in far.history() if role == "user"]
        missing += sum(turn not in known for turn in turns)
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
            f"{wrong_ms + lost_ms:.0f} ms, {missing + doubled}",
            not (wrong_ms or lost_ms or missing or doubled),
            f"{len(turns)} turns of 1 s, {len(answers)} answers, {again} new connections, TCP "
            "resets, virtual time",
        )
    ]


async def rolling() -> list[Figure]:
    """A change of connections asked for in the middle of a speech."""
    async with conversation("openai-websocket", [LONG]) as (agent, line, far):
        speech = agent.simple_response("talk")
        await asyncio.sleep(3)
        agent.llm.roll_over()
        await speech
        sounding = [index for index, frame in enumerate(line.frames) if frame is not None]
        gaps = sounding[-1] - sounding[0] + 1 - len(sounding)
        changed = len(far.simulator.sessions)
        played = speech.played_ms
    return [
        Figure(
            "roll-over in the middle of a speech: audible gap",
            "none",
            f"{gaps * 20} ms",
            gaps == 0 and changed == 2,
            f"{played / 1000:.1f} s of speech, WebSocket, {changed} connections",
        )
    ]


async def setup(rounds: int) -> list[Figure]:
    """Real time, WebRTC to the provider: joining, the first sound, and the CPU of one session."""
    joins, sounds = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        async with conversation("openai-webrtc", [Reply("Hello there.", after_s=0.0)]) as (
            agent,
            line,
            _far,
        ):
            joins.append((time.perf_counter() - began) * 1000)
            asked = time.perf_counter()
            agent.simple_response("hello")
            while not line.at:
                await asyncio.sleep(0.001)
            sounds.append((time.perf_counter() - asked) * 1000)
    async with conversation("openai-webrtc", [LONG] * 3) as (agent, _line, _far):
        agent.simple_response("talk")
        await asyncio.sleep(1)
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.sleep(8)
        share = (time.process_time() - cpu) / (time.perf_counter() - wall) * 100
    return [
        Figure(
            "WebRTC to the provider: join, then request to first sound; CPU of one session",
            "published",
            f"{median(joins):.0f} ms, {median(sounds):.0f} ms; {share:.1f} %",
            True,
            "join: simulator start, POST, ICE, DTLS, data channel, session; first sound: brain, "
            "Opus, up to two 20 ms clocks; CPU: both ends, caller and simulator in one process",
        )
    ]


def main() -> None:
    match sys.argv[1]:
        case "interrupts":
            give(asyncio.run(interrupts(24)))
        case "heard":
            give(run_virtual(heard(60), grace=0.0))
        case "kills":
            give(run_virtual(kills(100), grace=0.0))
        case "rolling":
            give(run_virtual(rolling(), grace=0.0))
        case "setup":
            give(asyncio.run(setup(5)))


if __name__ == "__main__":
    main()
