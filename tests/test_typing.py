"""What a type checker says of a user's program; each line that must be an error says so."""

import subprocess
import sys
from pathlib import Path

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


def test_type_checker_reports_wrong_names_and_handlers_of_no_event(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", program],
        cwd=ROOT,
        env={"MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {}
    for line in run.stdout.splitlines():
        _, number, _, message = line.split(":", 3)
        found[int(number)] = message
    expected = {
        number: line.partition("# error: ")[2]
        for number, line in enumerate(PROGRAM.splitlines(), 1)
        if "# error: " in line
    }
    assert found.keys() == expected.keys(), run.stdout + run.stderr
    for number, message in expected.items():
        assert message in found[number]
