"""``duologue simulate twilio`` and the others call an app, or serve the REST interface."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
import wave
from contextlib import suppress

import numpy as np
import pytest
import uvicorn
from click.testing import CliRunner
from starlette.applications import Starlette

from duologue import Agent
from duologue.cli import main
from duologue.cli.simulate.phone import DEFAULT_KEY, DEFAULT_PORT
from duologue.edges import telephone
from duologue.testing import Reply, ScriptedRealtime

BROKEN: list[bool] = []


@pytest.fixture
def broken():
    """While the list has an entry, the app can't make agents."""
    yield BROKEN
    BROKEN.clear()


@pytest.fixture(scope="module")
def app_url():
    """The address of an app that takes Twilio's calls."""
    app = Starlette()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    started = threading.Event()
    port = 0

    async def run():
        nonlocal port
        listener = await asyncio.get_running_loop().run_in_executor(None, server.config.bind_socket)
        port = listener.getsockname()[1]
        carrier = telephone.Twilio(f"http://localhost:{port}", auth_token=DEFAULT_KEY)
        replies = [Reply("Hello.", seconds=0.4)]

        def make_agent(edge):
            if BROKEN:
                raise RuntimeError("no agent")
            return Agent(edge=edge, llm=ScriptedRealtime(replies))

        telephone.mount(app, make_agent, carrier)
        # Bound is not listening: a caller that comes now would be refused.
        listener.listen()
        started.set()
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    assert started.wait(10)
    yield f"http://localhost:{port}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture
def speech(tmp_path):
    file = tmp_path / "speech.wav"
    with wave.open(str(file), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(np.tile(np.repeat([8000, -8000], 20), 300).astype("<i2").tobytes())
    return file


def test_a_call(app_url, speech, tmp_path, monkeypatch):
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    heard = tmp_path / "heard.wav"
    command = ["simulate", "twilio", app_url, "--call", "--port", "0", "--seconds", "1.5"]
    options = ["--say", str(speech), "--press", "1#", "--parameter", "lang=en", "--out", str(heard)]
    result = CliRunner().invoke(main, [*command, *options])
    assert result.exit_code == 0, result.output
    assert "The app has answered.\nHeard 0." in result.output
    with wave.open(str(heard)) as audio:
        assert audio.getframerate() == 8000
        assert audio.getnframes() > 2000


def test_a_call_needs_no_port_of_its_own(app_url):
    with socket.socket() as taken:
        with suppress(OSError):  # another program has it
            taken.bind(("127.0.0.1", DEFAULT_PORT))
            taken.listen()
        command = ["simulate", "twilio", app_url, "--call", "--seconds", "0.2"]
        result = CliRunner().invoke(main, [*command, "--key", DEFAULT_KEY])
    assert result.exit_code == 0, result.output


def test_an_app_that_fails_fails_the_call(app_url, broken):
    broken.append(True)
    command = ["simulate", "twilio", app_url, "--call", "--port", "0", "--seconds", "5"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "the app closed the call with 1011: it failed, see its log" in result.output


def test_a_wrong_key_fails_the_call(app_url):
    command = ["simulate", "twilio", app_url, "--call", "--port", "0", "--key", "another"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "the call failed: the webhook answered 403" in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--call", "--parameter", "lang"], "--parameter must be NAME=VALUE"),
        (["--call", "--delay", "-1"], "delay_ms must be from 0"),
        (["--call", "--press", "abx"], "--press must be keys such as 12#, not 'abx'"),
        (["--press", "1"], "--press needs --call"),
        (["nonsense", "--call"], "the address must begin with http:// or https://"),
        (["--host", "0.0.0.0"], "give a --key of your own"),  # noqa: S104
    ],
)
def test_options_that_can_not_work_are_one_line(options, words):
    result = CliRunner().invoke(main, ["simulate", "plivo", "--port", "0", *options])
    assert result.exit_code == 2
    assert words in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "variables"),
    [
        ("twilio", "TWILIO_AUTH_TOKEN TWILIO_BASE_URL"),
        ("telnyx", "TELNYX_API_KEY TELNYX_BASE_URL TELNYX_PUBLIC_KEY TELNYX_CONNECTION_ID"),
        ("plivo", "PLIVO_AUTH_TOKEN PLIVO_BASE_URL"),
        ("vonage", "VONAGE_SIGNATURE_SECRET VONAGE_BASE_URL"),
    ],
)
def test_serves_until_ctrl_c(name, variables):
    command = [sys.executable, "-m", "duologue", "simulate", name, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        assert process.returncode == 0
    assert lines[0].startswith("base_url   http://127.0.0.1:")
    assert re.findall(r"(?:^| )(\w+)=", lines[1])[: len(variables.split())] == variables.split()
