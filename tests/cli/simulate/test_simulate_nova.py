"""``duologue simulate nova`` prints its address and ends on Ctrl-C."""

from __future__ import annotations

import asyncio
import re
import signal
import ssl
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from duologue.cli import main

pytest.importorskip("aws_sdk_bedrock_runtime", reason="the aws extra is not installed")
pytest.importorskip("h2", reason="the simulate extra is not installed")

from nova_client import connected, silence

from duologue.simulators.nova._sigv4 import Credentials


@pytest.mark.parametrize("tls", [False, True])
def test_serves_until_ctrl_c(tmp_path, tls):
    script, trust = tmp_path / "script.yaml", tmp_path / "ca.pem"
    script.write_text("- hear: hello\n- say: Hi.\n  seconds: 0.2\n- expect: toolResult\n")
    command = [sys.executable, "-m", "duologue", "simulate", "nova", "--port", "0"]
    options = ["--tls", str(trust)] if tls else []
    with subprocess.Popen(
        [
            *command,
            "--backend",
            str(script),
            "--faults",
            "busy",
            "--key",
            "AKIDMINE:mine",
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        match = re.match(r"base_url      (\S+)\n", lines[0])
        assert match is not None
        assert match[1].startswith("https://" if tls else "http://")
        assert lines[1] == "region        us-east-1\n"
        settings = dict(part.partition("=")[::2] for part in lines[2].split())
        assert settings == {
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": match[1],
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIDMINE",
            "AWS_SECRET_ACCESS_KEY": "...",
            **({"AWS_CA_BUNDLE": str(trust)} if tls else {}),
        }
        context = None
        if tls:
            context = ssl.create_default_context(cafile=str(trust))
            context.set_alpn_protocols(["h2"])
        keys = Credentials("AKIDMINE", "mine", "us-east-1")
        there = SimpleNamespace(url=match[1], ssl_context=context, credentials=keys)

        async def run():
            for _ in range(2):
                async with connected(there) as client:
                    assert await client.error() is not None
            async with connected(there) as client:
                await client.send_turn()
                await client.send_audio(silence(1.6))
                await client.receive_reply()
                return client.blocks[0]

        assert asyncio.run(run()) == ("TEXT USER FINAL", "hello", "PARTIAL_TURN")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 1
        assert (
            errors == f"{script}, line 4 (step 3): toolResult had not come when the session ended\n"
        )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--backend", "parrot"], "there is no backend 'parrot'"),
        (["--faults", "flood"], "no fault is called 'flood'"),
        (["--key", "only-one"], "--key must be ACCESS_KEY:SECRET_KEY"),
        (["--tls", "/nowhere/ca.pem"], "/nowhere/ca.pem: no such file or directory"),
        (["--host", "0.0.0.0"], "give a --key of your own"),  # noqa: S104 - it is refused
    ],
)
def test_wrong_options_are_reported_in_one_line(options, text):
    result = CliRunner().invoke(main, ["simulate", "nova", *options])
    assert result.exit_code == 2
    assert text in result.output
    assert result.output.count("\n") == 1
