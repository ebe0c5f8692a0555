"""``app:make_agent``: importing a function of the user, and errors of one line."""

import sys

import pytest

from duologue import Agent
from duologue.cli.app_path import AppError, call_app, is_app_path, load_app
from duologue.edges import wav
from duologue.errors import ConfigError
from duologue.testing import ScriptedRealtime

APP = """
import copy

from duologue import Agent
from duologue.testing import ScriptedRealtime

def make_agent(edge):
    return Agent(edge=edge, llm=ScriptedRealtime(["Yes."]))

async def make_later(edge):
    return make_agent(edge)

async def conduct(edge):
    async with make_agent(edge).join() as agent:
        await agent.finish()

class Hotel:
    @staticmethod
    def answer(edge): ...

def no_edge(): ...

def broken(edge):
    raise RuntimeError("the database\\nis down")

def elsewhere(edge):
    return make_agent(copy.copy(edge))

answer = 42
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Change to a folder with programs; forget their modules and paths afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cliapp.py").write_text(APP)
    (tmp_path / "lacks.py").write_text("import os\n\nimport not_installed_anywhere\n")
    (tmp_path / "syntax.py").write_text("x = 1\ndef f(:\n")
    (tmp_path / "nokey.py").write_text(
        "from duologue.errors import ConfigError\n\n"
        "def look():\n    raise ConfigError('no API key')\n\nlook()\n"
    )
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('bye')\n")
    (tmp_path / "json.py").write_text("def make_agent(edge): return None\n")
    yield tmp_path
    for name in ("cliapp", "_duologue_app_json"):
        sys.modules.pop(name, None)


@pytest.fixture
def edge(question):
    return wav.Edge(question)


@pytest.fixture
def question():
    import numpy as np

    from duologue.audio import AudioFrame

    return AudioFrame(np.full(8000, 9000, np.int16), 16000)


def test_a_function_is_found_by_module_or_file(folder):
    assert load_app("cliapp:make_agent").__name__ == "make_agent"
    assert load_app("cliapp.py:conduct").__name__ == "conduct"
    assert load_app(f"{folder}/cliapp.py:Hotel.answer").__name__ == "answer"
    # The file wins over a module of the same name that is imported already.
    assert load_app("json.py:make_agent").__module__ == "_duologue_app_json"
    assert load_app("cliapp:make_agent") is sys.modules["cliapp"].make_agent


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("cliap:x", r"there is no module 'cliap' in .*; did you mean cliapp\?"),
        ("zzzz:x", r"there is no module 'zzzz' in .* and none is installed$"),
        ("clapp.py:x", r"there is no file clapp.py; did you mean cliapp.py"),
        ("lacks:x", r"lacks can't be imported: lacks.py line 3: ModuleNotFoundError: No module"),
        ("syntax.py:x", r"syntax.py can't be imported: syntax.py line 2: SyntaxError: "),
        ("nokey:x", r"nokey can't be imported: nokey.py line 4: no API key$"),
        ("leaves:x", r"leaves can't be imported: leaves.py line 2: SystemExit: bye$"),
        ("cliapp:make_agnet", r"cliapp has no 'make_agnet'; did you mean make_agent"),
        ("cliapp:zzz", r"cliapp has no 'zzz'; its functions are: make_agent, make_later, conduct"),
        ("json.py:zzz", r"json.py has no 'zzz'; its functions are: make_agent"),
        ("cliapp:answer", r"cliapp:answer must be a function, not 42"),
        ("cliapp:no_edge", r"cliapp:no_edge must take one argument.*def no_edge\(edge\)"),
        ("cliapp", r"name the function too, as cliapp:make_agent, not 'cliapp'"),
    ],
)
def test_a_path_that_cannot_be_used_is_an_error_of_one_line(folder, path, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_app(path)
    assert "\n" not in str(error.value)


async def test_an_agent_itself_is_refused(folder, edge, monkeypatch):
    load_app("cliapp:make_agent")
    module = sys.modules["cliapp"]
    monkeypatch.setattr(module, "answer", Agent(edge=edge, llm=ScriptedRealtime()))
    with pytest.raises(ConfigError, match="is an Agent, which serves one conversation"):
        load_app("cliapp:answer")


async def test_plain_and_async_functions_return_the_agent(folder, edge):
    for name in ("make_agent", "make_later"):
        agent = await call_app(name, load_app(f"cliapp:{name}"), edge)
        assert agent.edge is edge


async def test_a_function_that_fails_is_an_error_with_file_and_line(folder, edge):
    with pytest.raises(AppError) as error:
        await call_app("cliapp:broken", load_app("cliapp:broken"), edge)
    assert str(error.value) == (
        "cliapp:broken failed: cliapp.py line 24: RuntimeError: the database is down"
    )


async def test_a_function_that_returns_something_else_is_an_error(folder, edge):
    with pytest.raises(ConfigError, match=r"x must return an Agent, not None"):
        await call_app("x", load_app("cliapp:Hotel.answer"), edge)
    with pytest.raises(ConfigError, match="must pass on the edge"):
        await call_app("x", load_app("cliapp:elsewhere"), edge)


def test_recordings_are_no_paths_of_functions(folder):
    (folder / "a:b").touch()
    assert is_app_path("app:make_agent")
    assert is_app_path("some/app.py:hotel.make_agent")
    assert not is_app_path("question.wav")
    assert not is_app_path("a:b")
    assert not is_app_path("12:30.wav:")
