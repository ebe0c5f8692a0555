"""The whole path: WebRTC caller, browser edge, agent, provider over a WebSocket, and back.

``python -m benchmarks.end_to_end openai|gemini|qwen``. The server has one core to itself; callers
and provider run elsewhere. Each number of sessions is measured three times, one after the other in
turn, and the middle run counts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import cast

from benchmarks.clients import realtime, vad_note
from benchmarks.figures import Figure, give, median
from benchmarks.provider import Provider
from benchmarks.rtc_echo import run
from duologue._running import EventLoop

SECONDS = 12
REPEATS = 3
SESSIONS = 40
MAX_ROUND_TRIP_MS = 25
MAX_CPU_PERCENT = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """Sessions in one process, on one core."""

    sessions: int
    loop: EventLoop = "asyncio"


@dataclass(frozen=True, slots=True)
class Path:
    """Medians of the runs under one load."""

    half_ms: float
    """Round trip, median."""
    p90_ms: float
    p99_ms: float
    frames_per_s: float
    """Of the session that got the fewest."""
    cpu_percent: float
    """Of one core, a session."""
    cpu_range: tuple[float, float]

    @property
    def reached(self) -> bool:
        return (
            self.p90_ms <= MAX_ROUND_TRIP_MS
            and self.cpu_percent <= MAX_CPU_PERCENT
            and self.frames_per_s > 49
        )


def loads() -> list[Load]:
    """Return what is measured: one small load, and the target's, on uvloop too if it is there."""
    found = [Load(5), Load(SESSIONS)]
    return [*found, Load(SESSIONS, "uvloop")] if find_spec("uvloop") is not None else found


def measure(provider: tuple[str, str], measured: list[Load]) -> dict[Load, Path]:
    """Measure each load `REPEATS` times, in turn."""
    runs: dict[Load, list[dict[str, object]]] = {load: [] for load in measured}
    for _ in range(REPEATS):
        for load, results in runs.items():
            results.append(run(load.sessions, SECONDS, provider=provider, loop=load.loop))
            sys.stderr.write(f"{load.loop}: {results[-1]}\n")
    return {load: summary(results) for load, results in runs.items()}


def summary(results: list[dict[str, object]]) -> Path:
    """Return the medians of some runs of `rtc_echo.run`."""
    trips = [cast("list[float]", result["round_trip_ms"]) for result in results]
    costs = [cast("float", result["cpu_per_session"]) for result in results]
    half, p90, p99 = (median(values) for values in zip(*trips, strict=True))
    slowest = [cast("list[float]", result["frames_per_s"])[0] for result in results]
    return Path(half, p90, p99, median(slowest), median(costs), (min(costs), max(costs)))


def figure(load: Load, path: Path, note: str) -> Figure:
    """Return the figure of one load."""
    return Figure(
        f"caller to edge to agent to provider and back, {load.sessions} sessions"
        f"{', uvloop' if load.loop == 'uvloop' else ''}: round trip, median and p90; frames/s; "
        "CPU of one session",
        f"p90 <= {MAX_ROUND_TRIP_MS} ms; 50/s; <= {MAX_CPU_PERCENT} % of a core"
        if load.sessions == SESSIONS
        else "published",
        f"{path.half_ms:.1f} and {path.p90_ms:.1f} ms; {path.frames_per_s:.1f}/s; "
        f"{path.cpu_percent:.2f} %",
        path.reached or load.sessions != SESSIONS,
        f"WebRTC outside, WebSocket to an echo; up to 20 ms are the output clock's; p99 "
        f"{path.p99_ms:.1f} ms; the middle of {REPEATS} runs, CPU {path.cpu_range[0]:.2f} to "
        f"{path.cpu_range[1]:.2f} %{note}",
    )


def main() -> None:
    with Provider(sys.argv[1], pinned=False) as provider:
        where = provider.name, provider.loud_url
        note = vad_note(realtime(*where))
        paths = measure(where, loads())
    give([figure(load, path, note) for load, path in paths.items()])


if __name__ == "__main__":
    main()
