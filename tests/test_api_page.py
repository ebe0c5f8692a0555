"""`docs/api.md` lists the public names of the tree, with a line for each."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import api_page


def test_page_is_up_to_date():
    found, expected = api_page.PAGE.read_text("utf-8"), api_page.page()
    assert found == expected, "run: python scripts/api_page.py"


def test_every_public_name_has_a_line():
    lines = [line for line in api_page.page().splitlines() if line.startswith("| `")]
    assert len(lines) > 300
    assert not [line for line in lines if line.endswith("|  |")]


def test_private_modules_and_programs_are_not_listed():
    names = {name for name, _ in api_page.modules()}
    assert "duologue.agent" in names
    assert not [name for name in names if "._" in name or name.startswith("duologue.cli")]
    assert "## duologue.cli" in api_page.page()
