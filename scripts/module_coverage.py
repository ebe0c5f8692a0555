"""Check that the own tests of each sans-IO module cover it by themselves.

``python scripts/module_coverage.py [WORD ...]`` runs, for every module of the table below (or for
those whose path contains a WORD), only the test files that the table names, and fails if they cover
less than 95 % of the module's lines and branches. Tests of whole sessions cover these modules too,
but they do not say which one is wrong when they fail.

A module is sans-IO if it only computes: it opens no socket, starts no task, and gets the time from
its caller. All modules of the folders in `SANS_IO_FOLDERS` must be in the table.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCE = Path("src/duologue")
MIN_PERCENT = 95
TIMEOUT_S = 300

SANS_IO_FOLDERS = ("realtime/_session",)
"""Folders in which every module has a line in the table, or in `NOT_SANS_IO`."""

NOT_SANS_IO = {
    "realtime/_session/connections.py": "runs the tasks of connections",
    "realtime/_session/session.py": "runs the session, and is tested through Realtime",
}

TESTS: dict[str, tuple[str, ...]] = {}
"""Test files, below ``tests``, by the path of their module below ``src/duologue``."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome for one module; ``report`` says what is missing if it failed."""

    module: str
    percent: float | None
    seconds: float
    report: str = ""

    @property
    def passed(self) -> bool:
        """Whether the tests passed and cover enough."""
        return self.percent is not None and self.percent >= MIN_PERCENT


def measure(module: str, tests: tuple[str, ...]) -> Result:
    """Run the tests of a module, and measure how much of it they cover."""
    began = time.monotonic()
    source = str(SOURCE / module)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "COVERAGE_FILE": f"{folder}/data"}

        def coverage(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "coverage", *arguments],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )

        run = coverage(
            "run", "--branch", f"--include={source}",
            "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
            *(f"tests/{name}" for name in tests),
        )  # fmt: skip
        seconds = time.monotonic() - began
        if run.returncode:
            return Result(module, None, seconds, run.stdout[-3000:] + run.stderr[-1000:])
        total = coverage("report", "--format=total", "--precision=1")
        if total.returncode:
            return Result(module, None, seconds, total.stdout + total.stderr)
        report = coverage("report", "--show-missing", "--precision=1")
        return Result(module, float(total.stdout), seconds, report.stdout)


def unlisted() -> list[str]:
    """Return the modules of sans-IO folders that are not in the table."""
    paths = [path for folder in SANS_IO_FOLDERS for path in (ROOT / SOURCE / folder).glob("*.py")]
    names = {str(path.relative_to(ROOT / SOURCE)) for path in paths if path.stem != "__init__"}
    return sorted(names - TESTS.keys() - NOT_SANS_IO.keys())


def main(words: list[str]) -> int:
    """Measure the modules and print a line for each; return the exit status."""
    missing = unlisted()
    for module in missing:
        sys.stdout.write(f"{module} has no line in the table of {Path(__file__).name}\n")
    chosen = {
        module: tests
        for module, tests in TESTS.items()
        if not words or any(word in module for word in words)
    }
    failed = bool(missing)
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for result in pool.map(lambda entry: measure(*entry), chosen.items()):
            percent = "tests failed" if result.percent is None else f"{result.percent:.1f} %"
            sys.stdout.write(f"{percent:>12}  {result.seconds:5.1f} s  {result.module}\n")
            if not result.passed:
                failed = True
                sys.stdout.write(f"{result.report}\n")
            sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
