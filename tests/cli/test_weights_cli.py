from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from duologue.cli.weights import models


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DUOLOGUE_CACHE", str(tmp_path))
    monkeypatch.setenv("DUOLOGUE_OFFLINE", "1")


def test_list_prints_all_weights_with_licence_and_state() -> None:
    result = CliRunner().invoke(models, ["list"])
    assert result.exit_code == 0
    [line] = [line for line in result.output.splitlines() if line.startswith("smollm2-135m")]
    assert "98.4 MB" in line
    assert "missing" in line
    assert "Apache-2.0" in line


def test_path_prints_one_path_or_the_folder(tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(models, ["path"]).output.strip() == str(tmp_path)
    output = runner.invoke(models, ["path", "smart-turn-v3.2"]).output
    assert output.strip().endswith("smart-turn-v3.2-cpu.onnx")


@pytest.mark.parametrize("command", ["fetch", "verify", "path", "prune"])
def test_an_unknown_name_causes_one_line(command: str) -> None:
    result = CliRunner().invoke(models, [command, "nothing"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: no weights are called 'nothing'; there are: ")
    assert len(result.output.splitlines()) == 1


def test_fetch_while_offline_causes_one_line() -> None:
    result = CliRunner().invoke(models, ["fetch", "smollm2-135m"])
    assert result.exit_code == 1
    assert "fetching is off" in result.output


def test_an_unknown_profile_causes_one_line() -> None:
    result = CliRunner().invoke(models, ["fetch", "--profile", "huge"])
    assert result.exit_code == 1
    assert result.output.strip() == (
        "Error: there is no profile 'huge'; there are: tiny, small, better"
    )


def test_verify_finds_damage(tmp_path: Path) -> None:
    runner = CliRunner()
    assert "No weights are here yet" in runner.invoke(models, ["verify"]).output
    file = tmp_path / "weights" / "smart-turn-v3.2" / "smart-turn-v3.2-cpu.onnx"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not it")
    result = runner.invoke(models, ["verify"])
    assert result.exit_code == 1
    assert "broken" in result.output
    assert runner.invoke(models, ["prune", "smart-turn-v3.2"]).output.strip() == "Freed 0.0 MB."
    assert not file.exists()
