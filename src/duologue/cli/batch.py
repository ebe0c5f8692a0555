"""``duologue batch``: hold a conversation with each of many recordings, and write a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from duologue.cli.agent_source import agent_source
from duologue.cli.app_path import is_app_path
from duologue.cli.extras import require_extras
from duologue.cli.options import ModelOptions, model_options, run_in_chosen_loop
from duologue.errors import ConfigError

if TYPE_CHECKING:
    from duologue.agent.agent import Agent
    from duologue.batch import Row
    from duologue.edges import wav

SUFFIXES = (".flac", ".mp3", ".ogg", ".opus", ".wav")
"""Suffixes of the recordings in a folder."""

_PERCENTILES = (50, 90, 99)


@click.command()
@click.argument(
    "paths",
    metavar="[APP] FILE|FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
)
@click.option(
    "--out",
    metavar="TABLE.csv|.parquet",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The table, a row for each turn. Recordings that are in it already with the same model "
    "are skipped.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Conversations at once.",
)
@click.option(
    "--fast",
    is_flag=True,
    help="Run as fast as the model computes, not in real time; the model must be in this process. "
    "Latencies are left out then.",
)
@click.option("--retry", is_flag=True, help="Try recordings again that failed in an earlier run.")
@click.option("--quiet", is_flag=True, help="No progress bar and no summary.")
@model_options
def batch(
    paths: tuple[Path, ...],
    out: Path,
    jobs: int,
    fast: bool,
    retry: bool,
    quiet: bool,
    model: ModelOptions,
) -> None:
    """Hold one conversation with each recording, and write a table with a row for each turn.

    A FOLDER stands for all recordings in it and below it. APP is a function of yours that gets the
    edge and returns an Agent, as module:function or file.py:function.

    A recording that fails is a row with the error. If the command is stopped, the same command
    continues: rows that are in the table stay, and their recordings are skipped. With another model
    they are talked with again, and the column model tells the rows apart.

    Exit code: 0 if all conversations went well, 1 if one failed, 130 after Ctrl-C.

    \b
    duologue batch calls/ --llm openai --jobs 8 --out calls.csv
    duologue batch app:make_agent calls/ --out calls.parquet
    """
    app = str(paths[0]) if is_app_path(str(paths[0])) else None
    recordings = find_recordings(paths[1:] if app is not None else paths)
    source = agent_source(app, model)
    require_extras("batch", *source.extras, *(() if "local" in source.extras else ("wav",)))
    if fast and not source.in_process:
        raise ConfigError("--fast needs a model in this process: leave out --fast, or --llm")
    from duologue.batch import run_batch
    from duologue.cli.batch_table import BatchTable
    from duologue.testing.virtual_time import run_virtual

    table = BatchTable(out, source.description)
    if retry:
        table.drop(table.failed & {*recordings})
    todo = [file for file in recordings if file not in table.files]
    skipped = len(recordings) - len(todo)
    if skipped and not quiet:
        click.echo(f"{_count(skipped, 'recording')} of {len(recordings)} in {out} already.")

    async def make_agent(edge: wav.Edge) -> Agent:
        agent = await source.call(edge)
        if agent is None:
            raise ConfigError(f"{app} must return an Agent here, and not conduct the conversation")
        return agent

    async def main() -> None:
        warning = await source.prepare()
        if warning:
            click.echo(f"Note: {warning}", err=True)
        hidden = quiet or not sys.stderr.isatty()
        with click.progressbar(
            length=len(todo), label="Talking", show_pos=True, file=sys.stderr, hidden=hidden
        ) as bar:

            def keep(rows: Sequence[Row]) -> None:
                table.append(rows)
                bar.update(1)

            await run_batch(todo, make_agent, jobs=jobs, measured=not fast, on_rows=keep)

    try:
        if todo:
            (run_virtual if fast else run_in_chosen_loop)(main())
    except KeyboardInterrupt:
        done = len(table.files & {*recordings})
        click.echo(
            f"\nStopped. {done} of {_count(len(recordings), 'recording')} in {out}; "
            "the same command continues.",
            err=True,
        )
        sys.exit(130)
    finally:
        table.close()
    rows = [
        row for row in table.rows if row.file in {*recordings} and row.model == source.description
    ]
    if not quiet:
        click.echo(summary(rows))
    if any(row.error for row in rows):
        sys.exit(1)


def find_recordings(paths: Sequence[Path]) -> list[str]:
    """Return the recordings that files and folders stand for, each once.

    Raises:
        ConfigError: A path does not exist, or there is no recording.
    """
    found: dict[str, None] = {}
    for path in paths:
        if path.is_dir():
            below = (each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
            found |= dict.fromkeys(str(each) for each in sorted(below) if each.is_file())
        elif path.exists():
            found[str(path)] = None
        else:
            raise ConfigError(f"can't read {path}: no such file or directory")
    if not found:
        raise ConfigError(f"there is no recording ({', '.join(SUFFIXES)}) to talk with")
    return list(found)


def summary(rows: Sequence[Row]) -> str:
    """Return what a table says, in a few lines."""
    import numpy as np

    files = {row.file for row in rows}
    failed = sorted({row.file for row in rows if row.error})
    turns = [row for row in rows if row.turn]
    counts = (
        f"{_count(len(files), 'conversation')}, {_count(len(turns), 'turn')}, "
        f"{_count(sum(row.interrupted for row in rows), 'interruption')}, "
        f"{_count(sum(row.tools for row in rows), 'tool call')}, "
        f"{sum(row.input_tokens for row in rows):,} tokens in, "
        f"{sum(row.output_tokens for row in rows):,} out."
    )
    lines = [counts]
    for name, values in (
        ("first sound", [row.first_played_ms for row in turns]),
        ("end of turn", [row.endpoint_ms for row in turns]),
    ):
        known = [value for value in values if value is not None]
        if known:
            shown = ", ".join(
                f"p{percent} {value:.0f}"
                for percent, value in zip(
                    _PERCENTILES, np.percentile(known, _PERCENTILES), strict=True
                )
            )
            lines.append(f"{name}: {shown} ms after the end of speech.")
    if failed:
        shown = ", ".join(failed[:3]) + (", ..." if len(failed) > 3 else "")
        lines.append(f"{_count(len(failed), 'conversation')} failed: {shown} (--retry tries again)")
    return "\n".join(lines)


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
