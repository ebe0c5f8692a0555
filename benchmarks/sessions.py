"""How many sessions one core carries without late 20 ms ticks: ``python -m benchmarks.sessions``.

The CPU of one session alone would allow more than is sensible: with little CPU left, each burst of
work delays the ticks of all sessions. So the number is measured by lateness.
"""

from __future__ import annotations

import sys
from typing import cast

from benchmarks.figures import Figure, give
from benchmarks.provider import Provider
from benchmarks.rtc_echo import run

STEP = 5
MAX_LATE_PERCENT = 0.5
SECONDS = 20


def carried(provider: tuple[str, str] | None, begin: int) -> tuple[int, list[dict[str, object]]]:
    """Find the most sessions, in steps of five, with at most 0.5 % late ticks; return each run."""
    runs: list[dict[str, object]] = []

    def good(sessions: int) -> bool:
        runs.append(run(sessions, SECONDS, provider=provider))
        sys.stderr.write(f"{runs[-1]}\n")
        return cast("float", runs[-1]["late_percent"]) <= MAX_LATE_PERCENT

    sessions = begin
    if good(sessions):
        while good(sessions + STEP):
            sessions += STEP
        return sessions, runs
    while sessions > STEP:
        sessions -= STEP
        if good(sessions):
            return sessions, runs
    return 0, runs


def figure(what: str, provider: tuple[str, str] | None, begin: int) -> Figure:
    sessions, runs = carried(provider, begin)
    shown = "; ".join(
        f"{r['sessions']}: {r['late_percent']} % late, {r['cpu_per_session']} % CPU each"
        for r in sorted(runs, key=lambda r: cast("int", r["sessions"]))
    )
    return Figure(
        f"{what}: sessions a core with at most {MAX_LATE_PERCENT} % of 20 ms ticks over 20 ms late",
        "published",
        str(sessions),
        sessions > 0,
        f"in steps of {STEP}; {shown}",
    )


def main() -> None:
    begin = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    with Provider("openai", pinned=False) as provider:
        where = provider.name, provider.loud_url
        give(
            [
                figure("browser edge alone", None, begin),
                figure("browser edge and OpenAI over a WebSocket", where, begin),
            ]
        )


if __name__ == "__main__":
    main()
