"""The whole way: WebRTC caller, browser edge, agent, provider over a WebSocket, and back."""

from __future__ import annotations

from typing import cast

from benchmarks.figures import Figure, give
from benchmarks.provider import Provider
from benchmarks.rtc_echo import run


def main() -> None:
    with Provider(pinned=False) as provider:
        few = run(5, 15, provider=provider.loud_url)
        many = run(25, 20, provider=provider.loud_url)
    trip = max(cast("list[float]", r["round_trip_ms"])[0] for r in (few, many))
    worst = cast("list[float]", many["round_trip_ms"])[1]
    cpu = cast("float", many["cpu_per_session"])
    rate = cast("list[float]", many["frames_per_s"])[0]
    give(
        [
            Figure(
                "caller to edge to agent to provider and back: round trip, median of 5 and of 25",
                "<= 25 ms",
                f"{trip:.1f} ms (p90 of 25: {worst:.1f})",
                trip <= 25,
                "WebRTC outside, WebSocket to an echo; up to 20 ms are the output clock's",
            ),
            Figure(
                "the same: CPU of one session of 25; sessions a core",
                "<= 2.5 % of a core; >= 35",
                f"{cpu:.2f} %; {95 / cpu:.0f}",
                cpu <= 2.5 and 95 / cpu >= 35,
                f"{rate:.1f} frames/s come back; driver and provider run elsewhere; sessions: "
                "95 % of a core by the CPU of one",
            ),
        ]
    )


if __name__ == "__main__":
    main()
