"""``duologue models``: manage the weights of the built-in engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from duologue.errors import DuologueError
from duologue.weights import ModelFile, ModelFiles, Store, WeightsError


@click.group("models")
def models() -> None:
    """Weights of the built-in engine: which exist, which are here, and where.

    They are fetched at first use. DUOLOGUE_CACHE names the folder that keeps them,
    DUOLOGUE_OFFLINE=1 forbids fetching.
    """


@models.command("list")
def list_() -> None:
    """List all weights, their size and licence, and whether they are here."""
    for entry in Store().entries():
        weight = entry.weight
        click.echo(
            f"{weight.name:30} {_size(weight.bytes):>9}  {entry.state:8} {weight.licence:13} "
            f"{weight.about}"
        )
    for file in ModelFiles().entries():
        state = "ready" if Path(file.path).is_file() else "missing"
        click.echo(
            f"{file.source:30} {_size(file.size):>9}  {state:8} {'':13} language model of yours"
        )


@models.command()
@click.argument("names", nargs=-1)
@click.option("--profile", help="All weights of one profile: tiny, small or better.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def fetch(names: tuple[str, ...], profile: str | None, quiet: bool) -> None:
    """Fetch NAMES, or the weights of a profile (small by default).

    A name may be hf:ORG/REPO/FILE.gguf: any GGUF chat model of a model hub.
    """
    store = Store()
    with _plain_errors():
        wanted = [*names, *(_of_profile(profile) if profile else [])] or _of_profile("small")
        for name in wanted:
            if name in store.registry or not _is_model_file(name):
                click.echo(store.ensure(name, progress=not quiet))
            else:
                click.echo(ModelFiles(store.root).ensure(name, progress=not quiet))


@models.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the hashes of NAMES, or of all weights that are here; exit with 1 if one is wrong."""
    store = Store()
    files = ModelFiles(store.root)
    states: list[tuple[str, str]] = []
    with _plain_errors():
        for name in names or (*store.registry, *(file.source for file in files.entries())):
            if name in store.registry or not _is_model_file(name):
                states.append((name, store.verify(name).state))
            else:
                states.append((name, files.verify(name)))
    shown = [(name, state) for name, state in states if names or state != "missing"]
    for name, state in shown:
        click.echo(f"{name:30} {state}")
    if not shown:
        click.echo("No weights are here yet: 'duologue models fetch' gets them.")
    if any(state == "broken" or (names and state == "missing") for _, state in states):
        sys.exit(1)


@models.command()
@click.argument("name", required=False)
def path(name: str | None) -> None:
    """Print the path of NAME, or the folder of all weights."""
    store = Store()
    with _plain_errors():
        if name is None or name in store.registry or not _is_model_file(name):
            click.echo(store.path(name) if name else store.root)
            return
        click.echo(_recorded(ModelFiles(store.root), name).path)


@models.command()
@click.argument("names", nargs=-1)
def prune(names: tuple[str, ...]) -> None:
    """Delete NAMES, or leftovers: unfinished downloads, and weights that are no longer known."""
    store = Store()
    own = [name for name in names if name not in store.registry and _is_model_file(name)]
    known = [name for name in names if name not in own]
    with _plain_errors():
        freed = sum(ModelFiles(store.root).delete(name) for name in own)
        if known or not names:
            freed += store.prune(known or None)
    click.echo(f"Freed {_size(freed)}.")


@models.command()
@click.argument("names", nargs=-1, required=True)
def forget(names: tuple[str, ...]) -> None:
    """Forget the hash that was recorded of NAMES, each hf:ORG/REPO/FILE.gguf or a path.

    Their next use records it again. No file is deleted.
    """
    files = ModelFiles()
    with _plain_errors():
        for name in names:
            source = _recorded(files, name).source
            files.forget(name)
            click.echo(f"{source}: its next use records the hash again.")


def _is_model_file(name: str) -> bool:
    """Return whether ``name`` is a path, or a GGUF file of a model hub."""
    return name.startswith("hf:") or "/" in name or name.lower().endswith(".gguf")


def _recorded(files: ModelFiles, name: str) -> ModelFile:
    """Return what was recorded of ``name``.

    Raises:
        WeightsError: Nothing was.
    """
    found = files.recorded(name)
    if found is None:
        raise WeightsError(f"{name} has not been used yet: 'duologue models list' shows what was")
    return found


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn this library's errors into one line and exit code 1."""
    try:
        yield
    except DuologueError as error:
        raise click.ClickException(str(error)) from error


def _of_profile(profile: str) -> list[str]:
    from duologue.providers.local.engine import find_profile, profile_weights  # slow to import

    return profile_weights(find_profile(profile).name)


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
