"""The commands with the real built-in engine, as a person runs them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import wave
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("xllamacpp", reason="needs duologue[local]")

from duologue.providers.local.engine import profile_weights
from duologue.weights import Store, WeightsError
from event_loops import EVENT_LOOPS

pytestmark = pytest.mark.weights

CLIPS = Path(__file__).parents[1] / "data" / "speech"
DUOLOGUE = [sys.executable, "-m", "duologue"]


@pytest.fixture(scope="module", autouse=True)
def weights():
    try:
        for name in profile_weights("tiny"):
            Store().ensure(name, progress=False)
    except WeightsError as error:
        pytest.skip(f"the weights can't be had here: {error}")


def test_run_transcribes_replies_and_records(tmp_path):
    options = "--profile tiny --fast --out out.wav --events out.jsonl --picture out.png"
    done = subprocess.run(
        [*DUOLOGUE, "run", CLIPS / "austen-0930.wav", *options.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "might even have been made" in done.stdout
    assert "Traceback" not in done.stderr
    events = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    said = next(e for e in events if e["type"] == "UserTranscriptEvent" and e["final"])
    words = said["text"].lower().strip(".,?!").split()
    assert words == ["he", "might", "even", "have", "been", "made", "amiable", "himself"]
    assert events[-1]["type"] == "RealtimeDisconnectedEvent"
    assert events[-1]["clean"] is True
    with wave.open(str(tmp_path / "out.wav")) as file:
        both = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    assert np.abs(both[:, 0]).max() > 1000
    assert np.abs(both[:, 1]).max() > 1000
    assert {path.name for path in tmp_path.iterdir()} == {"out.wav", "out.jsonl", "out.png"}


def test_a_run_that_is_terminated_keeps_its_recording(tmp_path):
    options = "--profile tiny --out out.wav --events e"
    with subprocess.Popen(
        [*DUOLOGUE, "run", CLIPS / "jfk.wav", *options.split()],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            deadline = time.monotonic() + 60
            events = tmp_path / "e"
            while not (events.exists() and "Connected" in events.read_text()):
                assert run.poll() is None, run.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(1)
            run.terminate()
            assert run.wait(10) == 143
            assert "Traceback" not in run.stderr.read()
        finally:
            run.kill()
    assert {path.name for path in tmp_path.iterdir()} == {"out.wav", "e"}
    assert (tmp_path / "out.wav").stat().st_size > 40_000


@pytest.mark.parametrize("loop", EVENT_LOOPS)
def test_serve_answers_and_ends_on_a_signal(tmp_path, loop):
    with subprocess.Popen(
        [*DUOLOGUE, "--loop", loop, "serve", "--port", "0", "--profile", "tiny"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:
        try:
            line = ""
            while "Talk at" not in line:
                line = server.stdout.readline()
                assert line, server.stderr.read()
            address = line.split()[2]
            with urllib.request.urlopen(address, timeout=10) as page:  # noqa: S310
                assert b"<title" in page.read()
            server.send_signal(signal.SIGINT)
            assert server.wait(10) == 0
            assert "Traceback" not in server.stderr.read()
        finally:
            server.kill()
