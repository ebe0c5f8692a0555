"""How the threads of the language model wait for each other, as OpenMP itself reports it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytest.importorskip("xllamacpp", reason="needs duologue[local]")

from duologue.providers.local._llama import SPIN_COUNT

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux", reason="only the builds for Linux use GNU OpenMP"
)

LOAD = """
import os
from pathlib import Path
from duologue.errors import SessionError
from duologue.providers.local._llama import Llama
before = dict(os.environ)
try:
    Llama(Path("no-such-model.gguf"))
except SessionError:
    print(os.environ == before)
"""


def load(**environment: str) -> tuple[str, str]:
    """Load the runtime in a process of its own; return what it and OpenMP wrote."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("GOMP_", "OMP_"))
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        env=kept | {"OMP_DISPLAY_ENV": "VERBOSE"} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.strip(), done.stderr


def test_threads_that_wait_soon_sleep_and_the_environment_is_as_before() -> None:
    environment_kept, settings = load()
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in settings
    assert environment_kept == "True"


def test_settings_of_the_program_are_respected() -> None:
    _, settings = load(GOMP_SPINCOUNT="77")
    assert "GOMP_SPINCOUNT = '77'" in settings
    _, settings = load(OMP_WAIT_POLICY="active")
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in settings
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" not in settings
