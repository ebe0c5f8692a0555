"""One measurement of one client, in a process of its own: ``python -m benchmarks.contender JSON``.

`benchmarks.side_by_side` starts it. All sessions of the client run in this process, each with a
20 ms timer of its own, spread over the tick. After a warm-up it measures for a few seconds, and
prints a `Window` as JSON.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import ssl
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import orjson

from benchmarks.baseline_client import TICK_S, BareClient, Client, Pace
from benchmarks.wire_formats import DIALECTS

type Kind = Literal["raw", "lean", "ours", "ours-uvloop"]

CONNECT_S = 0.012
"""Seconds between the starts of two sessions."""
SETTLE_S = 0.3
"""A frame that was sent this many seconds before the end has to have come back."""


SILENCE_S = 0.5
"""Seconds from the start of the last session to the first audio."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run, and against which provider."""

    kind: Kind
    provider: str
    port: int
    sessions: int
    warm_s: float
    seconds: float
    lead_ms: int
    tls: bool

    def rate(self) -> int:
        """Return the sample rate of the client's audio in Hz."""
        return DIALECTS[self.provider].rate if self.provider in DIALECTS else 16000


@dataclass(frozen=True, slots=True)
class Window:
    """What one client did while it was measured."""

    cpu: float
    """CPU of one session, in % of a core."""
    rate: float
    """Frames that came back per second to the session that got fewest."""
    lost: int
    sent_frames: int
    late: float
    """20 ms timers that ran more than 20 ms late, in %."""
    sent: dict[int, float]
    got: dict[int, float]
    """When each numbered frame was sent and came back, by the clock that all processes share."""

    @classmethod
    def read(cls, line: str) -> Window:
        """Parse what a process printed."""
        fields = orjson.loads(line)
        for name in ("sent", "got"):
            fields[name] = {int(number): at for number, at in fields[name].items()}
        return cls(**fields)


def own_numbers(session: int, sessions: int) -> range:
    """Return numbers for the frames of a session that no other session uses; never 0.

    They are the level of the audio too, which falls all the time: a detector takes that for noise.
    A voice would stop the echo.
    """
    span = min(800, 32000 // sessions)
    return range(-32700 + session * span, -32700 + (session + 1) * span)


def client(order: Order, session: int) -> Client:
    """Make one session of the client that is measured."""
    pace = Pace(own_numbers(session, order.sessions), order.rate())
    scheme = "s" if order.tls else ""
    if order.kind.startswith("ours"):
        from benchmarks.agent_client import AgentClient
        from benchmarks.clients import realtime

        url = f"http{scheme}://127.0.0.1:{order.port}"
        return AgentClient(realtime(order.provider, url), pace, order.lead_ms)
    if order.provider not in DIALECTS:
        from benchmarks.bedrock import BareStream

        return BareStream(order.port, pace)
    dialect = DIALECTS[order.provider]()
    url = f"ws{scheme}://127.0.0.1:{order.port}{dialect.path}"
    context = trust() if order.tls else None
    if order.kind == "lean":
        from benchmarks.lean_client import LeanClient

        return LeanClient(dialect, url, pace, context)
    return BareClient(dialect, url, pace, context)


_contexts: list[ssl.SSLContext] = []


def trust() -> ssl.SSLContext:
    """Return the TLS context that all sessions share."""
    if not _contexts:
        _contexts.append(ssl.create_default_context())
    return _contexts[0]


async def measure(order: Order) -> Window:
    """Run all sessions and measure them from ``warm_s`` after the last began."""
    # What is loaded or built on first use would otherwise delay the start of all sessions.
    first = client(order, 0)
    first.pace.began = asyncio.get_running_loop().time() + 0.3
    await asyncio.wait_for(first.run(25), 10)
    clients = [client(order, n) for n in range(order.sessions)]
    began = asyncio.get_running_loop().time() + order.sessions * CONNECT_S + SILENCE_S
    tasks = []
    for number, each in enumerate(clients):
        each.pace.began = began + number * TICK_S / order.sessions
        tasks.append(asyncio.create_task(each.run(1_000_000)))
        await asyncio.sleep(CONNECT_S)
    gc.collect()
    await asyncio.sleep(began + order.warm_s - asyncio.get_running_loop().time())
    paces = [each.pace for each in clients]
    for pace in paces:
        pace.late.clear()
    frames = [pace.frames for pace in paces]
    cpu, begin = time.process_time(), time.perf_counter()
    await asyncio.sleep(order.seconds)
    cpu, end = time.process_time() - cpu, time.perf_counter()
    counts = [pace.frames - before for pace, before in zip(paces, frames, strict=True)]
    late = [value for pace in paces for value in pace.late]
    for task in tasks:
        if task.done():
            task.result()
    sent = {n: at for pace in paces for n, at in pace.sent.items() if begin <= at < end - SETTLE_S}
    got = {n: at for pace in paces for n, at in pace.got.items() if n in sent}
    return Window(
        cpu=cpu / (end - begin) / order.sessions * 100,
        rate=min(counts) / (end - begin),
        lost=len(sent) - len(got),
        sent_frames=len(sent),
        late=sum(value > TICK_S for value in late) / max(1, len(late)) * 100,
        sent=sent,
        got=got,
    )


def main() -> None:
    order = Order(**orjson.loads(sys.argv[1]))
    fast = order.kind in {"lean", "ours-uvloop"} and find_spec("uvloop") is not None
    with asyncio.Runner(
        loop_factory=importlib.import_module("uvloop").new_event_loop if fast else None
    ) as runner:
        window = runner.run(measure(order))
        sys.stdout.buffer.write(orjson.dumps(window, option=orjson.OPT_NON_STR_KEYS) + b"\n")
        sys.stdout.flush()
        # Hanging up in order would take longer than the measurement.
        os._exit(0)


if __name__ == "__main__":
    main()
