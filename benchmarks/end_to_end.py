"""The whole path: WebRTC caller, browser edge, agent, provider over a WebSocket, and back.

``python -m benchmarks.end_to_end openai|gemini|qwen``.
"""

from __future__ import annotations

import sys
from typing import cast

from benchmarks.clients import realtime, vad_note
from benchmarks.figures import Figure, give
from benchmarks.provider import Provider
from benchmarks.rtc_echo import run


def main() -> None:
    with Provider(sys.argv[1], pinned=False) as provider:
        where = provider.name, provider.loud_url
        few = run(5, 15, provider=where)
        many = [run(25, 15, provider=where) for _ in range(3)]
        vad = vad_note(realtime(*where))
    trip = max(cast("list[float]", r["round_trip_ms"])[0] for r in (few, *many))
    worst = max(cast("list[float]", r["round_trip_ms"])[1] for r in many)
    costs = sorted(cast("float", r["cpu_per_session"]) for r in many)
    cpu = costs[1]
    rate = min(cast("list[float]", r["frames_per_s"])[0] for r in many)
    give(
        [
            Figure(
                "caller to edge to agent to provider and back: round trip, median of 5 and of 25, "
                "the slowest",
                "<= 25 ms",
                f"{trip:.1f} ms (p90 of 25: {worst:.1f})",
                trip <= 25,
                "WebRTC outside, WebSocket to an echo; up to 20 ms are the output clock's" + vad,
            ),
            Figure(
                "the same: CPU of one session of 25; sessions a core",
                "<= 2.5 % of a core; >= 35",
                f"{cpu:.2f} %; {95 / cpu:.0f}",
                cpu <= 2.5 and 95 / cpu >= 35 and rate > 49,
                f"the middle of three runs ({costs[0]:.2f} to {costs[2]:.2f} %); "
                f"{rate:.1f} frames/s come back; driver and provider run elsewhere; sessions: "
                "95 % of a core by the CPU of one, which leaves nothing for bursts: see `sessions` "
                "for lateness; most of it is WebRTC's, see `rtc`",
            ),
        ]
    )


if __name__ == "__main__":
    main()
