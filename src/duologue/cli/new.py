"""``duologue new``: write a small project to begin with."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from duologue.errors import ConfigError

FILES = {
    "app.py": "app.py.txt",
    "test_app.py": "test_app.py.txt",
    "pyproject.toml": "pyproject.toml.txt",
    "Containerfile": "Containerfile.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
}
"""The files of a project, and their templates."""


@click.command()
@click.argument("name", type=click.Path(path_type=Path))
def new(name: Path) -> None:
    """Write a small project into the new folder NAME.

    It has an agent with a tool, a test that needs no key, a Containerfile, a pyproject.toml and a
    README. Nothing is overwritten.
    """
    try:
        write_project(name)
    except OSError as error:
        raise ConfigError(
            f"can't write {name}: {(error.strerror or str(error)).lower()}"
        ) from error
    click.echo(f"Wrote {name}: {', '.join(FILES)}.\n")
    click.echo(f"cd {name}\nduologue serve app:make_agent --reload")


def write_project(folder: Path) -> None:
    """Write the files of a project.

    Raises:
        ConfigError: The folder has files already, or its name can't be that of a project.
        OSError: A file can't be written.
    """
    folder = folder.resolve()
    name = folder.name
    if not re.fullmatch(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?", name):
        raise ConfigError(
            f"the name of a project has letters, digits, - and _ and begins with a letter: {name!r}"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists already: choose another name, or delete it first")
    folder.mkdir(parents=True, exist_ok=True)
    templates = files("duologue.cli") / "project_template"
    values = {"name": name, "package": name.lower().replace("_", "-"), "version": _version()}
    for file, template in FILES.items():
        text = Template((templates / template).read_text("utf-8")).substitute(values)
        # "x" fails if another program has made the file meanwhile.
        with (folder / file).open("x", encoding="utf-8") as out:
            out.write(text)


def _version() -> str:
    try:
        return version("duologue")
    except PackageNotFoundError:
        return "0.1.0"
