"""Record all conversations of the conformance tests, and replay each: no message may differ.

``python -m benchmarks replays``, or ``python -m benchmarks.replays FOLDER`` for recordings that are
there already. It takes as long as the conformance tests, about ten minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import Figure, give
from duologue.testing import replay

TESTS = Path(__file__).parent.parent / "tests" / "conformance"


def record(folder: Path) -> None:
    """Run the conformance tests; their calls are recorded by tests/fake_edge.py."""
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)],
        env={**os.environ, "RECORD_CALLS": str(folder)},
        stdout=sys.stderr,
        check=True,
    )


def replay_all(folder: Path) -> Figure:
    """Replay the calls in a folder."""
    calls = messages = differences = 0
    began = time.perf_counter()
    for wire in sorted(folder.glob("*/wire.jsonl")):
        found = replay(wire.parent)
        if found.compared:
            calls += 1
            messages += found.compared
            differences += len(found.differences)
        if found.differences:
            sys.stderr.write(f"{found}\n")
    seconds = time.perf_counter() - began
    return Figure(
        "messages that differ when all conversations of the conformance tests are replayed",
        "0",
        f"{differences} of {messages}",
        differences == 0 and calls > 0,
        f"{calls} calls with a service, replayed in {seconds:.0f} s",
    )


def main() -> None:
    """Record, unless recordings are given, and replay."""
    if len(sys.argv) > 1:
        give([replay_all(Path(sys.argv[1]))])
        return
    with tempfile.TemporaryDirectory() as folder:
        record(Path(folder))
        give([replay_all(Path(folder))])


if __name__ == "__main__":
    main()
