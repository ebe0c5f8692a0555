"""``duologue models``: manage the weights of the built-in engine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from duologue.errors import DuologueError
from duologue.weights import CachedWeight, Store


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


@models.command()
@click.argument("names", nargs=-1)
@click.option("--profile", help="All weights of one profile: tiny, small or better.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
def fetch(names: tuple[str, ...], profile: str | None, quiet: bool) -> None:
    """Fetch NAMES, or the weights of a profile (small by default)."""
    store = Store()
    with _plain_errors():
        wanted = [*names, *(_of_profile(profile) if profile else [])] or _of_profile("small")
        for name in wanted:
            click.echo(store.ensure(name, progress=not quiet))


@models.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the hashes of NAMES, or of all weights that are here; exit with 1 if one is wrong."""
    store = Store()
    with _plain_errors():
        entries: list[CachedWeight] = [store.verify(name) for name in names or store.registry]
    shown = [entry for entry in entries if names or entry.state != "missing"]
    for entry in shown:
        click.echo(f"{entry.weight.name:30} {entry.state}")
    if not shown:
        click.echo("No weights are here yet: 'duologue models fetch' gets them.")
    if any(entry.state == "broken" or (names and entry.state == "missing") for entry in entries):
        sys.exit(1)


@models.command()
@click.argument("name", required=False)
def path(name: str | None) -> None:
    """Print the path of NAME, or the folder of all weights."""
    store = Store()
    with _plain_errors():
        click.echo(store.path(name) if name else store.root)


@models.command()
@click.argument("names", nargs=-1)
def prune(names: tuple[str, ...]) -> None:
    """Delete NAMES, or leftovers: unfinished downloads, and weights that are no longer known."""
    with _plain_errors():
        freed = Store().prune(list(names) or None)
    click.echo(f"Freed {_size(freed)}.")


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
