"""``duologue simulate qwen``."""

from __future__ import annotations

import click

from duologue.cli.simulate.serving import Options, serve, simulator_options


@click.command()
@simulator_options(
    clock_scale_help="Sessions end after two hours, or five idle minutes, divided by this."
)
def qwen(options: Options) -> None:
    """Alibaba's Qwen Omni realtime service, over WebSocket, until Ctrl-C.

    \b
    duologue simulate qwen --backend local
    duologue simulate qwen --backend script.yaml --faults idle
    """
    from duologue.simulators.faults import load_faults
    from duologue.simulators.qwen.faults import PRESETS
    from duologue.simulators.qwen.server import DEFAULT_KEY, QwenSimulator

    simulator = QwenSimulator(
        options.backend,
        host=options.host,
        port=options.port,
        key=options.key or DEFAULT_KEY,
        faults=[fault for name in options.faults for fault in load_faults(name, PRESETS)],
        profile=options.profile,
        clock_scale=options.clock_scale,
    )
    shown = "..." if options.key else DEFAULT_KEY
    serve(
        simulator,
        options,
        lambda: [
            f"WebSocket  {simulator.ws_url}?model=qwen3.5-omni-plus-realtime",
            f"url        {simulator.ws_url}",
            f"DASHSCOPE_API_KEY={shown}",
        ],
    )
