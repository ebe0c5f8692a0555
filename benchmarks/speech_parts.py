"""Voices and recognisers that keep a connection, in a pipeline.

``python -m benchmarks.speech_parts cartesia|deepgram|elevenlabs`` has a conversation of 20 turns in
real time with the vendor's simulated recogniser and voice, which run in a process of their own.
``heard`` cuts 200 replies of every vendor, in virtual time. ``cpu`` runs 40 sessions beside clients
by hand.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict

import numpy as np
import orjson

from benchmarks.agent_client import FedEdge
from benchmarks.baseline_client import TICK_S
from benchmarks.figures import Figure, give, median, percentile
from benchmarks.speech_clients import CYCLE_S, Kind, Order, Window
from benchmarks.speech_services import SIMULATORS, Entry, Services
from duologue.agent.agent import Agent
from duologue.audio import AudioFrame
from duologue.items import AgentItem, Item
from duologue.pipeline.interfaces import LLMOutput, StreamingSTT, StreamingTTS, TextDelta
from duologue.providers import cartesia, deepgram, elevenlabs
from duologue.realtime.commands import ToolSpec
from duologue.simulators._speech.voices import ToneVoice
from duologue.testing import run_virtual
from duologue.vad.energy import EnergyVAD

RATE = 16000
TURNS = 20
TURN_S, PAUSE_S = 0.4, 1.9
"""Seconds that the person speaks, and is silent then."""
REQUESTS, REQUEST_S = 15, 1.4
"""Replies that the program requests besides, and seconds between them: no draft is made of these,
so the first audio is played at once.
"""
FIRST_WORDS, REST = "Yes. ", "Go on."
"""What the scripted model says; the first words are a clause."""
REPLY = "One two three, four five. Six seven eight nine ten! Eleven twelve thirteen."
CUTS = 200
SLOW, OLDER = ", a voice that takes its time", ", Nova and Aura"
WITHOUT_TIMES = {
    (
        "deepgram",
        "",
    ): "; the service tells no times of words, and nothing of a reply whose audio is "
    "complete, so these are spread evenly",
    ("deepgram", OLDER): "; the service tells where clauses begin, within them words are spread "
    "evenly",
}
"""What limits the figures of services that do not tell when each word is spoken."""
SLOW_SPEED = 1.2
"""Seconds of audio that it makes in a second, so that it is cut before it is done."""
SESSIONS = 40
PASSES = 3
MAX_CPU = 1.5


def make_parts(
    vendor: str, url: str, key: str, *, older: bool = False
) -> tuple[StreamingSTT, StreamingTTS]:
    """Return the recogniser and voice of a vendor; ``older``: Deepgram's Nova and Aura."""
    match vendor:
        case "cartesia":
            return (
                cartesia.STT(base_url=url, api_key=key),
                cartesia.TTS("v", base_url=url, api_key=key),
            )
        case "elevenlabs":
            return (
                elevenlabs.STT(base_url=url, api_key=key),
                elevenlabs.TTS("v", base_url=url, api_key=key),
            )
        case "deepgram" if older:
            return (
                deepgram.STT("nova-3", base_url=url, api_key=key),
                deepgram.TTS("aura-2-thalia-en", base_url=url, api_key=key),
            )
        case "deepgram":
            return deepgram.STT(base_url=url, api_key=key), deepgram.TTS(base_url=url, api_key=key)
    raise SystemExit(f"no vendor is called {vendor!r}; there are: {', '.join(SIMULATORS)}")


