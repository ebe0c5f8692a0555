"""How many sessions one core carries in time: ``python -m benchmarks.sessions edge|openai|...``.

The CPU of one session alone would allow more than is sensible: with little CPU left, each burst of
work delays all sessions. So the number is measured: the most sessions of which nine in ten round
trips take at most a tick of the output clock, for which a frame waits on an idle machine too, and
5 ms for codecs, sockets and the work of all other sessions.
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
OTHER_MS = 5.0
MIN_RATE = 49.0
SECONDS = 10.0
EDGE = "edge"
"""Sessions without a provider: a scripted model echoes."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run measured."""

    sessions: int
    p90_ms: float
    """Round trips."""
    frames_per_s: float
    """Of the session that got the fewest."""
    cpu_percent: float
    """Of one core, a session."""
    late_percent: float
    """Ticks over 20 ms late."""


def measure(sessions: int, seconds: float, provider: tuple[str, str] | None) -> Load:
    """Make one run."""
    found = run(sessions, seconds, provider=provider)
    return Load(
        sessions,
        cast("list[float]", found["round_trip_ms"])[1],
        cast("list[float]", found["frames_per_s"])[0],
        cast("float", found["cpu_per_session"]),
        cast("float", found["late_percent"]),
    )


def carried(provider: tuple[str, str] | None, begin: int, seconds: float) -> tuple[int, list[Load]]:
    """Find the most sessions, in steps of five; return also each run."""
    runs: list[Load] = []

    def is_in_time(sessions: int) -> bool:
        load = measure(sessions, seconds, provider)
        runs.append(load)
        sys.stderr.write(f"{load}\n")
        return load.p90_ms <= TICK_MS + OTHER_MS and load.frames_per_s >= MIN_RATE

    sessions = begin
    if is_in_time(sessions):
        while is_in_time(sessions + STEP):
            sessions += STEP
    else:
        while sessions > 0:
            sessions -= STEP
            if sessions and is_in_time(sessions):
                break
    return sessions, runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("provider", choices=(EDGE, *NAMES))
    parser.add_argument("--begin", type=int, default=40, help="sessions of the first run")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    with ExitStack() as stack:
        where = None
        what = "browser edge alone"
        if options.provider != EDGE:
            provider = stack.enter_context(Provider(options.provider, pinned=False))
            where = provider.name, provider.loud_url
            what = f"browser edge and {NAMES[options.provider]}"
        sessions, runs = carried(where, options.begin, options.seconds)
    shown = "; ".join(
        f"{r.sessions}: p90 {r.p90_ms:.1f} ms, "
        f"{r.late_percent:.1f} % of ticks over 20 ms late, {r.cpu_percent:.2f} % CPU each"
        for r in sorted(runs, key=lambda r: r.sessions)
    )
    give(
        [
            Figure(
                f"{what}: sessions a core with p90 of the round trip inside one tick and "
                f"{OTHER_MS:g} ms",
                "published",
                str(sessions),
                sessions > 0,
                f"measured, in steps of {STEP}; {shown}",
            )
        ]
    )


if __name__ == "__main__":
    main()
