"""``duologue simulate openai`` prints its address, and ends on Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from duologue.cli import main
from event_loops import EVENT_LOOPS

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("openai", reason="the openai extra is not installed")

from openai import OpenAI


@pytest.mark.parametrize("loop", EVENT_LOOPS)
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_a_signal_and_prints_missed_expectations(tmp_path, end, loop):
    script = tmp_path / "script.yaml"
    script.write_text("- expect: response.cancel\n")
    command = [sys.executable, "-m", "duologue", "--loop", loop, "simulate", "openai"]
    with subprocess.Popen(
        [*command, "--port", "0", "--backend", str(script), "--faults", "down"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        url = re.search(r"OPENAI_BASE_URL=(\S+) OPENAI_API_KEY=sk-simulator", lines[2])
        assert url is not None
        client = OpenAI(base_url=url[1], api_key="sk-simulator", max_retries=2)
        assert client.realtime.client_secrets.create().value.startswith("ek_")
        with client.realtime.connect(model="gpt-realtime") as connection:
            assert connection.recv().type == "session.created"
        process.send_signal(end)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 1
        assert (
            errors
            == f"{script}, line 1 (step 1): response.cancel had not come when the session ended\n"
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--backend", "parrot"], "there is no backend 'parrot'"),
        (["--faults", "flood"], "no fault is called 'flood'"),
        (["--host", "0.0.0.0"], "give a --key of your own"),  # noqa: S104 - it is refused
    ],
)
def test_wrong_options_are_reported_in_one_line(options, words):
    result = CliRunner().invoke(main, ["simulate", "openai", *options])
    assert result.exit_code == 2
    assert words in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("module", ["orjson", "pybase64"])
@pytest.mark.parametrize("name", ["openai", "gemini", "qwen", "nova"])
def test_missing_package_is_reported_in_one_line(name, module):
    program = (
        "import sys\n"
        f"sys.modules[{module!r}] = None\n"
        "from duologue.cli import main\n"
        f"sys.argv = ['duologue', 'simulate', {name!r}, '--port', '0']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr == f"duologue: {module} is not installed: pip install 'duologue[simulate]'\n"
