"""``duologue simulate cartesia``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from duologue.cli.simulate.serving import Options, simulator_options
from duologue.cli.simulate.speech import serve_speech, transcript_option


@click.command()
@transcript_option
@simulator_options(clock_scale_help="The service's limits of time are divided by this.")
def cartesia(options: Options, transcripts: Sequence[str]) -> None:
    """Cartesia's voices and recognisers, over WebSocket, until Ctrl-C.

    \b
    duologue simulate cartesia --transcript "what time is it"
    duologue simulate cartesia --backend local
    """
    from duologue.simulators.cartesia.server import CartesiaSimulator

    serve_speech(CartesiaSimulator, options, transcripts, "CARTESIA_API_KEY")
