"""``--llm`` and functions of the user on ``serve``, ``talk``, ``run`` and ``demo``."""

import asyncio
import os
import re
import signal
import sys
from contextlib import asynccontextmanager

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from server_fixture import Served, receive_close

from duologue.cli import main
from duologue.cli.agent_source import ModelSource
from duologue.cli.event_relay import relayed
from duologue.edges import wav
from duologue.testing import CartesiaSimulator, OpenAISimulator, run_virtual

APP = """
from duologue import Agent
from duologue.testing import ScriptedRealtime

def make_agent(edge):
    return Agent(edge=edge, llm=ScriptedRealtime(["We close at nine."], transcripts=["When?"]))

async def conduct(edge):
    async with make_agent(edge).join() as agent:
        await agent.finish()

def broken(edge):
    raise RuntimeError("the database is down")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asyncio, "run", run_virtual)
    (tmp_path / "modelapp.py").write_text(APP)
    tone = 0.4 * np.sin(2 * np.pi * 300 * np.arange(8000) / 16000)
    soundfile.write(tmp_path / "question.wav", tone, 16000)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "DEEPGRAM_API_KEY", "CARTESIA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    sys.modules.pop("modelapp", None)


def command(*args):
    return CliRunner().invoke(main, [str(arg) for arg in args])


@asynccontextmanager
async def process(*args, **environment):
    """Start a command as a process; kill it at the end."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "duologue", *map(str, args)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def address_of(running):
    """Return the address that a server prints."""
    async with asyncio.timeout(30):
        while line := (await running.stdout.readline()).decode():
            if found := re.search(r"Talk at (\S+)/", line):
                return found[1]
    pytest.fail((await running.stderr.read()).decode())


@pytest.mark.parametrize("name", ["make_agent", "conduct"])
def test_run_holds_a_conversation_of_the_users_function(folder, name):
    result = command("run", f"modelapp:{name}", "question.wav", "--fast", "--events", "e.jsonl")
    assert result.exit_code == 0, result.output
    assert "you  When?" in result.output
    assert "agent  We close at nine." in result.output
    assert (folder / "e.jsonl").read_text().count("RealtimeConnectedEvent") == 1


def test_a_function_that_fails_ends_run_with_one_line(folder):
    result = command("run", "modelapp:broken", "question.wav", "--fast")
    assert result.exit_code == 1
    assert result.output == (
        "duologue: modelapp:broken failed: modelapp.py line 13: RuntimeError: "
        "the database is down\n"
    )


def test_say_needs_an_agent(folder):
    result = command("run", "modelapp:conduct", "question.wav", "--fast", "--say", "Hi.")
    assert result.exit_code == 2
    assert "--say needs a function that returns an Agent" in result.output


def test_demo_lets_the_recorded_caller_talk_with_the_users_agent(folder, monkeypatch):
    def caller(recording, *, relay):
        assert relay
        return relayed(wav.Edge)("question.wav", recording, settle_s=0.2)

    monkeypatch.setattr("duologue.cli.demo.recorded_caller", caller)
    result = command("demo", "modelapp:make_agent", "--once")
    assert result.exit_code == 0, result.output
    assert "A recorded caller talks with modelapp:make_agent." in result.output
    assert "1 reply; " in result.output
    assert (folder / "conversation.wav").exists()
    refused = command("demo", "modelapp:make_agent", "--profile", "tiny")
    assert refused.output == (
        "duologue: modelapp:make_agent chooses its own model: leave out --profile\n"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["modelapp:make_agent"], "run needs a recording too"),
        (
            ["modelapp:make_agent", "question.wav", "--llm", "openai", "--voice", "ash"],
            "modelapp:make_agent chooses its own model: leave out --llm, --voice",
        ),
        (["question.wav", "--llm", "opnai"], "there is no provider 'opnai'; did you mean openai?"),
        (["question.wav", "--llm", "_x"], "there is no provider '_x'; there are: "),
        (["question.wav", "--llm", ":x"], "--llm must be PROVIDER or PROVIDER:MODEL, not ':x'"),
        (["question.wav", "--llm", "openai", "--fast"], "--fast needs a model in this process"),
        (["question.wav", "--llm", "local", "--profile", "tiny"], "--profile is short for --llm"),
        (["question.wav", "--llm", "local:huge"], "there is no profile 'huge'"),
        (["question.wav", "--llm", "openai"], "no API key: set OPENAI_API_KEY"),
        (["question.wav", "--llm", "gemini", "--tts", "cartesia"], "Gemini answers in audio only"),
        (["question.wav", "--set", "sped=1"], "local.Realtime has no option 'sped'"),
        (
            ["question.wav", "--llm", "openai", "--stt", "deepgram"],
            "llm 'openai': missing a required argument: 'model'",
        ),
        (
            [
                "question.wav",
                "--llm",
                "openai:x",
                "--stt",
                "deepgrm",
                "--set",
                "base_url=http://[::1]",
            ],
            "there is no stt 'deepgrm'",
        ),
    ],
)
def test_options_that_cannot_work_are_one_line_and_exit_code_2(folder, args, message):
    result = command("run", *args)
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.count("\n") == 1


