"""``duologue view`` and ``duologue explain``: look at recorded calls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from duologue.cli.extras import require_extras
from duologue.cli.options import run_in_chosen_loop

if TYPE_CHECKING:
    from duologue.observe.call import RecordedCall

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("path", type=_PATH)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; a free one if 0.")
@click.option(
    "--static",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write one call into an HTML file that needs nothing else, in place of serving it.",
)
def view(path: Path, port: int, static: Path | None) -> None:
    """Show recorded calls: PATH is the folder of a call, or of many.

    \b
    Voices, words heard and not heard, tools, and where the time went, with
    playback. Only this machine reaches the page. Calls are recorded by
    Agent(recorder=Recorder(FOLDER)).
    """
    from duologue.errors import ConfigError
    from duologue.observe.call import read_calls
    from duologue.observe.pages import call_page

    require_extras("wav", *(() if static is not None else ("server",)))
    calls = read_calls(path)
    if static is None:
        from duologue.observe.page_server import serve_calls

        run_in_chosen_loop(serve_calls(path, port, ready=_announce))
        return
    if len(calls) != 1:
        raise ConfigError(f"{path} has {len(calls)} calls: give the folder of one for --static")
    try:
        static.write_text(call_page(calls[0]), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"can't write {static}: {(error.strerror or 'not possible').lower()}"
        ) from error
    click.echo(f"{static} shows {calls[0].name}")


def _announce(address: str) -> None:
    click.echo(f"See the calls at {address} (Ctrl-C ends it)")


@click.command(name="explain")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_PATH)
def explain(paths: tuple[Path, ...]) -> None:
    """Say what was unusual in recorded calls, and why: PATH is the folder of a call, or of many."""
    from duologue.observe.call import read_calls

    found = [call for path in paths for call in read_calls(path)]
    calls = {call.path.resolve(): call for call in found}
    for call in sorted(calls.values(), key=lambda call: call.name):
        _print(call)


def _print(call: RecordedCall) -> None:
    from duologue.observe.explanations import explain as explain_call

    lines = explain_call(call)
    click.echo(f"{call.name}: {len(lines) or 'nothing'} unusual, {call.seconds:.0f} s")
    for line in lines:
        minutes, seconds = divmod(line.at, 60)
        click.echo(f"  {int(minutes)}:{seconds:04.1f}  {line.text}")
