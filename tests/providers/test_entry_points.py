"""Providers of other distributions, found by their entry points."""

import subprocess
import sys
import textwrap

import pytest


@pytest.fixture
def site(tmp_path):
    """A directory with the distribution ``duologue-acme``, as an installer leaves it."""
    package = tmp_path / "duologue_acme"
    package.mkdir()
    (package / "__init__.py").write_text(
        "print('loaded')\nfrom duologue_acme.model import Realtime\n"
    )
    (package / "model.py").write_text("class Realtime:\n    pass\n")
    info = tmp_path / "duologue_acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: duologue-acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[duologue.providers]\nacme = duologue_acme\nopenai = duologue_acme\n"
    )
    return tmp_path


def run(site, program):
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n" + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "statement",
    [
        "from duologue.providers import acme",
        "import duologue.providers.acme as acme",
        "from importlib import import_module; acme = import_module('duologue.providers.acme')",
    ],
)
def test_a_provider_of_another_distribution_is_imported_once(site, statement):
    program = f"""
    {statement}
    import duologue_acme
    from duologue.providers.acme import Realtime
    print(acme is duologue_acme, acme.__name__, acme.__spec__.name, Realtime.__module__)
    """
    assert run(site, program) == [
        "loaded",
        "True duologue_acme duologue_acme duologue_acme.model",
    ]


def test_a_provider_of_ours_comes_first_and_an_unknown_one_is_an_error(site):
    program = """
    from importlib.util import find_spec
    print(find_spec("duologue.providers.openai").origin.endswith("openai/__init__.py"))
    try:
        from duologue.providers import nobody
    except ImportError as error:
        print(error.name)
    """
    assert run(site, program) == ["True", "duologue.providers"]
