"""``duologue simulate``: a provider's service on this machine, without a key of theirs."""

from __future__ import annotations

import asyncio

import click


@click.group()
def simulate() -> None:
    """Simulate a provider's service on this machine, for programs that talk to it.

    No key of theirs is needed, and nothing leaves this machine.
    """


@simulate.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--brain",
    metavar="echo|local|loopback|SCRIPT.yaml",
    default="echo",
    show_default=True,
    help="Who answers: each turn's sound again, the engine inside, the sound at once, a script.",
)
@click.option(
    "--profile",
    type=click.Choice(["tiny", "small", "better"]),
    default="tiny",
    show_default=True,
    help="Size of the engine, for --brain local.",
)
@click.option(
    "--faults",
    multiple=True,
    metavar="NAME|FILE.yaml",
    help="What goes wrong; may be given several times.",
)
@click.option(
    "--clock-scale",
    type=click.FloatRange(0.0, min_open=True),
    default=1.0,
    show_default=True,
    help="Sessions end after an hour divided by this.",
)
@click.option("--key", metavar="TEXT", help="The key that is good; demanded with another --host.")
def openai(
    host: str,
    port: int,
    brain: str,
    profile: str,
    faults: tuple[str, ...],
    clock_scale: float,
    key: str | None,
) -> None:
    """OpenAI's Realtime service, over WebSocket and WebRTC, until Ctrl-C.

    \b
    duologue simulate openai --brain local
    duologue simulate openai --brain script.yaml --faults reset
    """
    from duologue.realtime.errors import ConfigError
    from duologue.simulator.faults import load_faults
    from duologue.simulator.openai.server import KEY, OpenAISimulator

    if host not in ("127.0.0.1", "localhost", "::1") and not key:
        raise ConfigError(f"--host {host} lets others in: give a --key of your own")
    simulator = OpenAISimulator(
        brain,
        host=host,
        port=port,
        key=key or KEY,
        faults=[fault for name in faults for fault in load_faults(name)],
        profile=profile,
        clock_scale=clock_scale,
    )

    async def main() -> None:
        if brain == "local":
            click.echo("Loading the engine ...")
        try:
            async with simulator:
                click.echo(f"WebSocket  {simulator.ws_url}?model=gpt-realtime-2.1")
                click.echo(f"base_url   {simulator.url}")
                shown = "..." if key else KEY
                click.echo(f"OPENAI_BASE_URL={simulator.url} OPENAI_API_KEY={shown}")
                click.echo("Ctrl-C ends it.")
                await asyncio.Event().wait()
        finally:
            for failure in simulator.failures:
                click.echo(failure, err=True)

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        click.echo("")
