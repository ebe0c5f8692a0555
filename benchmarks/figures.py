"""One measured figure, and how a benchmark hands its figures on."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured, what was to be reached, and what limits it where it was not."""

    name: str
    target: str
    value: str
    reached: bool
    note: str = ""


def give(figures: Sequence[Figure]) -> None:
    """Print the figures, one JSON a line, as the last thing a benchmark does."""
    for figure in figures:
        sys.stdout.write("FIGURE " + json.dumps(asdict(figure)) + "\n")


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def rss_mb() -> float:
    """Memory of this process that is in RAM, in MB; Linux only, else 0."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    line = next(text for text in status.read_text().splitlines() if text.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def open_files() -> int:
    """Open file descriptors of this process, sockets included; Linux and macOS."""
    return len(os.listdir("/dev/fd"))
