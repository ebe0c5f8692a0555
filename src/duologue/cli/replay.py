"""``duologue replay``: run recorded calls again without their provider."""

from __future__ import annotations

import sys
from pathlib import Path

import click

_SHOWN = 20
"""Differences of a call that are shown."""


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--all", "show_all", is_flag=True, help=f"Show more than {_SHOWN} differences.")
def replay(paths: tuple[Path, ...], show_all: bool) -> None:
    """Run recorded calls again without their provider, and say where the messages differ.

    \b
    PATH is the folder of a call, or of many, which were recorded by
    Agent(recorder=Recorder(FOLDER, wire=True)). Exit code 1 if any differs.
    """
    from duologue._user_code import describe
    from duologue.errors import ConfigError, DuologueError
    from duologue.observe.wire_journal import calls_with_wire
    from duologue.testing import replay as replay_call

    differs = False
    for path in paths:
        for call in calls_with_wire(path):
            try:
                found = replay_call(call)
            except DuologueError:
                raise
            except Exception as error:
                raise ConfigError(
                    f"{call} can't be replayed: {describe(error)}: the journal is damaged, or "
                    "this version fails at it, which duologue.testing.replay shows"
                ) from error
            differs = differs or bool(found.differences)
            lines = str(found).split("\n")
            most = 1 + len(found.skipped) + _SHOWN
            click.echo("\n".join(lines if show_all else lines[:most]))
            if len(lines) > most and not show_all:
                click.echo(f"... and {len(lines) - most} more: --all shows them")
    sys.exit(differs)
