"""What it costs to observe a conversation: ``python -m benchmarks.observing``.

A session costs about half a percent of a core, and observing it a fraction of that, which is less
than two runs differ. So the events of one conversation are recorded, and given to what observes
them again and again; the ticks whose lateness is a metric are counted in the same way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.figures import Figure, give
from duologue import Agent, AudioFrame
from duologue.clock import LoopClock
from duologue.edges import wav
from duologue.events import Event
from duologue.observe import Metrics, StallWatchdog, trace
from duologue.observe.live import LiveCall
from duologue.testing import Reply, ScriptedRealtime, run_virtual
from duologue.ticker import ticker_for

TURNS = 8
REPEATS = 200
WATCH_S = 20.0
TICKS_PER_S = 50


def conversation() -> tuple[list[Event], float]:
    """Return the events of a conversation of short turns, and its length in seconds."""
    rate = 16000
    period = np.repeat(np.array([8000, -8000], np.int16), 40)
    turn = np.concatenate([np.tile(period, rate // 80), np.zeros(4 * rate, np.int16)])
    recorded: list[Event] = []

    async def talk() -> None:
        model = ScriptedRealtime(
            [Reply("It leaves at nine from platform four, as on any day.", seconds=3.0)] * TURNS,
            transcripts=["when does the train leave"] * TURNS,
        )
        edge = wav.Edge(AudioFrame(np.tile(turn, TURNS), rate))
        agent = Agent(edge=edge, llm=model)
        agent.events.tap(recorded.append)
        async with agent.join():
            await agent.finish()

    run_virtual(talk())
    return recorded, recorded[-1].at - recorded[0].at


def cost_percent(
    events: list[Event], seconds: float, observe: Callable[[Agent], object], ticks: int = 0
) -> float:
    """Return what observing takes of a core, for one session."""
    spent = []
    for _ in range(REPEATS):
        agent = Agent(edge=wav.Edge(AudioFrame.silence(0.1, 16000)), llm=ScriptedRealtime())
        observe(agent)
        began = time.process_time()
        for event in events:
            agent.events.emit(event)
        spent.append(time.process_time() - began)
    lag = 0.0
    if ticks:
        metrics, clock = Metrics(), LoopClock()
        began = time.process_time()
        for _ in range(ticks * 1000):
            metrics._lag.observe(max(0.0, clock.now() - 0.0))
        lag = (time.process_time() - began) / 1000
    return 100 * (sorted(spent)[len(spent) // 2] / seconds + lag)


async def watchdog_percent() -> float:
    """Return what the watchdog takes of a core, beyond a loop that ticks anyway."""
    ticks = ticker_for(LoopClock()).subscribe(lambda when: None)
    began = time.process_time()
    await asyncio.sleep(WATCH_S)
    alone = time.process_time() - began
    with StallWatchdog():
        began = time.process_time()
        await asyncio.sleep(WATCH_S)
        watched = time.process_time() - began
    ticks.cancel()
    return 100 * max(0.0, watched - alone) / WATCH_S


async def main() -> None:
    events, seconds = await asyncio.to_thread(conversation)
    note = f"{len(events)} events of a conversation of {seconds:.0f} s"
    nothing = cost_percent(events, seconds, lambda agent: None)
    metrics = Metrics()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    counted = cost_percent(events, seconds, metrics.watch, ticks=TICKS_PER_S)
    live = cost_percent(events, seconds, LiveCall)
    traced = cost_percent(events, seconds, lambda agent: trace(agent, provider))
    provider.shutdown()
    watchdog = await watchdog_percent()
    give(
        [
            Figure(
                "metrics: CPU a session",
                "<= 0.1 % of a core",
                f"{counted - nothing:.3f} %",
                counted - nothing <= 0.1,
                f"{note}, and {TICKS_PER_S} ticks a second, which many sessions share",
            ),
            Figure(
                "page of running calls: CPU a session that nobody looks at",
                "published",
                f"{live - nothing:.3f} %",
                reached=True,
                note=note,
            ),
            Figure(
                "traces: CPU a session",
                "published",
                f"{traced - nothing:.3f} %",
                reached=True,
                note=note,
            ),
            Figure(
                "stall watchdog: CPU of a process",
                "<= 0.05 % of a core",
                f"{watchdog:.3f} %",
                watchdog <= 0.05,
                f"over {WATCH_S:g} s, beyond a loop that ticks 50 times a second anyway",
            ),
        ]
    )


if __name__ == "__main__":
    asyncio.run(main())
