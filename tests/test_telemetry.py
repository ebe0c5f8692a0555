"""Nothing that this library loads writes into the home directory or sends anything."""

import os
import shutil
import subprocess
import sys

import pytest

from duologue._telemetry import SWITCHES, switch_off

pytest.importorskip("onnxruntime", reason="needs duologue[local]")

RUNS_A_MODEL = '''
import duologue

import time

import numpy as np
import onnxruntime


def field(number, data):
    """One field of a protocol buffer."""
    if isinstance(data, int):
        return bytes([number << 3, data])
    data = data.encode() if isinstance(data, str) else data
    return bytes([number << 3 | 2, len(data)]) + data


def value(name):
    shape = field(2, field(1, field(1, 1)))
    return field(1, name) + field(2, field(1, field(1, 1) + shape))


node = field(1, "x") + field(2, "y") + field(4, "Identity")
graph = field(1, node) + field(2, "g") + field(11, value("x")) + field(12, value("y"))
model = field(1, 8) + field(7, graph) + field(8, field(2, 13))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
assert session.run(None, {"x": np.ones(1, np.float32)})[0] == 1.0
import huggingface_hub.constants

assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
time.sleep(1.0)
'''


@pytest.fixture
def clean(tmp_path):
    """Return an environment whose home is empty, as on a machine of a user."""
    left_out = ("CI", "XDG_CACHE_HOME", *SWITCHES)
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    home = tmp_path / "home"
    home.mkdir()
    return {**environment, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}, home


def test_a_session_of_onnxruntime_leaves_no_file_in_the_home(clean):
    environment, home = clean
    subprocess.run([sys.executable, "-c", RUNS_A_MODEL], env=environment, check=True)
    assert list(home.rglob("*")) == []


def can_trace():
    strace = shutil.which("strace")
    return (
        strace is not None and subprocess.run([strace, "-qqo", os.devnull, "true"]).returncode == 0
    )


@pytest.mark.skipif(not can_trace(), reason="needs strace, and the right to use it")
def test_a_session_of_onnxruntime_opens_no_socket_to_the_network(clean, tmp_path):
    environment, _ = clean
    trace = tmp_path / "trace"
    traced = ["strace", "-f", "-qq", "-e", "trace=socket,connect,sendto", "-o", str(trace)]
    command = [*traced, sys.executable, "-c", RUNS_A_MODEL]
    subprocess.run(command, env=environment, check=True)
    calls = [line for line in trace.read_text().splitlines() if "AF_INET" in line]
    assert calls == []


def test_a_switch_that_the_user_has_set_stays(monkeypatch):
    for switch in SWITCHES:
        monkeypatch.setenv(switch, "0")
    switch_off()
    assert [os.environ[switch] for switch in SWITCHES] == ["0", "0"]


def test_a_library_that_was_imported_before_sends_nothing_more(monkeypatch):
    calls = []

    class Imported:
        def disable_telemetry_events(self):
            calls.append("off")

    monkeypatch.setitem(sys.modules, "onnxruntime", Imported())
    for switch in SWITCHES:
        monkeypatch.delenv(switch)
    switch_off()
    assert calls == ["off"]
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
