"""What the simulated voices and recognisers share on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from duologue.cli.simulate.serving import Options, serve

if TYPE_CHECKING:
    from duologue.simulators._speech.service import SpeechSimulator

transcript_option = click.option(
    "--transcript",
    "transcripts",
    multiple=True,
    metavar="TEXT",
    help="What is recognised in the next turn; may be given several times.",
)


def serve_speech(
    simulator: Callable[..., SpeechSimulator],
    options: Options,
    transcripts: Sequence[str],
    variable: str,
) -> None:
    """Serve until Ctrl-C; ``variable`` is the environment variable of the vendor's key.

    Raises:
        ConfigError: An option is wrong.
    """
    from duologue.errors import ConfigError
    from duologue.simulators.faults import load_faults

    if options.backend not in ("echo", "local"):
        raise ConfigError(
            f"--backend {options.backend} is not for voices and recognisers: leave it out, for "
            "tones and --transcript, or write local"
        )
    key = {} if options.key is None else {"key": options.key}
    service = simulator(
        "local" if options.backend == "local" else "script",
        transcripts=transcripts,
        host=options.host,
        port=options.port,
        faults=[fault for name in options.faults for fault in load_faults(name)],
        clock_scale=options.clock_scale,
        **key,
    )
    shown = "..." if options.key else service.key
    serve(service, options, lambda: [f"base_url   {service.url}", f"{variable}={shown}"])
