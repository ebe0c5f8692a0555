"""`import duologue` is quick, and imports nothing that only some programs need."""

import os
import statistics
import subprocess
import sys

import pytest

import duologue

HEAVY = [
    "aiortc",
    "av",
    "earshot",
    "matplotlib",
    "onnxruntime",
    "openai",
    "pydantic",
    "sounddevice",
    "soundfile",
    "starlette",
    "uvicorn",
    "websockets",
    "xllamacpp",
]


# With the bytecode that an installation has.
ENVIRONMENT = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(code):
    """Return the seconds of CPU that a program takes, which other programs change little."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)
    after = os.times()
    return sum(getattr(after, n) - getattr(before, n) for n in ("children_user", "children_system"))


def test_import_takes_under_150_ms():
    bare = statistics.median(seconds("pass") for _ in range(5))
    imported = statistics.median(seconds("import duologue") for _ in range(5))
    assert imported - bare < 0.150


AGENT = "from duologue import Agent"
PROVIDERS = [
    f"from duologue.providers import {name}; {name}.Realtime"
    for name in ("openai", "gemini", "aws", "qwen")
]


@pytest.mark.parametrize("code", [AGENT, PROVIDERS[0]])
def test_an_agent_or_a_provider_is_imported_in_little_more_time_than_numpy_takes(code):
    # Compared with numpy, because machines that run tests differ; benchmarks/install.py has times.
    times = {"import asyncio, numpy": [], code: []}
    for _ in range(6):
        for program, taken in times.items():
            taken.append(seconds(program))
    numpy, ours = map(min, times.values())
    assert ours < 1.6 * numpy


def modules_after(code):
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return {name.partition(".")[0] for name in run.stdout.split()}


@pytest.mark.parametrize(
    "code",
    [
        "import duologue",
        "from duologue import " + ", ".join(duologue.__all__),
        "import duologue.testing, duologue.events.events, duologue.pipeline.interfaces",
    ],
)
def test_the_core_imports_no_extra(code):
    assert not modules_after(code) & set(HEAVY)


@pytest.mark.parametrize("code", [AGENT, *PROVIDERS])
def test_numpy_is_loaded_when_it_is_used(code):
    assert not modules_after(code) & {"numpy", "soxr", "email", "http"}


def test_numpy_is_loaded_before_a_conversation():
    code = "from duologue.providers import openai; openai.Realtime(api_key='k')"
    assert "numpy" in modules_after(code)


@pytest.mark.parametrize("name", duologue.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(duologue, name).__name__ == {"Profile": "Capabilities"}.get(name, name)
    assert name in dir(duologue)


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = duologue.Nothing
