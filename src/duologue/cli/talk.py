"""``duologue talk``: talk by this machine's microphone and loudspeaker."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from duologue.cli.agent_source import agent_source
from duologue.cli.extras import require_extras
from duologue.cli.options import ModelOptions, model_options


@click.command()
@click.argument("app", required=False, metavar="[APP]")
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
@model_options
def talk(
    app: str | None,
    input_: str | None,
    output: str | None,
    list_devices: bool,
    headphones: bool,
    say: str | None,
    events: Path | None,
    model: ModelOptions,
) -> None:
    """Talk in the terminal, by microphone and loudspeaker, until Ctrl-C.

    APP is module:function or file.py:function, a function of yours that gets the edge and returns
    an Agent, or a coroutine function that conducts the conversation. Without it, the options
    describe a model: the built-in engine by default.

    Your words appear while you speak, the agent's when you have heard them.

    \b
    duologue talk --devices
    duologue talk --input 3 --output "USB" --headphones
    duologue talk app:make_agent
    duologue talk --llm gemini
    """
    from duologue.cli.event_relay import relayed
    from duologue.cli.run import converse, exit_on_failure, run_conversation, starting
    from duologue.edges import microphone

    if list_devices:
        for number, name, inputs, outputs in microphone.devices():
            uses = [use for use, count in (("input", inputs), ("output", outputs)) if count]
            click.echo(f"{number:>3}  {name}  ({' and '.join(uses) or 'no use'})")
        return
    if app is not None:
        require_extras("talk", "mic")
    source = agent_source(app, model)
    require_extras("talk", *source.extras, "mic")
    edge_class = microphone.Edge if app is None else relayed(microphone.Edge)
    edge = edge_class(
        input=_device(input_), output=_device(output), echo_cancellation=not headphones
    )
    click.echo(f"{source.loading_message.replace(' ...', '; then speak')} Ctrl-C ends it.")
    try:
        printer = run_conversation(
            converse(
                starting(source, edge), echo=True, events=events, say=say, live=sys.stdout.isatty()
            )
        )
    except KeyboardInterrupt:
        click.echo("")
        return
    exit_on_failure(printer)


def _device(name: str | None) -> int | str | None:
    return int(name) if name is not None and name.isdigit() else name
