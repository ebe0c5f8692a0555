"""Write the tables of options in `docs/providers`, from the classes that declare the options.

A page has the table between two comments, the first of which names the class:

    <!-- options: duologue.providers.openai._config.RealtimeConfig -->
    <!-- end of options -->

    python scripts/options_page.py           write the pages
    python scripts/options_page.py --check   exit with 1 if a page is out of date
"""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

from duologue.providers._options import table

PAGES = Path(__file__).parents[1] / "docs" / "providers"

_TABLE = re.compile(r"(<!-- options: ([\w.]+)\.(\w+) -->\n).*?(<!-- end of options -->)", re.DOTALL)


def page(path: Path) -> str:
    """Return the text of a page with its tables up to date."""
    return _TABLE.sub(_with_table, path.read_text("utf-8"))


def _with_table(match: re.Match[str]) -> str:
    options = getattr(import_module(match[2]), match[3])
    return f"{match[1]}{table(options)}\n{match[4]}"


def main() -> int:
    """Write or check the pages; return the exit status."""
    outdated = [
        path for path in sorted(PAGES.glob("*.md")) if page(path) != path.read_text("utf-8")
    ]
    if "--check" in sys.argv[1:]:
        for path in outdated:
            sys.stderr.write(f"{path} is out of date: run python {Path(__file__).name}\n")
        return int(bool(outdated))
    for path in outdated:
        path.write_text(page(path), "utf-8")
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
