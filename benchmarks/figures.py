"""One measured figure, and how a benchmark reports its figures."""

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
    """What was measured, its target, and what limits it if the target was missed."""

    name: str
    target: str
    value: str
    reached: bool
    note: str = ""


def give(figures: Sequence[Figure]) -> None:
    """Print the figures, one line of JSON each, as the last output of a benchmark."""
    for figure in figures:
        sys.stdout.write("FIGURE " + json.dumps(asdict(figure)) + "\n")


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that ``percent`` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def rss_mb() -> float:
    """Return the resident memory of this process in MB; 0 except on Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    line = next(text for text in status.read_text().splitlines() if text.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def open_files() -> int:
    """Return the number of open file descriptors of this process, sockets included; Linux and
    macOS.
    """
    return len(os.listdir("/dev/fd"))
