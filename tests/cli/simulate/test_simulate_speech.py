"""``duologue simulate cartesia|deepgram|elevenlabs``."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from duologue.cli import main

PATHS = {
    "cartesia": "/tts/websocket",
    "deepgram": "/v1/speak?model=aura-2-thalia-en",
    "elevenlabs": "/v1/speech-to-text/realtime",
}


@pytest.mark.parametrize("vendor", PATHS)
def test_it_serves_until_ctrl_c(vendor):
    command = [sys.executable, "-m", "duologue", "simulate", vendor, "--port", "0"]
    with subprocess.Popen(
        [*command, "--transcript", "what time is it"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        address = re.fullmatch(r"base_url   (\S+)\n", lines[0])
        assert address is not None
        assert lines[1].startswith(f"{vendor.upper()}_API_KEY=")
        with pytest.raises(InvalidStatus) as refused:
            connect(address[1] + PATHS[vendor])
        assert refused.value.response.status_code == 401
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert errors == ""


def test_a_backend_that_replies_is_refused():
    result = CliRunner().invoke(main, ["simulate", "cartesia", "--backend", "loopback"])
    assert result.exit_code != 0
    assert "write local" in result.output
