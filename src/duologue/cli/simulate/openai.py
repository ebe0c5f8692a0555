"""``duologue simulate openai``."""

from __future__ import annotations

import click

from duologue.cli.simulate.serving import Options, serve, simulator_options


@click.command()
@simulator_options(clock_scale_help="Sessions end after an hour divided by this.")
def openai(options: Options) -> None:
    """OpenAI's Realtime service, over WebSocket and WebRTC, until Ctrl-C.

    \b
    duologue simulate openai --backend local
    duologue simulate openai --backend script.yaml --faults reset
    """
    from duologue.simulators.faults import load_faults
    from duologue.simulators.openai.server import DEFAULT_KEY, OpenAISimulator

    simulator = OpenAISimulator(
        options.backend,
        host=options.host,
        port=options.port,
        key=options.key or DEFAULT_KEY,
        faults=[fault for name in options.faults for fault in load_faults(name)],
        profile=options.profile,
        clock_scale=options.clock_scale,
    )
    shown = "..." if options.key else DEFAULT_KEY
    serve(
        simulator,
        options,
        lambda: [
            f"WebSocket  {simulator.ws_url}?model=gpt-realtime-2.1",
            f"base_url   {simulator.url}",
            f"OPENAI_BASE_URL={simulator.url} OPENAI_API_KEY={shown}",
        ],
    )
