import asyncio
import contextlib
import io
import json
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import tomllib
import wave
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from PIL import Image

from duologue import Agent
from duologue.cli import main
from duologue.cli.extras import EXTRAS
from duologue.cli.plot import Segment, find_latencies, find_segments
from duologue.cli.run import converse
from duologue.cli.serve import listen_on_port
from duologue.cli.transcript_printer import TranscriptPrinter
from duologue.edges import wav
from duologue.errors import SessionError
from duologue.events import events
from duologue.server import ServerConfig
from duologue.testing.scripted import At, Reply, ScriptedRealtime
from duologue.testing.virtual_time import run_virtual
from event_loops import EVENT_LOOPS
from gguf_files import gguf

RATE = 24000


def speech(path, seconds, rate=16000):
    t = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * 300 * t), rate)
    return str(path)


@pytest.fixture
def question(tmp_path):
    return speech(tmp_path / "question.wav", 1.0)


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run a command in virtual time, with a scripted model in place of the engine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asyncio, "run", run_virtual)

    def run(*args, model=None):
        made = model or ScriptedRealtime(
            [Reply("We close at nine.", 2.0), Reply("Goodbye then.", 1.0)],
            transcripts=["When do you close?", "Stop."],
        )
        monkeypatch.setattr("duologue.cli.options.make_realtime", lambda *a, **k: made)
        return CliRunner().invoke(main, [str(arg) for arg in args])

    return run


def read(path):
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, RATE)
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    return both[:, 0], both[:, 1]


def test_run_records_prints_and_writes_every_event(command, question, tmp_path):
    result = command("run", question, "--out", "out.wav", "--events", "out.jsonl")
    assert result.exit_code == 0, result.output
    assert "you  When do you close?" in result.output
    assert "agent  We close at nine." in result.output
    assert "1 reply; first sound" in result.output

    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "RealtimeConnectedEvent"
    assert kinds[-1] == "RealtimeDisconnectedEvent"
    assert lines[-1]["clean"] is True
    assert kinds.count("RealtimeDisconnectedEvent") == 1
    assert "TurnMetricsEvent" in kinds
    for line in lines:
        assert {*line} - {"t", "type"} == {*getattr(events, line["type"]).__dataclass_fields__}
    times = [line["t"] for line in lines]
    assert times == sorted(times)
    assert times[0] == 0

    left, right = read(tmp_path / "out.wav")
    person, agent = find_segments(left, RATE), find_segments(right, RATE)
    assert len(person) == 1
    assert len(agent) == 1
    assert agent[0].end - agent[0].start == pytest.approx(2.0, abs=0.03)
    # The events and the recording share one timeline.
    started = next(line["t"] for line in lines if line["type"] == "AgentTurnStartedEvent")
    assert started == pytest.approx(agent[0].start, abs=0.04)


def test_run_speaks_first_and_the_caller_waits(command, question, tmp_path):
    result = command("run", question, "--out", "out.wav", "--say", "Good morning, this is Ada.")
    assert result.exit_code == 0
    assert result.output.index("Good morning, this is Ada.") < result.output.index("When do you")
    left, right = read(tmp_path / "out.wav")
    greeting = find_segments(right, RATE)[0]
    assert find_segments(left, RATE)[0].start > greeting.end


def test_run_with_an_interjection_cuts_the_reply(command, question, tmp_path):
    speech(tmp_path / "stop.flac", 0.8, 44100)
    model = ScriptedRealtime(
        [Reply("This is a long answer that goes on and on.", 6.0), Reply("Nine.", 1.0)],
        transcripts=["When do you close?", "Just the time."],
    )
    result = command(
        *("run", question, "--interject", "stop.flac", "--after", "1"),
        *("--out", "out.wav", "--picture", "out.png"),
        model=model,
    )
    assert result.exit_code == 0, result.output
    assert "-- (interrupted)" in result.output
    left, right = read(tmp_path / "out.wav")
    person, agent = find_segments(left, RATE), find_segments(right, RATE)
    assert person[1].start - agent[0].start == pytest.approx(1.0, abs=0.06)
    assert agent[0].end - person[1].start < 0.6
    assert agent[1].start > person[1].end
    with Image.open(tmp_path / "out.png") as image:
        assert image.width >= 1800
        assert len(image.getcolors(1 << 24)) > 20


