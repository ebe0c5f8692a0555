"""The library beside clients written by hand, in the same run.

``python -m benchmarks.side_by_side openai|gemini|qwen|nova [--tls] [--sessions N] [--quick]``.

- *raw* is a client of websockets, orjson and pybase64, with a task that sends and one that
  receives; over HTTP/2 one of h2, orjson and hashlib.
- *lean* is a client of picows, orjson and pybase64 on uvloop, without tasks.
- *we* are an agent with default options, on asyncio's own loop and on uvloop.

All talk to the same echo provider, which runs on another core. Each measurement is a process of its
own. The clients take turns: forward, backward, forward; a ratio is that to raw in the same pass,
and its median over the passes is what counts. A run in which frames got lost is not measured, but
reported.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec

import orjson

from benchmarks.clients import NAMES, realtime, vad_note
from benchmarks.contender import Kind, Order, Window
from benchmarks.figures import Figure, give, median, percentile
from benchmarks.lean_client import is_installed
from benchmarks.provider import Provider

MIN_RATE = 49.5
"""Frames per second that every session has to get."""
MAX_LOST = 0.002
"""Share of frames that may be lost: none, but for one that was on its way at an end."""
MAX_LATE_PERCENT = 0.5
MAX_DELAY_P99_MS = 5.0
CPU_TARGETS = {"openai": 0.75, "openai+tls": 0.9, "gemini": 1.2, "qwen": 0.8, "nova": 1.3}
CPU_TARGETS_UVLOOP = {**CPU_TARGETS, "openai+tls": 0.8}
DELAY_TARGET = 0.8
"""To reach: how much more than raw the library may take."""
LABELS = {"raw": "raw", "lean": "lean", "ours": "we", "ours-uvloop": "we on uvloop"}


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement, and the delays each way in ms."""

    window: Window
    up: Sequence[float]
    down: Sequence[float]

    @property
    def is_whole(self) -> bool:
        """Whether every session got its frames."""
        window = self.window
        few = min(len(self.up), len(self.down)) < (1 - MAX_LOST) * window.sent_frames
        lost = window.lost > MAX_LOST * window.sent_frames
        return window.rate >= MIN_RATE and not lost and not few

    @property
    def down_p50(self) -> float:
        return median(self.down or [float("inf")])

    @property
    def down_p99(self) -> float:
        return percentile(self.down or [float("inf")], 99)


type Passes = dict[Kind, list[Run]]


def measure(provider: Provider, order: Order) -> Run:
    """Run one client in a process of its own."""
    provider.report()  # forgets what was before
    environment = {**os.environ, **({"SSL_CERT_FILE": provider.ca_file} if order.tls else {})}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.contender", orjson.dumps(asdict(order)).decode()],
        stdout=subprocess.PIPE,
        env=environment,
        timeout=60,
        check=True,
    )
    window, log = Window.read(done.stdout.decode()), provider.report()
    up = [(log.arrived[n] - at) * 1000 for n, at in window.sent.items() if n in log.arrived]
    down = [(at - log.left[n]) * 1000 for n, at in window.got.items() if n in log.left]
    return Run(window, up, down)


def interleave(provider: Provider, order: Order, kinds: Sequence[Kind], passes: int) -> Passes:
    """Measure all clients in turns."""
    runs: Passes = {kind: [] for kind in kinds}
    for number in range(passes):
        for kind in kinds if number % 2 == 0 else reversed(kinds):
            run = measure(provider, replace(order, kind=kind))
            runs[kind].append(run)
            window = run.window
            sys.stderr.write(
                f"{LABELS[kind]:>12}: CPU {window.cpu:.3f} %, provider to edge "
                f"{run.down_p50:.3f} / {run.down_p99:.3f} ms, up {median(run.up or [0]):.3f} ms, "
                f"late {window.late:.2f} %, {window.rate:.2f} frames/s, lost {window.lost} of "
                f"{window.sent_frames}{'' if run.is_whole else '  NOT WHOLE'}\n"
            )
    return runs


def middle(runs: Passes, kind: Kind, value: Callable[[Run], float]) -> float:
    """Return the median over the passes."""
    return median([value(run) for run in runs[kind]])


def ratios(runs: Passes, kind: Kind, value: Callable[[Run], float]) -> list[float]:
    """Return the ratio to raw in each pass, smallest first."""
    pairs = zip(runs[kind], runs["raw"], strict=True)
    return sorted(value(ours) / value(raw) for ours, raw in pairs)


def whole(runs: Passes, *kinds: Kind) -> bool:
    """Whether all runs of these clients were whole."""
    return all(run.is_whole for kind in kinds for run in runs[kind])


def others(runs: Passes, show: Callable[[Kind], str]) -> str:
    """Return a note about the clients by hand."""
    notes = [f"raw {show('raw')}"]
    if "lean" in runs:
        notes.append(f"lean {show('lean')}")
    elif not is_installed():
        notes.append("lean not measured: picows is not installed")
    return ", ".join(notes)


def range_note(values: Sequence[float]) -> str:
    return f"ratios {values[0]:.2f} to {values[-1]:.2f}"