async def test_serve_tries_the_key_before_it_prints_the_address(folder):
    async with OpenAISimulator(replies=["Yes."]) as simulator:
        at = f"base_url={simulator.url}"
        options = ("serve", "--port", 0, "--llm", "openai", "--set", "transport=websocket")
        async with process(*options, "--set", at, OPENAI_API_KEY="sk-wrong") as running:
            out, err = await asyncio.wait_for(running.communicate(), 30)
        assert running.returncode == 2
        assert out.decode() == "Trying openai ...\n"
        assert err.decode() == "duologue: --llm openai: Incorrect API key provided.\n"
        assert "sk-wrong" not in err.decode()

        async with process(*options, "--set", at, OPENAI_API_KEY=simulator.key) as running:
            await address_of(running)


async def test_run_talks_with_a_service(folder):
    async with (
        OpenAISimulator(replies=["We close at nine."], transcripts=["When?"]) as simulator,
        process(
            *("run", "question.wav", "--llm", "openai:gpt-realtime-2.1", "--voice", "ash"),
            *("--set", f"base_url={simulator.url}", "--set", "transport=websocket"),
            OPENAI_API_KEY=simulator.key,
        ) as running,
    ):
        out, err = await asyncio.wait_for(running.communicate(), 40)
    assert running.returncode == 0, err.decode()
    assert "agent  We close at nine." in out.decode()


async def test_run_talks_with_a_service_that_another_voice_speaks_for(folder):
    async with (
        OpenAISimulator(replies=["We close at nine."], transcripts=["When?"]) as simulator,
        CartesiaSimulator(key="cartesia-key") as voice,
        process(
            *("run", "question.wav", "--llm", "openai", "--tts", "cartesia", "--voice", "katie"),
            *("--set", f"base_url={simulator.url}", "--set", f"tts.base_url={voice.url}"),
            *("--set", "transport=websocket"),
            OPENAI_API_KEY=simulator.key,
            CARTESIA_API_KEY="cartesia-key",
        ) as running,
    ):
        out, err = await asyncio.wait_for(running.communicate(), 40)
    assert running.returncode == 0, err.decode()
    assert "agent  We close at nine." in out.decode()


