"""Write `docs/api.md`: every public module and name, with the first sentence of its docstring.

A module is private if a part of its dotted path begins with an underscore. The public names of a
module are those of ``__all__``, or else those that it defines without an underscore. The source is
only parsed, so no extra has to be installed.

    python scripts/api_page.py           write the page
    python scripts/api_page.py --check   exit with 1 if the page is out of date
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PAGE = ROOT / "docs" / "api.md"

PROGRAMS = {"duologue.cli": "The command line, see [cli.md](cli.md): a program, not a library."}
"""Packages that are not for import, with their line on the page."""

_SHOWN_CHARS = 90
"""Characters of a value that stands for a missing docstring."""

_INTRODUCTION = """\
# Public names

Every module and name that is meant for use, in one line. Names that are not listed, and modules \
whose path has a part that begins with an underscore, may change at any time. \
`python scripts/api_page.py` writes this page from the docstrings.
"""


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the file of each public module, sorted."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        name = ".".join(parts)
        program = any(f"{name}.".startswith(f"{program}.") for program in PROGRAMS)
        if not program and not any(part.startswith("_") for part in parts):
            yield name, path


def public_names(tree: ast.Module) -> list[str]:
    """Return the names of ``__all__``, or else those that the module defines."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and _target(node) == "__all__":
            return sorted(ast.literal_eval(node.value), key=str.lower)
    return sorted((name for name in _definitions(tree) if not name.startswith("_")), key=str.lower)


def summary(name: str, tree: ast.Module) -> str:
    """Return the first line of the docstring of a name, wherever it is defined."""
    definitions = _definitions(tree)
    if name in definitions:
        return definitions[name]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return summary(alias.name, _parse(_file_of(node.module)))
    raise LookupError(f"{name} is neither defined nor imported")


def page() -> str:
    """Return the text of the page."""
    parts = [_INTRODUCTION]
    for name, path in modules():
        tree = _parse(path)
        parts.append(f"## {name}\n\n{_first_line(ast.get_docstring(tree))}\n")
        names = public_names(tree)
        if names:
            rows = [f"| `{each}` | {_cell(summary(each, tree))} |" for each in names]
            parts.append("\n".join(["| name | |", "|---|---|", *rows, ""]))
    parts += [f"## {name}\n\n{text}\n" for name, text in PROGRAMS.items()]
    return "\n".join(parts)


def _definitions(tree: ast.Module) -> dict[str, str]:
    """Map each name that a module defines to the first line of its docstring."""
    found: dict[str, str] = {}
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found[name] = _first_line(ast.get_docstring(node))
            case ast.AsyncFunctionDef(name=name):
                found[name] = _first_line(ast.get_docstring(node))
            case ast.Assign() | ast.AnnAssign() | ast.TypeAlias():
                target = _target(node)
                if target is not None and target not in ("log", "logger"):
                    found[target] = _first_line(_string(following)) or _value(node)
            case _:
                pass
    return found


def _target(node: ast.Assign | ast.AnnAssign | ast.TypeAlias) -> str | None:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.TypeAlias(name=ast.Name(id=name)):
            return name
        case _:
            return None


def _value(node: ast.Assign | ast.AnnAssign | ast.TypeAlias) -> str:
    """Return the value of a constant or an alias, shortened, as its description."""
    text = "" if node.value is None else " ".join(ast.unparse(node.value).split())
    return f"``{text}``" if len(text) <= _SHOWN_CHARS else f"``{text[:_SHOWN_CHARS]}``..."


def _string(node: ast.stmt | None) -> str | None:
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
        case _:
            return None


def _first_line(text: str | None) -> str:
    """Return the first sentence of a docstring, on one line."""
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    sentence, stop, _ = paragraph.partition(". ")
    return sentence + stop.strip() if stop else paragraph


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`")


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _file_of(module: str) -> Path:
    path = SOURCE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def main() -> None:
    """Write or check the page."""
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text("utf-8") != text:
            sys.exit(f"{PAGE} is out of date: python scripts/api_page.py")
        return
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