class ScriptedLLM:
    """A language model that always says the same, and records when it was asked and spoke."""

    model = "scripted"
    tools_reliable = True

    def __init__(self, *pieces: str, pause_s: float) -> None:
        self._pieces = pieces
        self._pause_s = pause_s
        self.asked: list[float] = []
        self.first_words: list[float] = []

    async def prepare(self, instructions: str, tools: Sequence[ToolSpec]) -> None: ...

    async def generate(
        self, instructions: str, history: Sequence[Item], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[LLMOutput]:
        del instructions, history, tools
        self.asked.append(time.perf_counter())
        for index, piece in enumerate(self._pieces):
            await asyncio.sleep(self._pause_s)
            if index == 0:
                self.first_words.append(time.perf_counter())
            yield TextDelta(piece)


class LeadEdge(FedEdge):
    """An edge with a lead, whose person speaks in real time, and which records times."""

    def __init__(self, output_rate: int) -> None:
        super().__init__(lead_ms=200)
        self.output_rate = output_rate
        self.played: list[float] = []
        """When each frame reached the edge."""
        self.said: dict[int, float] = {}
        """When each loud frame of the person was pushed; its first sample is its number."""

    def play(self, frame: AudioFrame | None) -> None:
        if frame is not None:
            self.played.append(time.perf_counter())

    async def speak(self, seconds: float, level: int) -> None:
        """Push audio of a level every 20 ms."""
        period = np.repeat([level, -level], RATE // 400).astype(np.int16)
        loop = asyncio.get_running_loop()
        began = loop.time()
        for index in range(round(seconds / TICK_S)):
            await asyncio.sleep(began + (index + 1) * TICK_S - loop.time())
            samples = np.tile(period, 4)
            if level:
                samples[0] = number = len(self.said) + 1
                self.said[number] = time.perf_counter()
            if self.person is not None:
                self.person.push_audio(AudioFrame(samples, RATE))


class Turns:
    """The delays of each turn of a conversation; ``begins`` is when the turns began."""

    def __init__(self, begins: Sequence[float], end: float, log: Sequence[Entry]) -> None:
        self._begins = begins
        self._end = end
        self._log = log

    def logged(self, part: str, *kinds: str) -> list[float]:
        """Return when messages of these kinds passed."""
        return [at for at, one, kind, _ in self._log if one == part and kind in kinds]

    def first(self, times: Sequence[float]) -> list[float | None]:
        """Return the first of these times in each turn."""
        ends = [*self._begins[1:], self._end]
        return [
            next((at for at in times if begin <= at < end), None)
            for begin, end in zip(self._begins, ends, strict=True)
        ]

    def delays_ms(self, before: Sequence[float], after: Sequence[float]) -> list[float]:
        """Return the ms from the first of some times in a turn to the first of others."""
        pairs = zip(self.first(before), self.first(after), strict=True)
        return [(b - a) * 1000 for a, b in pairs if a is not None and b is not None]


async def converse(vendor: str, services: Services) -> list[Figure]:
    """Have the conversation, and return its figures."""
    stt, tts = make_parts(vendor, *services.addresses[vendor])
    llm, edge = ScriptedLLM(FIRST_WORDS, REST, pause_s=0.03), LeadEdge(tts.rate)
    agent = Agent(edge=edge, llm=llm, stt=stt, tts=tts, vad=EnergyVAD())
    begins: list[float] = []
    async with agent.join():
        await edge.speak(0.5, 0)
        for _ in range(TURNS):
            begins.append(time.perf_counter())
            await edge.speak(TURN_S, 8000)
            await edge.speak(PAUSE_S, 0)
        replies = [item.text for item in agent.conversation if isinstance(item, AgentItem)]
        requests: list[float] = []
        for _ in range(REQUESTS):
            requests.append(time.perf_counter())
            agent.simple_response("go on")
            await edge.speak(REQUEST_S, 0)
    log = services.report()
    turns, requested = Turns(begins, requests[0], log), Turns(requests, float("inf"), log)
    arrived = {n: at for at, part, kind, n in log if part == "stt" and kind == "<audio"}
    connections = [len(turns.logged(part, "connection")) for part in ("stt", "tts")]
    return [
        delay_figure(
            f"{vendor}: first words of the LLM to the request at the TTS",
            1.0,
            requested.delays_ms(llm.first_words, turns.logged("tts", "<text")),
        ),
        delay_figure(
            f"{vendor}: first audio message of the TTS to an edge with a lead",
            1.0,
            requested.delays_ms(turns.logged("tts", ">chunk", ">audio"), edge.played),
        ),
        delay_figure(
            f"{vendor}: the person's audio to the STT socket",
            0.5,
            [(arrived[n] - at) * 1000 for n, at in edge.said.items() if n in arrived],
        ),
        *(end_figures(vendor, turns, llm) if stt.turns == "service" else ()),
        Figure(
            f"{vendor}: connections in a conversation of {TURNS} turns",
            "one a part",
            " and ".join(map(str, connections)),
            connections == [1, 1] and replies == [FIRST_WORDS + REST] * TURNS,
            f"recogniser and voice; {replies.count(FIRST_WORDS + REST)} whole replies",
        ),
    ]


def delay_figure(name: str, target_ms: float, values: Sequence[float]) -> Figure:
    """Return the figure of a delay."""
    if not values:
        return Figure(name, f"<= {target_ms:g} ms", "nothing came", reached=False)
    middle = median(values)
    return Figure(
        f"{name}, median",
        f"<= {target_ms:g} ms",
        f"{middle:.2f} ms",
        middle <= target_ms,
        f"{len(values)} times; p90 {percentile(values, 90):.2f} ms; the service in a process of "
        "its own, WebSocket",
    )


def end_figures(vendor: str, turns: Turns, llm: ScriptedLLM) -> list[Figure]:
    """Return the figures of the service's ends of turns."""
    eager = turns.logged("stt", ">turn.eager_end", ">EagerEndOfTurn")
    ends = turns.first(turns.logged("stt", ">turn.end", ">EndOfTurn"))
    asked = turns.first(llm.asked)
    running = sum(
        a is not None and e is not None and a < e for a, e in zip(asked, ends, strict=True)
    )
    return [
        delay_figure(
            f"{vendor}: the service's eager end of a turn to the request to the LLM",
            1.0,
            turns.delays_ms(eager, llm.asked),
        ),
        Figure(
            f"{vendor}: turns at whose end the reply was already being made, of {TURNS}",
            f"{TURNS}",
            f"{running}",
            running == TURNS,
            f"the LLM was asked {len(llm.asked)} times",
        ),
    ]


class HeardEdge(FedEdge):
    """An edge without a lead, for cuts in virtual time."""

    output_rate = 24000


async def cut(vendor: str, variant: str = "") -> Figure:
    """Cut replies at random moments, and compare what is told as heard with what was played."""
    words: list[tuple[str, float]] = []
    at = 0.0
    async for piece in ToneVoice(24000).speak(REPLY):
        words += [(word, at + start) for word, start, _ in piece.words]
        at += len(piece.samples) / 24000
    rng = random.Random(7)  # noqa: S311 - the moments of cuts
    edge, llm = HeardEdge(), ScriptedLLM(*(f"{w} " for w in REPLY.split(" ")), pause_s=0.005)
    older = variant == OLDER
    slow = {"flux_speed": SLOW_SPEED} if variant == SLOW else {}
    async with SIMULATORS[vendor](**slow) as service:
        stt, tts = make_parts(vendor, service.url, service.key, older=older)
        agent = Agent(edge=edge, llm=llm, stt=stt, tts=tts, vad=EnergyVAD())
        async with agent.join():
            done = 0
            while done < CUTS:
                agent.simple_response("go on")
                await asyncio.sleep(0.1 + rng.random() * 5.0)
                agent.interrupt()
                await asyncio.sleep(2.0 if older else 0.6)
                done = len(cut_items(agent))
            cuts = cut_items(agent)
    short = over = 0
    for item in cuts:
        begun = sum(start < (item.played_ms or 0) / 1000 for _, start in words)
        heard = len(item.text.split()) if REPLY.startswith(item.text) else 99
        short, over = max(short, begun - heard), max(over, heard - begun)
    limit = WITHOUT_TIMES.get((vendor, variant), "")
    return Figure(
        f"{vendor}{variant}: heard text at {CUTS} cuts, words short / over, worst",
        "<= 1 / 0",
        f"{short} / {over}",
        short <= 1 and over <= 0,
        f"against the samples that were played; virtual time{limit}",
    )


def cut_items(agent: Agent) -> list[AgentItem]:
    """Return the replies that were cut."""
    return [i for i in agent.conversation if isinstance(i, AgentItem) and i.state == "cut"]


def heard() -> list[Figure]:
    """Return the figures of all vendors."""
    figures: list[Figure] = []

    async def run(vendor: str, variant: str = "") -> None:
        figures.append(await cut(vendor, variant))

    for vendor in SIMULATORS:
        run_virtual(run(vendor), grace=0.0)
    for variant in (SLOW, OLDER):
        run_virtual(run("deepgram", variant), grace=0.0)
    return figures


def measure(order: Order) -> Window:
    """Run one kind of client in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speech_clients", orjson.dumps(asdict(order)).decode()],
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return Window(**orjson.loads(done.stdout))


def cpu() -> list[Figure]:
    """Measure both kinds of client in turns: forward, backward, forward."""
    runs: dict[Kind, list[Window]] = {"raw": [], "ours": []}
    kinds: list[Kind] = ["raw", "ours"]
    with Services("deepgram", "cartesia") as services:
        addresses = {name: (url, key) for name, (url, key) in services.addresses.items()}
        for number in range(PASSES):
            for kind in kinds if number % 2 == 0 else kinds[::-1]:
                window = measure(Order(kind, addresses, SESSIONS, warm_s=CYCLE_S, seconds=CYCLE_S))
                runs[kind].append(window)
                sys.stderr.write(
                    f"{kind:>6}: CPU {window.cpu:.2f} %, agent's audio {window.audio_s:.2f} s, "
                    f"at least {window.least_audio_s:.2f} s\n"
                )
    ours, raw = (median([window.cpu for window in runs[kind]]) for kind in ("ours", "raw"))
    pairs = zip(runs["ours"], runs["raw"], strict=True)
    ratios = sorted(one.cpu / other.cpu for one, other in pairs)
    ratio = median(ratios)
    least = min(window.least_audio_s for windows in runs.values() for window in windows)
    return [
        Figure(
            f"pipeline of Deepgram, a scripted LLM and Cartesia: CPU of one session of {SESSIONS}",
            f"<= {MAX_CPU} x three clients by hand",
            f"{ratio:.2f} x",
            ratio <= MAX_CPU and least > 0,
            f"{ours:.2f} % of a core; by hand {raw:.2f} %; ratios {ratios[0]:.2f} to "
            f"{ratios[-1]:.2f}; a turn of 1 s every {CYCLE_S:g} s; the session that "
            f"got least heard {least:.1f} s of the agent in that time",
        )
    ]


def main() -> None:
    name = sys.argv[1]
    if name == "cpu":
        give(cpu())
    elif name == "heard":
        give(heard())
    else:
        with Services(name, log=True) as services:
            give(asyncio.run(converse(name, services)))


if __name__ == "__main__":
    main()