def test_run_says_when_the_session_did_not_end_cleanly(command, question):
    model = ScriptedRealtime(at=[At(0.5, SessionError("the model is gone", code="gone"))])
    result = command("run", question, model=model)
    assert result.exit_code == 1
    assert "the model is gone" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.wav"], "can't read none.wav: no such file"),
        (["text.wav"], "can't read text.wav: it is not a readable audio file"),
        (["empty.wav"], "can't read empty.wav: it is empty"),
        (["silent.wav"], "can't use silent.wav: it contains no audio"),
        (["good.wav", "--interject", "none.wav"], "can't read none.wav"),
        (["good.wav", "--out", "no/out.wav"], "can't write no/out.wav"),
        (["good.wav", "--events", "no/out.jsonl"], "can't write no/out.jsonl"),
        (["good.wav", "--picture", "out.png"], "give --out too"),
        (["good.wav", "--instructions", "Read @none.md"], "there is no such file in"),
    ],
)
def test_bad_input_causes_one_line_and_exit_code_2(command, tmp_path, args, message):
    (tmp_path / "text.wav").write_text("this is not audio")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "silent.wav", np.zeros(0), 16000)
    speech(tmp_path / "good.wav", 0.3)
    result = command("run", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("duologue: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (tmp_path / "out.wav").exists()


def test_fast_reports_no_latencies(command, question, tmp_path):
    result = command(
        *("run", question, "--fast", "--events", "out.jsonl", "--out", "out.wav"),
        *("--picture", "out.png"),
    )
    assert result.exit_code == 0, result.output
    assert "1 reply; no latencies" in result.output
    assert " ms" not in result.output
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    (metrics,) = [line for line in lines if line["type"] == "TurnMetricsEvent"]
    times = {name: value for name, value in metrics.items() if name.endswith("_ms")}
    assert len(times) == 5
    assert set(times.values()) == {None}


def test_a_busy_machine_is_reported_with_the_latencies(command, question, monkeypatch):
    monkeypatch.setattr("duologue.cli.strain.LoadMonitor.warning", lambda self: "It was busy.")
    result = command("run", question)
    assert result.stdout.endswith("end of speech (median).\nIt was busy.\n")
    assert "busy" not in command("run", question, "--fast").stdout


def test_events_on_a_full_disk_cause_one_line_and_the_conversation_continues(
    command, question, tmp_path
):
    result = command("run", question, "--events", "/dev/full", "--out", "out.wav")
    assert result.exit_code == 1
    assert result.stderr == (
        "duologue: can't write /dev/full: no space left on device; "
        "the conversation continues without it\n"
    )
    assert "agent  We close at nine." in result.stdout
    assert len(find_segments(read(tmp_path / "out.wav")[1], RATE)) == 1


def test_a_recording_on_a_full_disk_causes_one_line_and_the_conversation_continues(
    command, question, tmp_path
):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        result = command("run", question, "--out", "out.wav")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    assert "agent  We close at nine." in result.stdout
    assert len(read(tmp_path / "out.wav")[0]) == RATE


def test_a_closed_terminal_does_not_end_the_conversation(question, tmp_path):
    made = ScriptedRealtime([Reply("We close at nine.", 2.0)], transcripts=["When?"])
    edge = wav.Edge(question, tmp_path / "out.wav")

    class Gone(io.TextIOBase):
        def write(self, text):
            raise OSError(5, "Input/output error")

    with contextlib.redirect_stdout(Gone()):
        printer = run_virtual(converse(Agent(edge=edge, llm=made), echo=True))
    assert printer.disconnected_event.clean
    assert len(printer.latencies) == 1
    assert edge.recorded_s > 3


@pytest.mark.parametrize(
    ("number", "code", "quiet"),
    [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, False), (signal.SIGHUP, 129, True)],
)
@pytest.mark.parametrize("loop", EVENT_LOOPS)
def test_a_run_that_is_ended_early_prints_what_was_written(
    question, tmp_path, number, code, quiet, loop
):
    program = """
import sys
from duologue.cli import main, options
from duologue.testing import Reply, ScriptedRealtime

options.make_realtime = lambda *a, **k: ScriptedRealtime(
    [Reply("This takes a while to say.", 60.0)], transcripts=["Go on."]
)
main(sys.argv[1:])
"""
    args = [
        "--loop",
        loop,
        "run",
        question,
        "--out",
        "out.wav",
        "--events",
        "e.jsonl",
        *["--quiet"] * quiet,
    ]
    with subprocess.Popen(
        [sys.executable, "-c", program, *args],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            events = tmp_path / "e.jsonl"
            deadline = time.monotonic() + 30
            while not (events.exists() and "AgentTurnStarted" in events.read_text()):
                assert run.poll() is None, run.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            run.send_signal(number)
            assert run.wait(10) == code
            said = run.stderr.read()
        finally:
            run.kill()
    assert re.fullmatch(r"\nStopped\. Wrote out\.wav \(\d\.\d s\) and e\.jsonl\.\n", said)
    assert len(find_segments(read(tmp_path / "out.wav")[0], RATE)) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"question.wav", "out.wav", "e.jsonl"}


def test_demo_once_writes_audio_and_image(command, tmp_path):
    model = ScriptedRealtime(
        [
            Reply("From seven to ten.", 2.0),
            Reply("It is a small hotel by the harbour.", 8.0),
            Reply("Ninety euros.", 1.5),
            Reply("Behind the house.", 1.5),
        ],
        transcripts=["What time is breakfast?", "Tell me more.", "How much?", "Where do I park?"],
    )
    result = command("demo", "--once", model=model)
    assert result.exit_code == 0, result.output
    assert "Ada speaking." in result.output
    assert "(interrupted)" in result.output
    assert "4 replies" in result.output
    assert "conversation.wav and conversation.png" in result.output
    left, right = read(tmp_path / "conversation.wav")
    assert len(find_segments(left, RATE)) == 4
    assert len(find_segments(right, RATE)) == 5
    assert (tmp_path / "conversation.png").stat().st_size > 10_000


def test_live_text_is_rewritten_and_colours_are_for_terminals_only(capsys):
    printer = TranscriptPrinter(lambda: 1.0, live=True)
    printer.handle(events.UserTranscriptEvent("When do", False, "person"))
    printer.handle(events.UserTranscriptEvent("When do you close?", True, "person"))
    printer.close()
    out = capsys.readouterr().out
    assert "When do ..." in out
    assert out.index("\r") < out.index("When do you close?")


def test_voice_segments_and_latencies_are_found():
    samples = np.zeros(RATE * 10, np.int16)
    for start, end in ((1, 2), (2.3, 3), (5, 6)):
        samples[round(start * RATE) : round(end * RATE)] = 5000
    found = find_segments(samples, RATE)
    assert [(round(s.start, 2), round(s.end, 2)) for s in found] == [(1, 3), (5, 6)]
    agent = [Segment(0.1, 0.5), Segment(3.4, 4.5), Segment(4.7, 5.2), Segment(6.25, 7)]
    assert [gap.ms for gap in find_latencies(found, agent)] == [400, 250]


def test_talk_without_portaudio_or_devices_causes_one_line(command):
    result = command("talk", "--devices")
    if result.exit_code:
        assert result.exit_code == 2
        assert result.stderr.startswith("duologue: ")
        assert result.stderr.count("\n") == 1


def test_talk_joins_the_microphone(command, monkeypatch):
    from duologue.edges import wav

    def edge(**options):
        assert options == {"input": 3, "output": "USB", "echo_cancellation": False}
        from duologue.audio import AudioFrame

        return wav.Edge(AudioFrame(np.full(8000, 9000, np.int16), 16000), wait_for_greeting=True)

    monkeypatch.setattr("duologue.edges.microphone.Edge", edge)
    result = command("talk", "--input", "3", "--output", "USB", "--headphones", "--say", "Hello.")
    assert result.exit_code == 0, result.output
    assert "agent  Hello." in result.output


def test_doctor_has_a_line_and_a_fix_for_everything(command):
    result = command("doctor")
    lines = result.output.splitlines()
    assert all(line.startswith(("ok  ", "miss")) for line in lines)
    assert all("->" in line for line in lines if line.startswith("miss"))
    named = {line.split()[1] for line in lines}
    assert named >= {
        "python",
        "duologue",
        "machine",
        "local",
        "server",
        "mic",
        "devices",
        "weights",
    }


_KEY_VARIABLES = (
    *("ANTHROPIC_API_KEY", "CARTESIA_API_KEY", "DEEPGRAM_API_KEY", "ELEVENLABS_API_KEY"),
    *("GEMINI_API_KEY", "GOOGLE_API_KEY", "OPENAI_API_KEY", "DASHSCOPE_API_KEY"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
)
_HEX = "0123456789abcdef" * 3
_AWS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": _HEX[:40]}


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({}, "miss key          Anthropic: not set  ->  set ANTHROPIC_API_KEY"),
        ({}, "miss key          Google: not set  ->  set GEMINI_API_KEY"),
        (
            {},
            "miss key          AWS: not set  ->  set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,",
        ),
        (
            {"ANTHROPIC_API_KEY": f"sk-ant-api03-{_HEX}"},
            "ok   key          Anthropic: ANTHROPIC_API_KEY is set and looks like a key",
        ),
        (
            {"CARTESIA_API_KEY": f"sk_car_{_HEX[:22]}"},
            "ok   key          Cartesia: CARTESIA_API_KEY is set and looks like a key",
        ),
        ({"DEEPGRAM_API_KEY": _HEX[:40]}, "ok   key          Deepgram: DEEPGRAM_API_KEY is set"),
        ({"ELEVENLABS_API_KEY": f"sk_{_HEX}"}, "ok   key          ElevenLabs: ELEVENLABS_API_KEY"),
        ({"GOOGLE_API_KEY": f"AIza{_HEX[:35]}"}, "ok   key          Google: GOOGLE_API_KEY is set"),
        ({"OPENAI_API_KEY": f"sk-proj-{_HEX}"}, "ok   key          OpenAI: OPENAI_API_KEY is set"),
        ({"DASHSCOPE_API_KEY": f"sk-{_HEX}"}, "ok   key          Qwen: DASHSCOPE_API_KEY is set"),
        (_AWS, "ok   key          AWS: AWS_ACCESS_KEY_ID is set and looks like a key"),
        (
            {"OPENAI_API_KEY": "secret-of-my-server"},
            "miss key          OpenAI: OPENAI_API_KEY is set, but does not look like a key",
        ),
        (
            {"DEEPGRAM_API_KEY": f"{_HEX[:40]}\n"},
            "miss key          Deepgram: DEEPGRAM_API_KEY has spaces, line ends or quotes",
        ),
        (
            {"OPENAI_API_KEY": f"sk-{_HEX}\N{HORIZONTAL ELLIPSIS}"},
            "miss key          OpenAI: OPENAI_API_KEY has characters that no key has",
        ),
        (
            {"AWS_ACCESS_KEY_ID": _AWS["AWS_ACCESS_KEY_ID"]},
            "miss key          AWS: AWS_SECRET_ACCESS_KEY is not set, but its other half is",
        ),
        ({**_AWS, "AWS_SECRET_ACCESS_KEY": "sec ret"}, "miss key          AWS: AWS_SECRET_ACCESS"),
        (
            {**_AWS, "AWS_ACCESS_KEY_ID": "id-of-mine"},
            "miss key          AWS: keys are set, but do not",
        ),
        (
            {**_AWS, "AWS_ACCESS_KEY_ID": "ASIAIOSFODNN7EXAMPLE"},
            "miss key          AWS: temporary keys lack their token  ->  set AWS_SESSION_TOKEN",
        ),
    ],
)
def test_doctor_tells_whether_keys_are_set_without_printing_them(
    command, monkeypatch, tmp_path, environment, line
):
    for name in (*_KEY_VARIABLES, "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DUOLOGUE_CACHE", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    output = command("doctor").output
    assert any(each.startswith(line) for each in output.splitlines()), output
    assert not any(value.strip()[4:] in output for value in environment.values())


def test_doctor_finds_the_file_of_aws_keys(command, monkeypatch, tmp_path):
    for name in _KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    (tmp_path / "keys").touch()
    assert f"ok   key          AWS: not set, but there is {tmp_path / 'keys'}" in (
        command("doctor").output
    )


def test_doctor_names_the_extra_of_a_missing_module(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiortc", None)
    result = command("doctor")
    assert result.exit_code == 1
    assert "aiortc missing  ->  pip install 'duologue[webrtc]'" in result.output


@pytest.mark.parametrize("name", ["demo", "serve", "run", "talk"])
@pytest.mark.parametrize(
    ("profile", "told"),
    [
        ("huge", "'huge' is not tiny, small, better, hf:ORG/REPO/FILE.gguf or the path of a GGUF"),
        ("none.gguf", "there is no file none.gguf"),
        ("question.wav", "question.wav can't be the language model: it is no GGUF file"),
        ("hf:acme/toy", "'hf:acme/toy' must be hf:ORG/REPO/FILE.gguf"),
    ],
)
def test_a_profile_that_names_nothing_is_refused(command, question, name, profile, told):
    files = [question] if name == "run" else []
    result = command(name, *files, "--profile", profile)
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())
    assert "Loading" not in result.output


@pytest.mark.parametrize("name", ["file.gguf", "hf:acme/Toy-GGUF/toy-q4.gguf"])
def test_a_profile_may_be_a_gguf_file(command, question, monkeypatch, tmp_path, name):
    from duologue.cli import options
    from duologue.providers import local

    (tmp_path / "file.gguf").write_bytes(gguf())
    made = options.make_realtime
    engine = made(name, offline=True)
    assert isinstance(engine, local.Realtime)
    assert engine.capabilities.model == Path(name).stem
    assert made("tiny", offline=True).capabilities.model == "smollm2-135m"
    assert command("run", question, "--profile", name).exit_code == 0


@pytest.mark.parametrize("name", ["demo", "serve", "run", "talk"])
def test_a_command_names_everything_that_it_lacks_at_once(command, monkeypatch, question, name):
    for module in ("xllamacpp", "onnxruntime", "aiortc", "uvicorn", "sounddevice"):
        monkeypatch.setitem(sys.modules, module, None)
    result = command(name, *([question] if name == "run" else []))
    lacks, extras = {
        "demo": ("onnxruntime, xllamacpp, uvicorn, aiortc", "local,browser"),
        "serve": ("onnxruntime, xllamacpp, uvicorn, aiortc", "local,browser"),
        "run": ("onnxruntime, xllamacpp", "local"),
        "talk": ("onnxruntime, xllamacpp, sounddevice", "local,mic"),
    }[name]
    assert result.exit_code == 2
    assert result.output == (
        f"duologue: duologue {name} needs {lacks}: pip install 'duologue[{extras}]'\n"
    )


@pytest.fixture
def taken():
    """Yield a port of this machine that another program has."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def no_engine(*args, **kwargs):
    pytest.fail("the engine was loaded before the port was known to be free")


@pytest.mark.parametrize("name", ["demo", "serve"])
def test_a_requested_port_that_is_taken_causes_one_line_at_once(command, monkeypatch, taken, name):
    monkeypatch.setattr("duologue.cli.options.make_realtime", no_engine)
    result = command(name, "--port", taken)
    assert result.exit_code == 2
    assert result.output == (
        f"duologue: can't listen on 127.0.0.1 port {taken} (Address already in use): "
        "choose another port, or 0 for a free one\n"
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_default_port_that_is_taken_is_replaced_by_the_next_with_a_note(capsys, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as other:
        port = other.getsockname()[1]
        with listen_on_port(ServerConfig(port=port), exact=False) as listener:
            moved = listener.getsockname()[1]
    assert port < moved <= port + 20
    assert capsys.readouterr().out == f"Port {port} is taken: using {moved}.\n"


def test_an_invalid_certificate_is_reported_before_the_engine_is_loaded(
    command, monkeypatch, tmp_path
):
    monkeypatch.setattr("duologue.cli.options.make_realtime", no_engine)
    (tmp_path / "c.pem").write_text("no certificate")
    result = command("serve", "--port", "0", "--certfile", "c.pem", "--keyfile", "c.pem")
    assert result.exit_code == 2
    assert "the certificate or its key can't be used" in result.stderr
    assert result.stderr.count("\n") == 1


def test_serve_refuses_an_open_address_without_token(command):
    result = command("serve", "--host", "0.0.0.0")  # noqa: S104
    assert result.exit_code == 2
    assert "token" in result.stderr


@pytest.mark.parametrize(
    "name", ["demo", "talk", "serve", "run", "batch", "new", "models", "doctor", "view"]
)
def test_each_command_has_help(name):
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 200
    context = click.Context(main)
    assert main.get_command(context, name).get_short_help_str()


def test_ctrl_c_causes_no_traceback(monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("duologue.weights.Store.ensure", interrupted)
    result = CliRunner().invoke(main, ["models", "fetch", "smollm2-135m"])
    assert result.exit_code == 130
    assert result.output.strip() == ""


def test_help_lists_the_commands_and_an_unknown_command_is_an_error():
    result = CliRunner().invoke(main, ["--help"])
    assert "demo" in result.output
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2
    assert "0.1" in CliRunner().invoke(main, ["--version"]).output


def test_python_m_is_quick_and_loads_nothing_heavy():
    code = (
        "import sys; from duologue.cli import main; main(['--help'], standalone_mode=False); "
        "assert not {'numpy', 'pydantic', 'onnxruntime', 'starlette', 'aiortc'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-m", "duologue", "run", "none.wav"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "duologue: can't read none.wav: no such file or directory\n"


def test_the_doctor_checks_every_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extras = set(project["project"]["optional-dependencies"]) - {"all"}
    output = CliRunner().invoke(main, ["doctor"]).output
    assert extras <= {line.split()[1] for line in output.splitlines() if len(line.split()) > 1}


def test_the_modules_of_an_extra_are_installed_by_it():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]

    def brought(extra):
        for requirement in extras[extra]:
            if own := re.fullmatch(r"duologue\[(.*)\]", requirement):
                for other in own.group(1).split(","):
                    yield from brought(other)
            else:
                yield re.split(r"[^\w-]", requirement)[0].lower().replace("_", "-")

    homes = packages_distributions()
    for extra, (_, modules) in EXTRAS.items():
        for module in modules:
            names = homes.get(module.partition(".")[0], [module])
            assert {name.lower().replace("_", "-") for name in names} & {*brought(extra)}, (
                f"{extra} does not bring {module}"
            )


@pytest.mark.parametrize(
    "options", [("--out", "./in.wav"), ("--out", "out.wav", "--events", "out.wav")]
)
def test_a_run_overwrites_neither_its_input_nor_its_own_output(tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    content = (Path(__file__).parents[1] / "data/speech/austen-0930.wav").read_bytes()
    (tmp_path / "in.wav").write_bytes(content)
    result = CliRunner().invoke(main, ["run", "in.wav", "--fast", *options])
    assert result.exit_code == 2
    assert "named twice" in str(result.exception) + result.output
    assert (tmp_path / "in.wav").read_bytes() == content
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--store", "calls.db"], "a store must be sqlite:FILE"),
        (["--store", "sqlite:none/calls.db"], "there is no folder none: make it first"),
        (["--store", "sqlite:question.wav"], "question.wav is not an SQLite database"),
        (["--keep", "3"], "--keep needs --store"),
    ],
)
def test_a_store_that_can_not_be_used_is_one_line(command, question, options, told):
    result = command("serve", "--port", "0", *options)
    assert result.exit_code == 2
    assert told in result.output
