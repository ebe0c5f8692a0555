"""Write `deploy/kubernetes` from the Helm chart, for clusters without Helm.

The chart is rendered by Helm as a library, so neither its program nor a cluster is needed.

    python scripts/manifests.py           write the manifests
    python scripts/manifests.py --check   exit with 1 if they are out of date
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import helm_python

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy" / "chart"
FOLDER = ROOT / "deploy" / "kubernetes"
MODES = ("deployment", "rayservice")
HEAD = "# Written by scripts/manifests.py from deploy/chart: change that, or edit a copy.\n"


def render(values: dict[str, Any]) -> str:
    """Return the manifests of the chart with these values."""
    rendered = helm_python.Chart.load(str(CHART)).render(values, name="duologue")
    return "---\n".join(text.strip() + "\n" for text in rendered.values() if text.strip())


def manifests() -> dict[Path, str]:
    """Return what each file must contain."""
    return {FOLDER / f"{mode}.yaml": HEAD + render({"mode": mode}) for mode in MODES}


def main() -> None:
    """Write the manifests, or check them."""
    stale = [path for path, text in manifests().items() if _read(path) != text]
    if "--check" in sys.argv:
        if stale:
            sys.exit(
                f"{stale[0].relative_to(ROOT)} is out of date: run python scripts/manifests.py"
            )
        return
    FOLDER.mkdir(exist_ok=True)
    for path, text in manifests().items():
        path.write_text(text)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    main()
