"""``duologue talk``: talk by this machine's microphone and loudspeaker."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from duologue.cli.extras import require_extras
from duologue.cli.options import engine_options


@click.command()
@click.option(
    "--input", "input_", metavar="DEVICE", help="Microphone: its number or a part of its name."
)
@click.option("--output", metavar="DEVICE", help="Loudspeaker: its number or a part of its name.")
@click.option("--devices", "list_devices", is_flag=True, help="List the audio devices and stop.")
@click.option(
    "--headphones", is_flag=True, help="Switch off echo cancellation, which headphones do not need."
)
@click.option("--say", metavar="TEXT", help="The agent speaks first, and says exactly this.")
@click.option(
    "--events",
    metavar="EVENTS.jsonl",
    type=click.Path(path_type=Path),
    help="Write every event, one JSON a line.",
)
@engine_options
def talk(
    input_: str | None,
    output: str | None,
    list_devices: bool,
    headphones: bool,
    say: str | None,
    events: Path | None,
    profile: str,
    instructions: str,
    offline: bool,
) -> None:
    """Talk in the terminal, by microphone and loudspeaker, until Ctrl-C.

    Your words appear while you speak, the agent's when you have heard them.

    \b
    duologue talk --devices
    duologue talk --input 3 --output "USB" --headphones
    """
    from duologue.cli.options import make_agent
    from duologue.cli.run import converse, exit_on_failure, run_conversation
    from duologue.edges import microphone

    if list_devices:
        for number, name, inputs, outputs in microphone.devices():
            uses = [use for use, count in (("input", inputs), ("output", outputs)) if count]
            click.echo(f"{number:>3}  {name}  ({' and '.join(uses) or 'no use'})")
        return
    require_extras("talk", "local", "mic")
    edge = microphone.Edge(
        input=_device(input_), output=_device(output), echo_cancellation=not headphones
    )
    agent = make_agent(edge, profile, instructions, offline=offline)
    click.echo("Loading the engine; then speak. Ctrl-C ends it.")
    try:
        printer = run_conversation(
            converse(agent, echo=True, events=events, say=say, live=sys.stdout.isatty())
        )
    except KeyboardInterrupt:
        click.echo("")
        return
    exit_on_failure(printer)


def _device(name: str | None) -> int | str | None:
    return int(name) if name is not None and name.isdigit() else name
