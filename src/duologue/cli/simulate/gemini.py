"""``duologue simulate gemini``."""

from __future__ import annotations

from pathlib import Path

import click

from duologue.cli.simulate.serving import Options, serve, simulator_options, write_certificate


@click.command()
@click.option(
    "--tls",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="CA.pem",
    help="Speak TLS, as Google's own package demands, and write the certificate to this file.",
)
@simulator_options(clock_scale_help="Connections end after ten minutes divided by this.")
def gemini(options: Options, tls: Path | None) -> None:
    """Google's Gemini Live service, over WebSocket, until Ctrl-C.

    \b
    duologue simulate gemini --backend local
    duologue simulate gemini --tls ca.pem --faults goaway
    """
    from duologue.simulators.faults import load_faults
    from duologue.simulators.gemini.faults import PRESETS
    from duologue.simulators.gemini.server import DEFAULT_KEY, GeminiSimulator

    simulator = GeminiSimulator(
        options.backend,
        host=options.host,
        port=options.port,
        key=options.key or DEFAULT_KEY,
        faults=[fault for name in options.faults for fault in load_faults(name, PRESETS)],
        profile=options.profile,
        tls=tls is not None,
        clock_scale=options.clock_scale,
    )
    if tls is not None:
        write_certificate(tls, simulator.ca_pem)
    shown = "..." if options.key else DEFAULT_KEY
    trust = "" if tls is None else f" SSL_CERT_FILE={tls}"
    serve(
        simulator,
        options,
        lambda: [
            f"WebSocket  {simulator.ws_url}",
            f"base_url   {simulator.url}",
            f"GOOGLE_GEMINI_BASE_URL={simulator.url} GEMINI_API_KEY={shown}{trust}",
        ],
    )
