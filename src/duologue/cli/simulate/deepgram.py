"""``duologue simulate deepgram``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from duologue.cli.simulate.serving import Options, simulator_options
from duologue.cli.simulate.speech import serve_speech, transcript_option


@click.command()
@transcript_option
@simulator_options(clock_scale_help="The service's limits of time are divided by this.")
def deepgram(options: Options, transcripts: Sequence[str]) -> None:
    """Deepgram's voices and recognisers, over WebSocket, until Ctrl-C.

    \b
    duologue simulate deepgram --transcript "what time is it"
    duologue simulate deepgram --backend local
    """
    from duologue.simulators.deepgram.server import DeepgramSimulator

    serve_speech(DeepgramSimulator, options, transcripts, "DEEPGRAM_API_KEY")
