from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from duologue.cli.weights import models
from gguf_files import CHAT, gguf
from loopback_hub import LoopbackHub, loopback_hub


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


NAME = "hf:acme/Toy-GGUF/toy-q4.gguf"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.delenv("DUOLOGUE_OFFLINE")
    with loopback_hub(monkeypatch) as made:
        made.files = {"acme/Toy-GGUF/toy-q4.gguf": gguf()}
        yield made


def test_a_file_of_a_hub_is_fetched_listed_checked_and_deleted(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    runner = CliRunner()
    fetched = Path(runner.invoke(models, ["fetch", "--quiet", NAME]).output.strip())
    assert fetched.read_bytes() == gguf()
    assert runner.invoke(models, ["path", NAME]).output.strip() == str(fetched)
    line = runner.invoke(models, ["list"]).output.splitlines()[-1]
    assert line.startswith(NAME)
    assert "ready" in line
    assert "language model of yours" in line
    assert runner.invoke(models, ["verify", NAME]).output.split() == [NAME, "ready"]
    fetched.write_bytes(gguf({**CHAT, "more": "x"}))
    broken = runner.invoke(models, ["verify"])
    assert (broken.exit_code, broken.output.split()) == (1, [NAME, "broken"])
    again = runner.invoke(models, ["fetch", NAME])
    assert again.exit_code == 1
    assert f"{NAME} has changed since its first use" in again.output
    told = runner.invoke(models, ["forget", NAME]).output
    assert told == f"{NAME}: its next use records the hash again.\n"
    assert runner.invoke(models, ["fetch", NAME]).exit_code == 0
    assert runner.invoke(models, ["prune", NAME]).output == "Freed 0.0 MB.\n"
    assert not fetched.exists()
    missing = runner.invoke(models, ["path", NAME])
    assert missing.exit_code == 1
    assert f"{NAME} has not been used yet" in missing.output


def test_what_a_hub_does_not_have_causes_one_line(hub: LoopbackHub) -> None:
    result = CliRunner().invoke(models, ["fetch", "hf:acme/Toy-GGUF/other.gguf"])
    assert result.exit_code == 1
    assert result.output == (
        "Error: can't get hf:acme/Toy-GGUF/other.gguf: acme/Toy-GGUF has no such file; it has "
        "toy-q4.gguf\n"
    )
