"""What type checkers say of a user's program, and of the programs that users copy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from test_docs import BLOCKS

ROOT = Path(__file__).parents[1]

PROGRAM = """\
from duologue import Agnet  # error: has no attribute
from duologue import Agent
from duologue.agent import Speeech  # error: has no attribute
from duologue.events import AgentTranscriptEvent, Event, UserTranscriptEvent
from duologue.providers.openai import Realtim  # error: has no attribute
from duologue.testing import ScriptedReal  # error: has no attribute


def subscribe(agent: Agent) -> None:
    @agent.events.subscribe
    async def one(event: UserTranscriptEvent) -> None: ...

    @agent.events.subscribe
    def either(event: UserTranscriptEvent | AgentTranscriptEvent) -> None: ...

    @agent.events.subscribe
    def any_event(event: Event, unit: str = "s") -> None: ...

    @agent.events.subscribe  # error: cannot be "str"
    async def text(event: str) -> None: ...

    @agent.events.subscribe  # error: incompatible type
    async def nothing() -> None: ...
"""


EXPECTED = {
    number: line.partition("# error: ")[2]
    for number, line in enumerate(PROGRAM.splitlines(), 1)
    if "# error: " in line
}
"""The line number of each line that must be an error, and what mypy says of it."""


def run_mypy(*paths: Path) -> str:
    """Return what mypy says of a user's files; missing types of other packages do not count."""
    options = ["--strict", "--no-error-summary", "--disable-error-code=import-untyped"]
    return subprocess.run(
        [sys.executable, "-m", "mypy", *options, *paths],
        cwd=ROOT,
        env={"MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def run_pyright(folder: Path) -> list[tuple[str, int, str]]:
    """Return the file, line and text of each error of pyright's standard mode in a folder."""
    config = {"typeCheckingMode": "standard", "extraPaths": [str(ROOT / "src")]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    run = subprocess.run(
        [
            *(sys.executable, "-m", "basedpyright", "--outputjson"),
            *("--pythonpath", sys.executable, "--project", folder),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return [
        (Path(found["file"]).name, found["range"]["start"]["line"] + 1, found["message"])
        for found in json.loads(run.stdout)["generalDiagnostics"]
        if found["severity"] == "error"
    ]


@pytest.fixture
def programs(tmp_path):
    """The examples and the programs of the documentation, in a folder of a user's."""
    for path in (ROOT / "examples").glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    for where, code in BLOCKS.items():
        page, _, line = where.partition(":")
        name = page.removesuffix(".md").replace("/", "_").replace("-", "_")
        (tmp_path / f"{name}_line_{line}.py").write_text(code, "utf-8")
    return tmp_path


def test_mypy_reports_wrong_names_and_handlers_of_no_event(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    output = run_mypy(program)
    found = {}
    for line in output.splitlines():
        _, number, _, message = line.split(":", 3)
        found[int(number)] = message
    assert found.keys() == EXPECTED.keys(), output
    for number, message in EXPECTED.items():
        assert message in found[number]


def test_pyright_reports_wrong_names_and_handlers_of_no_event(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    found = run_pyright(tmp_path)
    # It reports a decorator at its name, in the same line.
    assert {line for _, line, _ in found} == EXPECTED.keys(), found


def test_programs_that_users_copy_are_clean_in_mypy(programs):
    assert run_mypy(programs) == ""


def test_programs_that_users_copy_are_clean_in_pyright(programs):
    assert run_pyright(programs) == []
