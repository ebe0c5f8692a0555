"""Check the documentation: its programs, links, tables and options."""

import ast
import contextlib
import importlib
import io
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_args

import click
import pytest

from duologue import BargeInPolicy, Capabilities, MissingExtraError
from duologue.cli import main as commands
from duologue.events import events
from duologue.realtime.reconnect import ReconnectPolicy
from duologue.vad.endpointing import Endpointing

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md")) + sorted(ROOT.glob("*.md"))


def blocks() -> Iterator[tuple[str, str]]:
    """Yield every Python program of the documentation with its place."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M):
            line = text[: match.start()].count("\n") + 1
            yield f"{page.relative_to(ROOT)}:{line}", match[1]


BLOCKS = dict(blocks())
PROGRAMS = {where: code for where, code in BLOCKS.items() if "run_virtual(main())" in code}


@pytest.mark.parametrize("where", BLOCKS)
def test_programs_compile_and_their_names_exist(where):
    code = BLOCKS[where]
    compile(code, where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    tree = ast.parse(code)
    modules: dict[str, object] = {}
    try:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    importlib.import_module(name.name)
            elif isinstance(node, ast.ImportFrom):
                assert node.module
                module = importlib.import_module(node.module)
                for name in node.names:
                    found = getattr(module, name.name, None)
                    if found is None:
                        found = importlib.import_module(f"{node.module}.{name.name}")
                    modules[name.asname or name.name] = found
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner = modules.get(node.value.id)
                if getattr(owner, "__spec__", None) is not None:
                    assert hasattr(owner, node.attr), f"{node.value.id}.{node.attr}"
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("where", PROGRAMS)
def test_programs_in_virtual_time_print_what_their_comments_say(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = PROGRAMS[where]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, where, "exec"), {"__name__": "documentation"})  # noqa: S102 - ours
    expected = re.findall(r"print\(.*\)\s+# (.*)$", code, re.M)
    if expected:
        assert out.getvalue().splitlines() == expected


def plain(text: str) -> str:
    """Return a page without its programs."""
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", plain(page.read_text("utf-8")), re.M)
    texts = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_have_targets(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", plain(page.read_text("utf-8"))):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(file), target


def test_the_index_has_every_page():
    linked = {
        (DOCS / target).resolve()
        for target in re.findall(r"\]\(([^)#\s]+)\)", (DOCS / "README.md").read_text("utf-8"))
    }
    pages = {page for page in DOCS.rglob("*.md") if page.name != "README.md"}
    assert not pages - linked


def sections(page: Path) -> dict[str, str]:
    """Return the text below each heading, up to the next one."""
    parts = re.split(r"^#+ (.*)$", page.read_text("utf-8"), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(section: str) -> list[list[str]]:
    """Return the cells of table rows whose first cell is code."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in section.splitlines()
        if line.startswith("| `")
    ]


def test_every_event_has_its_section_and_every_field_its_row():
    classes = {kind.__name__: kind for kind in get_args(events.Event.__value__)}
    documented = {
        name: text for name, text in sections(DOCS / "events.md").items() if name in classes
    }
    listed = [name for name in sections(DOCS / "events.md") if name.endswith("Event")]
    assert sorted(listed) == sorted(classes)
    common = {field.name for field in fields(events.TimedEvent)}
    rules = sections(DOCS / "events.md")["Rules"]
    assert all(f"`{name}`" in rules for name in common)
    for name, kind in classes.items():
        names = [row[0].strip("`") for row in rows(documented[name])]
        own = [field.name for field in fields(kind) if field.name not in common]
        assert names == own, name


@pytest.mark.parametrize(
    ("page", "heading", "kind"),
    [
        ("barge-in.md", "The policy", BargeInPolicy),
        ("pipeline.md", "Turns", Endpointing),
        ("realtime.md", "Capabilities", Capabilities),
        ("realtime.md", "Connections", ReconnectPolicy),
    ],
)
def test_tables_of_fields_have_all_fields_and_their_defaults(page, heading, kind):
    documented: dict[str, str] = {}
    for names, default, *_ in rows(sections(DOCS / page)[heading]):
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", names), default.strip("`"))
    known = {
        field.name: "" if field.default is MISSING else str(field.default) for field in fields(kind)
    }
    assert documented == known


def described(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, with the line that calls each."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            assert found is not None
            yield from described(found, f"{name} {below}")


def test_every_command_and_option_is_described_and_exists():
    documented = {
        name: text
        for name, text in sections(DOCS / "cli.md").items()
        if name.split()[0] == "duologue"
    }
    known = dict(described(commands, "duologue"))
    assert sorted(documented) == sorted(known)
    for name, command in known.items():
        options = {
            option
            for parameter in command.params
            if isinstance(parameter, click.Option)
            for option in parameter.opts
        }
        first_cells = " ".join(row[0] for row in rows(documented[name]))
        assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", first_cells)) == options, name
