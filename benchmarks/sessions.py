"""How many sessions one core carries in time: ``python -m benchmarks.sessions edge|openai|...``.

The CPU of one session alone would allow more than is sensible: with little CPU left, each burst of
work delays all sessions. So the number is measured: the most sessions at which nine of ten round
trips take at most one tick of the output clock longer than the shortest possible one. A frame waits
up to a tick for that clock even on an idle machine, so this leaves 2 ms for everything else.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast

from benchmarks.clients import NAMES
from benchmarks.figures import Figure, give
from benchmarks.provider import Provider
from benchmarks.rtc_echo import run

STEP = 5
TICK_MS = 20.0
MIN_RATE = 49.0
SECONDS = 10.0
EDGE = "edge"
"""Sessions without a provider: a scripted model echoes."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run measured."""

    sessions: int
    shortest_ms: float
    p90_ms: float
    """Round trips."""
    frames_per_s: float
    """Of the session that got the fewest."""
    cpu_percent: float
    """Of one core, a session."""
    late_percent: float
    """Ticks over 20 ms late."""

    def added_ms(self, shortest_ms: float) -> float:
        """Return the 90th percentile of what trips took beyond the shortest possible one."""
        return self.p90_ms - shortest_ms


def measure(sessions: int, seconds: float, provider: tuple[str, str] | None) -> Load:
    """Make one run."""
    found = run(sessions, seconds, provider=provider)
    return Load(
        sessions,
        cast("float", found["shortest_ms"]),
        cast("list[float]", found["round_trip_ms"])[1],
        cast("list[float]", found["frames_per_s"])[0],
        cast("float", found["cpu_per_session"]),
        cast("float", found["late_percent"]),
    )


def carried(
    provider: tuple[str, str] | None, begin: int, seconds: float
) -> tuple[int, float, list[Load]]:
    """Find the most sessions, in steps of five; return also the shortest trip, and each run."""
    shortest = measure(STEP, seconds, provider).shortest_ms
    runs: list[Load] = []

    def is_in_time(sessions: int) -> bool:
        load = measure(sessions, seconds, provider)
        runs.append(load)
        added = load.added_ms(shortest)
        sys.stderr.write(f"added {added:.1f} ms (p90), {load}\n")
        return added <= TICK_MS and load.frames_per_s >= MIN_RATE

    sessions = begin
    if is_in_time(sessions):
        while is_in_time(sessions + STEP):
            sessions += STEP
    else:
        while sessions > 0:
            sessions -= STEP
            if sessions and is_in_time(sessions):
                break
    return sessions, shortest, runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("provider", choices=(EDGE, *NAMES))
    parser.add_argument("--begin", type=int, default=35, help="sessions of the first run")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    with ExitStack() as stack:
        where = None
        what = "browser edge alone"
        if options.provider != EDGE:
            provider = stack.enter_context(Provider(options.provider, pinned=False))
            where = provider.name, provider.loud_url
            what = f"browser edge and {NAMES[options.provider]}"
        sessions, shortest, runs = carried(where, options.begin, options.seconds)
    shown = "; ".join(
        f"{r.sessions}: {r.added_ms(shortest):.1f} ms added (p90), "
        f"{r.late_percent:.1f} % of ticks over 20 ms late, {r.cpu_percent:.2f} % CPU each"
        for r in sorted(runs, key=lambda r: r.sessions)
    )
    give(
        [
            Figure(
                f"{what}: sessions a core at which p90 of the added delay stays inside one tick",
                "published",
                str(sessions),
                sessions > 0,
                f"measured in steps of {STEP}; added to the shortest round trip of {STEP} "
                f"sessions, {shortest:.1f} ms; {shown}",
            )
        ]
    )


if __name__ == "__main__":
    main()