def cpu_figure(name: str, runs: Passes, kind: Kind, order: Order, target: float) -> Figure:
    """Return the figure of the CPU of a session."""

    def cpu(run: Run) -> float:
        return run.window.cpu

    found = ratios(runs, kind, cpu)
    ratio = median(found)
    rate = min(run.window.rate for run in runs[kind])
    lost = sum(run.window.lost for run in runs[kind])
    good = whole(runs, kind, "raw")
    return Figure(
        f"{name}: CPU of one session of {order.sessions}, each by its own clock"
        f"{', uvloop' if kind == 'ours-uvloop' else ''}",
        f"<= {target:g} x raw",
        f"{ratio:.2f} x raw",
        ratio <= target and good,
        f"{middle(runs, kind, cpu):.2f} % of a core; "
        f"{others(runs, lambda k: f'{middle(runs, k, cpu):.2f} %')}; {range_note(found)}; "
        f"at least {rate:.1f} frames/s came back to each session, {lost} lost"
        f"{'' if good else ' (a run was not whole)'}",
    )


def delay_figure(name: str, runs: Passes, kind: Kind, order: Order) -> Figure:
    """Return the figure of the delay from the provider to the edge."""
    found = ratios(runs, kind, lambda run: run.down_p50)
    ratio = median(found)

    def show(kind: Kind) -> str:
        p50 = middle(runs, kind, lambda run: run.down_p50)
        return f"{p50:.2f} / {middle(runs, kind, lambda run: run.down_p99):.2f}"

    sessions = f"{order.sessions} session{'s' * (order.sessions > 1)}"
    return Figure(
        f"{name}: provider to edge, {sessions}, an edge with a lead"
        f"{', uvloop' if kind == 'ours-uvloop' else ''}",
        f"<= {DELAY_TARGET} x raw",
        f"{ratio:.2f} x raw",
        ratio <= DELAY_TARGET and whole(runs, kind, "raw"),
        f"median / p99 in ms: {show(kind)}; {others(runs, show)}; {range_note(found)}",
    )


def load_figure(name: str, runs: Passes, kind: Kind, order: Order) -> Figure:
    """Return the figure of many sessions in one process: late timers and the delay."""
    late = middle(runs, kind, lambda run: run.window.late)
    delay = middle(runs, kind, lambda run: run.down_p99)

    def show(kind: Kind) -> str:
        share = middle(runs, kind, lambda run: run.window.late)
        return f"{share:.2f} %; {middle(runs, kind, lambda run: run.down_p99):.1f} ms"

    return Figure(
        f"{name}: {order.sessions} sessions in one process"
        f"{', uvloop' if kind == 'ours-uvloop' else ''}: 20 ms timers over 20 ms late; "
        "provider to edge, p99",
        f"<= {MAX_LATE_PERCENT} %; <= {MAX_DELAY_P99_MS:g} ms",
        show(kind),
        late <= MAX_LATE_PERCENT and delay <= MAX_DELAY_P99_MS and whole(runs, kind),
        f"CPU {middle(runs, kind, lambda run: run.window.cpu):.2f} % a session; "
        f"{others(runs, show)}",
    )


def figures(order: Order, runs: Passes) -> list[Figure]:
    """Return the figures of one run."""
    name = NAMES[order.provider] + (" over TLS" if order.tls else "")
    ours = [kind for kind in runs if kind.startswith("ours")]
    if order.sessions >= 100:
        return [load_figure(name, runs, kind, order) for kind in ours]
    found = []
    if order.sessions > 1:
        key = order.provider + "+tls" * order.tls
        for kind in ours:
            target = (CPU_TARGETS if kind == "ours" else CPU_TARGETS_UVLOOP)[key]
            found.append(cpu_figure(name, runs, kind, order, target))
        vad = vad_note(realtime(order.provider, "http://127.0.0.1:1"))
        found = [replace(figure, note=figure.note + vad) for figure in found]
    return found + [delay_figure(name, runs, kind, order) for kind in ours[:1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("provider", choices=NAMES)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--kinds", help="which clients, comma-separated; raw has to be one")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--warm", type=float, default=1.0, help="seconds before that")
    parser.add_argument("--lead", type=int, default=20, help="the edge's lead in ms: 0 or 20")
    parser.add_argument("--quick", action="store_true", help="raw and we only, one pass of 3 s")
    options = parser.parse_args()
    kinds: list[Kind] = ["raw", "lean", "ours", "ours-uvloop"]
    if options.kinds:
        kinds = [kind for kind in kinds if kind in options.kinds.split(",")]
    elif options.quick:
        kinds = ["raw", "ours"]
    missing: set[Kind] = set()
    if not is_installed() or options.provider == "nova":
        missing.add("lean")
    if find_spec("uvloop") is None:
        missing.add("ours-uvloop")
    kinds = [kind for kind in kinds if kind not in missing]
    with Provider(options.provider, tls=options.tls) as provider:
        order = Order(
            kind="raw",
            provider=options.provider,
            port=provider.port,
            sessions=options.sessions,
            warm_s=options.warm,
            seconds=options.seconds,
            lead_ms=options.lead,
            tls=options.tls,
        )
        runs = interleave(provider, order, kinds, 1 if options.quick else options.passes)
    found = figures(order, runs)
    give(found)
    for figure in found:
        sys.stderr.write(f"{figure.name}: {figure.value} ({figure.target}); {figure.note}\n")


if __name__ == "__main__":
    main()
