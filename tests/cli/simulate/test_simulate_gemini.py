"""``duologue simulate gemini`` prints its address and ends on Ctrl-C."""

from __future__ import annotations

import asyncio
import re
import signal
import ssl
import subprocess
import sys

import pytest
from click.testing import CliRunner

from duologue.cli import main

pytest.importorskip("aiohttp", reason="the simulate extra is not installed")
pytest.importorskip("google.genai", reason="google-genai is not installed")

from google import genai
from google.genai import types


def test_serves_until_ctrl_c(tmp_path):
    script, trust = tmp_path / "script.yaml", tmp_path / "ca.pem"
    script.write_text("- expect: toolResponse\n")
    command = [sys.executable, "-m", "duologue", "simulate", "gemini", "--port", "0"]
    with subprocess.Popen(
        [*command, "--backend", str(script), "--faults", "slow", "--tls", str(trust)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        match = re.search(
            r"GOOGLE_GEMINI_BASE_URL=(\S+) GEMINI_API_KEY=(\S+) SSL_CERT_FILE=(\S+)", lines[2]
        )
        assert match is not None
        assert match[3] == str(trust)
        context = ssl.create_default_context(cafile=str(trust))

        async def connect():
            client = genai.Client(
                api_key=match[2],
                vertexai=False,
                http_options=types.HttpOptions(
                    base_url=match[1], async_client_args={"ssl": context}
                ),
            )
            async with client.aio.live.connect(model="gemini-3.8-live", config={}) as session:
                return session.setup_complete

        assert asyncio.run(connect()) is not None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 1
        assert (
            errors
            == f"{script}, line 1 (step 1): toolResponse had not come when the session ended\n"
        )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--backend", "parrot"], "there is no backend 'parrot'"),
        (["--faults", "quota"], "no fault is called 'quota'"),
        (["--host", "0.0.0.0"], "give a --key of your own"),  # noqa: S104 - it is refused
        (["--tls", "/nowhere/ca.pem"], "/nowhere/ca.pem: no such file or directory"),
    ],
)
def test_wrong_options_are_reported_in_one_line(options, text):
    result = CliRunner().invoke(main, ["simulate", "gemini", *options])
    assert result.exit_code == 2
    assert text in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("missing", ["aiohttp", "orjson", "pybase64"])
def test_missing_dependency_names_the_extra_to_install(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "sys.argv = ['duologue', 'simulate', 'gemini']\n"
        "import runpy; runpy.run_module('duologue', run_name='__main__')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert f"{missing} is not installed: pip install 'duologue[simulate]'" in run.stderr
