"""``duologue simulate qwen`` prints its address, and ends on Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from duologue.cli import main

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")

from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect


def test_it_serves_until_ctrl_c(tmp_path):
    script = tmp_path / "script.yaml"
    script.write_text("- expect: response.cancel\n")
    command = [sys.executable, "-m", "duologue", "simulate", "qwen", "--port", "0"]
    with subprocess.Popen(
        [*command, "--backend", str(script), "--faults", "quota"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        address = re.fullmatch(r"WebSocket  (\S+)\n", lines[0])
        key = re.fullmatch(r"DASHSCOPE_API_KEY=(\S+)\n", lines[2])
        assert address is not None
        assert key is not None
        with pytest.raises(InvalidStatus) as refused:
            connect(address[1], additional_headers={"Authorization": f"Bearer {key[1]}"})
        assert refused.value.response.status_code == 429
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert errors == ""


def test_missed_expectations_of_scripts_are_printed(tmp_path):
    script = tmp_path / "script.yaml"
    script.write_text("- expect: response.cancel\n")
    command = [sys.executable, "-m", "duologue", "simulate", "qwen", "--port", "0"]
    with subprocess.Popen(
        [*command, "--backend", str(script), "--key", "mine"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        assert lines[2] == "DASHSCOPE_API_KEY=...\n"
        address = lines[0].split()[1]
        with connect(address, additional_headers={"Authorization": "Bearer mine"}) as socket:
            assert json.loads(socket.recv())["type"] == "session.created"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert "line 1 (step 1): response.cancel had not come" in errors


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backend", "parrot"], "there is no backend 'parrot'"),
        (["--faults", "lossy"], "no fault is called 'lossy'"),
        (["--host", "0.0.0.0"], "give a --key of your own"),  # noqa: S104 - it is refused
    ],
)
def test_wrong_options_are_reported_in_one_line(options, words):
    result = CliRunner().invoke(main, ["simulate", "qwen", *options])
    assert result.exit_code == 2
    assert words in result.output
    assert result.output.count("\n") == 1
