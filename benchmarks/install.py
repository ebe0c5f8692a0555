"""What an installation takes on the disk, and what importing takes.

``python -m benchmarks.install size`` installs into fresh environments, which needs a package index;
``python -m benchmarks.install import`` measures in fresh processes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from benchmarks.figures import Figure, give, median

ROOT = Path(__file__).parent.parent
SIZES = {"": 75, "openai": 90}
"""Extras whose size has a bound, in MB on the disk."""
IMPORTS = {
    "from duologue import Agent": "Agent",
    "from duologue.providers import openai; openai.Realtime": "openai.Realtime",
}
MAX_IMPORT_MS = 150
PROCESSES = 15


def install(extra: str, folder: Path) -> Path:
    """Install this package into a new environment; return its site-packages."""
    venv.create(folder, with_pip=False)
    wanted = f"{ROOT}[{extra}]" if extra else str(ROOT)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "install"]
    subprocess.run([*pip, "--quiet", wanted], check=True, capture_output=True, text=True)
    (site_packages,) = (folder / "lib").glob("python*/site-packages")
    return site_packages


def megabytes(folder: Path, *, bytecode: bool) -> float:
    """Return what a folder takes on the disk, as ``du`` counts it."""
    blocks = sum(
        path.lstat().st_blocks
        for path in folder.rglob("*")
        if bytecode or "__pycache__" not in path.parts
    )
    return blocks * 512 / 2**20


def size(extra: str, bound: int) -> Figure:
    name = f"disk: `pip install {f"'duologue[{extra}]'" if extra else 'duologue'}`"
    target = f"<= {bound} MB"
    with tempfile.TemporaryDirectory() as folder:
        try:
            installed = install(extra, Path(folder))
        except subprocess.CalledProcessError as error:
            why = (error.stderr.strip().splitlines() or ["pip failed"])[-1]
            return Figure(name, target, "not measured", reached=False, note=why[:200])
        count = len([*installed.glob("*.dist-info")])
        taken = megabytes(installed, bytecode=False)
        compiled = megabytes(installed, bytecode=True)
        webrtc = [one for one in ("av", "aiortc") if (installed / one).exists()]
    note = f"{count} packages, {' and '.join(webrtc) or 'no PyAV, no aiortc'}; "
    note += f"with the bytecode that pip compiles {compiled:.0f} MB"
    return Figure(name, target, f"{taken:.0f} MB", taken <= bound and not webrtc, note)


def seconds(code: str) -> float:
    """Return how long a new Python takes to run ``code`` and end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def import_time(code: str, name: str) -> Figure:
    """Measure an import, alternating with an empty program and with numpy alone."""
    programs = {"bare": "pass", "numpy": "import numpy", "ours": code}
    for program in programs.values():  # write the bytecode, and warm the disk cache
        seconds(program)
    times: dict[str, list[float]] = {key: [] for key in programs}
    for _ in range(PROCESSES):
        for key, program in programs.items():
            times[key].append(seconds(program) * 1000)
    bare, numpy, ours = (median(times[key]) for key in ("bare", "numpy", "ours"))
    return Figure(
        f"import of `{name}`, median of {PROCESSES} new processes",
        f"<= {MAX_IMPORT_MS} ms",
        f"{ours:.0f} ms",
        ours <= MAX_IMPORT_MS,
        f"whole process; an empty one takes {bare:.0f} ms, one with numpy alone {numpy:.0f} ms",
    )


def main() -> None:
    if sys.argv[1] == "size":
        give([size(extra, bound) for extra, bound in SIZES.items()])
    else:
        give([import_time(code, name) for code, name in IMPORTS.items()])


if __name__ == "__main__":
    main()