def test_two_voices_are_an_error(folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("CARTESIA_API_KEY", "x")
    options = ("--llm", "openai", "--tts", "cartesia:katie", "--voice", "ash")
    result = command("run", "question.wav", *options, "--set", "base_url=http://127.0.0.1:1")
    assert result.output == ("duologue: --voice and --tts both name a voice: leave out --voice\n")


async def test_a_service_that_cannot_be_reached_now_is_a_note(folder):
    async with process(
        *("serve", "--port", 0, "--llm", "openai", "--set", "base_url=http://127.0.0.1:1/v1"),
        OPENAI_API_KEY="sk-x",
    ) as running:
        lines = [(await asyncio.wait_for(running.stdout.readline(), 30)).decode() for _ in range(3)]
    assert lines[0] == "Trying openai ...\n"
    assert lines[1].startswith("Note: openai can't be reached now, but may be later: ")
    assert lines[2].startswith("Talk at http://localhost:")


def test_a_missing_key_is_told_before_any_weights_are_loaded(folder, monkeypatch):
    def load(*args, **options):
        raise AssertionError("the engine is loaded before the key is checked")

    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    monkeypatch.setattr(ModelSource, "_make_stt", load)
    monkeypatch.setattr(ModelSource, "_make_tts", load)
    result = command(
        "run", "question.wav", "--llm", "anthropic:m", "--stt", "local", "--tts", "local"
    )
    assert result.exit_code == 2
    assert "no API key: set ANTHROPIC_API_KEY" in result.output


async def test_serve_goes_on_when_the_users_function_fails(folder):
    async with process("serve", "modelapp:broken", "--port", 0) as running:
        port = int((await address_of(running)).rpartition(":")[2])
        server = Served("", port, None, None)
        for _ in range(2):
            async with server.socket() as socket:
                error, code, _ = await receive_close(socket)
                assert code == 1011
                assert error["message"].startswith("Something failed on the server")
        line = (await asyncio.wait_for(running.stderr.readline(), 10)).decode()
    assert line == (
        "modelapp:broken failed: modelapp.py line 13: RuntimeError: the database is down\n"
    )


async def test_serve_starts_again_on_the_same_port_when_the_app_changes(folder):
    app = folder / "modelapp.py"
    async with process("serve", "modelapp:make_agent", "--port", 0, "--reload") as running:
        address = await address_of(running)
        await asyncio.sleep(0.5)  # until the files are watched
        app.write_text("import not_there\n")
        async with asyncio.timeout(20):
            line = await running.stdout.readline()
            assert line == b"Changed: modelapp.py. Starting again ...\n"
            assert (await running.stderr.readline()).decode() == (
                "duologue: modelapp can't be imported: modelapp.py line 1: "
                "ModuleNotFoundError: No module named 'not_there'\n"
            )
        app.write_text(APP)
        assert await address_of(running) == address
        running.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(running.wait(), 10) == 0


async def accepts(port):
    """Return whether a server listens on the port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def test_a_reloading_server_ends_when_its_parent_is_killed(folder):
    async with process("serve", "modelapp:make_agent", "--port", 0, "--reload") as running:
        port = int((await address_of(running)).rpartition(":")[2])
        running.kill()
        await running.wait()
        async with asyncio.timeout(10):
            while await accepts(port):
                await asyncio.sleep(0.1)


def test_reload_needs_a_function_of_the_user(folder):
    result = command("serve", "--reload")
    assert result.exit_code == 2
    assert result.output == (
        "duologue: --reload needs a function of yours: duologue serve app:make_agent\n"
    )


async def test_doctor_looks_at_one_model(folder):
    async with OpenAISimulator(replies=["Yes."]) as simulator:
        options = ("doctor", "--llm", "openai", "--set", "transport=websocket")
        for at, key, code, last in (
            (simulator.url, simulator.key, 0, "ok   service      openai is ready ("),
            (simulator.url, "sk-wrong", 1, "miss service      --llm openai: Incorrect API key"),
            ("http://127.0.0.1:1/v1", "sk-x", 1, "miss service      openai can't be reached now"),
        ):
            async with process(*options, "--set", f"base_url={at}", OPENAI_API_KEY=key) as running:
                out, err = await asyncio.wait_for(running.communicate(), 30)
            assert running.returncode == code, err.decode()
            extra, shown_key, service = out.decode().splitlines()
            assert extra.startswith("ok   openai       OpenAI Realtime")
            assert shown_key.split()[1] == "key"
            assert key not in out.decode()
            assert service.startswith(last)


def test_serve_names_everything_that_a_model_lacks(folder, monkeypatch):
    for name in ("pybase64", "aiortc"):
        monkeypatch.setitem(sys.modules, name, None)
    result = command("serve", "--llm", "openai")
    assert result.exit_code == 2
    assert result.output == (
        "duologue: duologue serve needs pybase64, aiortc: pip install 'duologue[openai,browser]'\n"
    )


def test_doctor_reports_a_missing_extra_instead_of_trying_the_service(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pybase64", None)
    result = command("doctor", "--llm", "openai")
    assert result.exit_code == 1
    assert "pybase64 missing  ->  pip install 'duologue[openai]'" in result.output
    assert "service" not in result.output
