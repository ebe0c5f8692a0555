"""``duologue new``: the project that it writes works at once."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

import duologue
from duologue.cli import main
from duologue.cli.new import FILES

SOURCE = Path(duologue.__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(name):
    return CliRunner().invoke(main, ["new", name])


def check(folder, *args):
    return subprocess.run(
        [sys.executable, "-m", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OPENAI_API_KEY": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_new_projects_tests_and_lint_pass_at_once(folder):
    result = new("Blue_Door")
    assert result.exit_code == 0, result.output
    assert "cd Blue_Door\nduologue serve app:make_agent --reload\n" in result.output
    project = folder / "Blue_Door"
    assert {path.name for path in project.iterdir()} == {*FILES}
    assert not any("$name" in path.read_text() for path in project.iterdir())
    assert tomllib.loads((project / "pyproject.toml").read_text())["project"]["name"] == "blue-door"
    for args in (
        ("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"),
        ("ruff", "check", "--no-cache", "."),
        ("ruff", "format", "--no-cache", "--check", "."),
        ("mypy", "--strict", "--cache-dir", os.devnull, "--follow-imports", "silent", "app.py"),
    ):
        done = check(project, *args)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_containerfile_starts_the_agent_as_pid_1_without_root(folder):
    new("door")
    lines = (folder / "door/Containerfile").read_text().splitlines()
    (entry,) = [line for line in lines if line.startswith("ENTRYPOINT")]
    assert entry.startswith('ENTRYPOINT ["duologue", "serve", "app:make_agent"')  # no shell
    assert "USER agent" in lines
    assert "STOPSIGNAL SIGTERM" in lines


def test_the_new_agent_can_be_served(folder):
    new("door")
    done = subprocess.run(
        [sys.executable, "-m", "duologue", "serve", "app:make_agent", "--certfile", "none.pem"],
        cwd=folder / "door",
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    # The import works, so the next thing that is wrong is reported.
    assert done.stderr == "duologue: certfile and keyfile go together: pass both, or neither\n"


@pytest.mark.parametrize("name", ["file", "full", "9lives", "a b", "-x/../.."])
def test_nothing_is_overwritten_and_a_name_must_be_that_of_a_project(folder, name):
    (folder / "file").write_text("mine")
    (folder / "full").mkdir()
    (folder / "full/app.py").write_text("mine")
    result = CliRunner().invoke(main, ["new", "--", name])
    assert result.exit_code == 2
    assert result.stderr.startswith("duologue: ")
    assert result.stderr.count("\n") == 1
    assert (folder / "file").read_text() == (folder / "full/app.py").read_text() == "mine"
    assert {path.name for path in folder.iterdir()} == {"file", "full"}


def test_an_empty_folder_may_be_there(folder):
    (folder / "door").mkdir()
    assert new("door").exit_code == 0


def test_a_folder_that_cannot_be_written_is_one_line(folder):
    (folder / "file").touch()
    result = new("file/door")
    assert result.exit_code == 2
    assert result.stderr == "duologue: can't write file/door: not a directory\n"
