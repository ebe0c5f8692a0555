"""`make setup` uses an installed Python and fetches none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def make(tmp_path):
    """Run make, or print what it would run, with only the given programs on the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("make", "sh", "bash", "touch"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, repository)

    def run(*pythons, target="setup", dry=True):
        for name, script in pythons:
            program = programs / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        return subprocess.run(
            ["make", *["--dry-run"] * dry, target],
            cwd=repository,
            env={"PATH": str(programs), "HOME": os.environ.get("HOME", "/")},
            capture_output=True,
            text=True,
        )

    return run


GOOD = f'exec "{sys.executable}" "$@"'
OLD = "exit 1"
SHIM = "echo 'pyenv: command not found' >&2; exit 127"


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ([("python3.13", GOOD)], "python3.13"),
        ([("python3.12", SHIM), ("python3.13", GOOD), ("python3", GOOD)], "python3.13"),
        ([("python3.12", GOOD), ("python3.13", GOOD)], "python3.12"),
        ([("python3.14", GOOD)], "python3.14"),
        ([("python3", GOOD)], "python3"),
        ([("python3", OLD), ("python", GOOD)], "python"),
    ],
)
def test_an_installed_python_makes_the_environment(make, pythons, taken):
    done = make(*pythons)
    assert done.returncode == 0, done.stderr
    (sync,) = [line for line in done.stdout.splitlines() if " sync " in line]
    assert sync.startswith("UV_PYTHON_DOWNLOADS=never ")
    assert sync.endswith(f"--frozen --all-extras --python {sync.rpartition(' ')[2]}")
    assert Path(sync.rpartition(" ")[2]).name == taken


@pytest.mark.parametrize("pythons", [[], [("python3", OLD), ("python3.12", SHIM)]])
def test_without_a_python_that_is_new_enough_one_line_says_so(make, pythons):
    done = make(*pythons, dry=False)
    assert done.returncode
    assert done.stdout == (
        "Python 3.12 to 3.14 is needed: no python3.12, python3.13, python3.14 or python3 here\n"
    )


def test_without_pip_and_uv_one_line_says_so(make):
    no_pip = f'case "$*" in *pip*) exit 1;; esac; {GOOD}'
    done = make(("python3.13", no_pip), dry=False)
    assert done.returncode
    assert done.stdout.endswith("python3.13 has no pip: install pip for it, or uv\n")
