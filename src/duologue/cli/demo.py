"""``duologue demo``: a recorded caller first, then the page."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from duologue.cli.agent_source import AgentSource, AppSource, agent_source
from duologue.cli.event_relay import relayed
from duologue.cli.extras import require_extras
from duologue.cli.options import ModelOptions, profile_option
from duologue.cli.run import (
    converse,
    describe_files,
    exit_on_failure,
    run_conversation,
    starting,
)

if TYPE_CHECKING:
    from duologue.audio import AudioFrame
    from duologue.edges import wav

# Each fact follows its name, so that the 0.5 billion parameters of "small" find the right one.
INSTRUCTIONS = (
    "You are Ada, the receptionist of the Blue Door. You answer the telephone. Answer in one short "
    "spoken sentence, and only from these facts. The hotel: a small house by the harbour, with "
    "twelve rooms, a garden, and a library with a fireplace. Breakfast: from seven to ten, in the "
    "garden room. Prices: a double room is ninety euros a night, a single room is sixty euros. "
    "Parking: behind the house, for free. Dogs: welcome, for free. Check-in: from three in the "
    "afternoon. Reception: closes at eleven in the evening."
)
GREETING = "The Blue Door, good morning. Ada speaking."
INTERRUPT_AFTER_S = 1.2
"""Seconds of the reply about the hotel after which the caller interrupts."""


@click.command()
@click.argument("app", required=False, metavar="[APP]")
@click.option("--once", is_flag=True, help="Stop after the recorded caller.")
@profile_option
@click.option(
    "--to",
    "folder",
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Where conversation.wav and conversation.png go; this folder by default.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of the page; 0 takes a free one. 8000 by default, or the next that is free.",
)
@click.option("--offline", is_flag=True, help="Fetch no weights; use what is here, or fail.")
def demo(
    app: str | None,
    once: bool,
    profile: str | None,
    folder: Path,
    port: int | None,
    offline: bool,
) -> None:
    """Listen to a conversation, then have one.

    First a recorded caller talks with the built-in engine, in real time: two questions, then one
    that another question interrupts. The conversation is printed with its times and written to
    conversation.wav (left the caller, right the agent) and conversation.png. Then the page to talk
    from is served at http://localhost:8000 until Ctrl-C.

    The first time, the weights of the engine are fetched (640 MB for small, 254 MB for tiny).

    With APP, which is module:function or file.py:function, the recorded caller talks with the agent
    that your function returns.
    """
    model = ModelOptions(
        profile=profile,
        instructions=INSTRUCTIONS,
        offline=offline,
        given=tuple(
            name for name, value in (("--profile", profile), ("--offline", offline)) if value
        ),
    )
    source = agent_source(app, model)
    extras = source.extras or ("wav",)
    require_extras("demo", *extras, *(() if once else ("browser",)))
    recording, plot = folder / "conversation.wav", folder / "conversation.png"
    if once:
        _run_recorded_caller(source, recording, plot)
        return
    from duologue.cli.serve import DEFAULT_PORT, listen_on_port, serve_page
    from duologue.server import ServerConfig

    # Listen before the call and the loading, so that a taken port is reported at once.
    config = ServerConfig(port=DEFAULT_PORT if port is None else port)
    with listen_on_port(config, exact=port is not None) as listener:
        _run_recorded_caller(source, recording, plot)
        hint = " Ada at the Blue Door knows breakfast, rooms, prices and parking."
        click.echo(f"\nNow you.{hint if app is None else ''}")
        serve_page(config, listener, source)


def clip(name: str) -> AudioFrame:
    """Return a recording of the caller by the name of its file."""
    from duologue.edges.audio_file import read_audio

    return read_audio(Path(str(files("duologue.cli") / "clips" / f"{name}.flac")))


def recorded_caller(
    recording: Path | None,
    clip: Callable[[str], AudioFrame] = clip,
    interrupt_after_s: float = INTERRUPT_AFTER_S,
    *,
    relay: bool = False,
) -> wav.Edge:
    """Return the recorded caller: two questions, one that interrupts the reply, and a last one.

    With ``relay``, the edge passes on the events of its agent (see `EventRelay`).
    """
    from duologue.edges import wav

    return (relayed(wav.Edge) if relay else wav.Edge)(
        [clip("breakfast"), clip("room"), clip("parking")],
        recording,
        wait_for_greeting=None if relay else True,
        settle_s=0.8,
        interjections=[wav.Interjection(clip("price"), interrupt_after_s, after_clips=2)],
    )


def _run_recorded_caller(source: AgentSource, recording: Path, plot: Path) -> None:
    from duologue.cli.plot import draw_conversation

    own = isinstance(source, AppSource)
    edge = recorded_caller(recording, relay=own)
    who = source.path if isinstance(source, AppSource) else "the built-in engine"
    click.echo(f"A recorded caller talks with {who}.\n")
    printer = run_conversation(
        converse(starting(source, edge), echo=True, say=None if own else GREETING),
        describe_files=lambda: describe_files(edge, recording),
    )
    draw_conversation(
        recording, printer.events, plot, f"The Blue Door: a recorded caller and {who}"
    )
    click.echo(f"\n{printer.summary()}\nWrote {recording} and {plot}.")
    exit_on_failure(printer, edge)
