"""The files around the code agree with each other: versions, addresses, CI, index of the docs."""

import re
import tomllib
from pathlib import Path

import pytest

import duologue

yaml = pytest.importorskip("yaml", reason="needs duologue[simulate]")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
REPOSITORY = PROJECT["project"]["urls"]["Repository"]
PYTHONS = [
    line.rpartition(" ")[2]
    for line in PROJECT["project"]["classifiers"]
    if re.search(r"Python :: 3\.\d+$", line)
]


LOCKED = {
    package["name"]: package for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
}
WEBRTC = {"aiortc", "aioice", "av", "pylibsrtp", "pyopenssl", "cryptography"}


def installed_by(*extras):
    """Return the packages that ``pip install duologue[extras]`` installs on some system."""
    found, waiting = set(), [("duologue", frozenset(extras))]
    while waiting:
        name, wanted = waiting.pop()
        package = LOCKED[name]
        optional = package.get("optional-dependencies", {})
        needed = [*package.get("dependencies", [])]
        for extra in wanted:
            needed += optional.get(extra, [])
        for one in needed:
            step = (one["name"], frozenset(one.get("extra", [])))
            if step not in found:
                found.add(step)
                waiting.append(step)
    return {name for name, _ in found}


def load(name):
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_the_version_is_the_same_everywhere():
    assert duologue.__version__ == PROJECT["project"]["version"]
    assert str(load("CITATION.cff")["version"]) == PROJECT["project"]["version"]


def test_the_address_of_the_repository_is_the_same_everywhere():
    assert load("mkdocs.yml")["repo_url"] == REPOSITORY
    assert load("CITATION.cff")["repository-code"] == REPOSITORY
    assert all(url.startswith(REPOSITORY) for url in PROJECT["project"]["urls"].values())
    contact = load(".github/ISSUE_TEMPLATE/config.yml")["contact_links"][0]
    assert contact["url"].startswith(REPOSITORY)


@pytest.mark.parametrize("extra", [None, "openai", "gemini", "qwen", "server", "websocket"])
def test_what_makes_no_calls_installs_no_webrtc_and_no_image_library(extra):
    installed = installed_by(*[extra] * (extra is not None))
    assert "numpy" in installed
    assert not installed & {*WEBRTC, "pillow", "openai", "onnxruntime"}


@pytest.mark.parametrize("extras", [("webrtc",), ("openai", "webrtc"), ("browser",)])
def test_what_makes_calls_installs_webrtc(extras):
    assert installed_by(*extras) >= WEBRTC


def test_both_ci_services_run_the_script_with_every_python():
    github = load(".github/workflows/ci.yml")["jobs"]["test"]
    assert github["strategy"]["matrix"]["python"] == PYTHONS
    assert {step.get("run") for step in github["steps"]} >= {".ci/run", "uv lock --upgrade"}
    gitlab = load(".gitlab-ci.yml")
    for job in ("linux", "macos"):
        assert gitlab[job]["parallel"]["matrix"] == [{"PYTHON_VERSION": PYTHONS}]
        assert gitlab[job]["script"] == [".ci/run"]
    assert gitlab["linux-newest-dependencies"]["script"] == ["uv lock --upgrade", ".ci/run"]


def test_the_hooks_before_a_commit_use_the_tools_of_the_environment():
    hooks = load(".pre-commit-config.yaml")["repos"][-1]["hooks"]
    assert [hook["entry"].split()[0] for hook in hooks] == [
        ".venv/bin/ruff",
        ".venv/bin/ruff",
        ".venv/bin/mypy",
    ]


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda form: form.stem
)
def test_issue_forms_have_what_the_service_demands(form):
    content = yaml.safe_load(form.read_text("utf-8"))
    if form.stem == "config":
        assert content["contact_links"]
        return
    assert content["name"]
    assert content["description"]
    for field in content["body"]:
        assert field["type"] in {"markdown", "textarea", "input", "dropdown"}
        assert field["attributes"].get("label") or field["type"] == "markdown"


def test_the_index_for_language_models_has_every_page():
    text = (DOCS / "llms.txt").read_text("utf-8")
    linked = {DOCS / target for target in re.findall(r"\]\(([^)]+)\)", text)}
    assert linked == set(DOCS.rglob("*.md")) - {DOCS / "README.md"}


def test_the_readme_has_only_absolute_links_on_a_package_index():
    text = (ROOT / "README.md").read_text("utf-8")
    relative = re.findall(r"\]\((?!https?://|#)([^)\s]+)\)", text)
    assert "docs/page.png" in relative
    hook = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for rule in hook["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert not re.findall(r"\]\((?!https?://|#)([^)\s]+)\)", text)
    raw = REPOSITORY.replace("https://github.com/", "https://raw.githubusercontent.com/")
    assert f"({raw}/main/docs/page.png)" in text
    assert f"({REPOSITORY}/blob/main/docs/benchmarks.md)" in text
