"""Options that are declared once: tables in the documentation, and the same spelling everywhere."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import options_page


@pytest.mark.parametrize(
    "path", sorted(options_page.PAGES.glob("*.md")), ids=lambda path: path.stem
)
def test_tables_of_options_are_up_to_date(path):
    expected = options_page.page(path)
    assert path.read_text("utf-8") == expected, "run: python scripts/options_page.py"
