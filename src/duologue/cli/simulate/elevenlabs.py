"""``duologue simulate elevenlabs``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from duologue.cli.simulate.serving import Options, simulator_options
from duologue.cli.simulate.speech import serve_speech, transcript_option


@click.command()
@transcript_option
@simulator_options(clock_scale_help="The service's limits of time are divided by this.")
def elevenlabs(options: Options, transcripts: Sequence[str]) -> None:
    """ElevenLabs's voices and recognisers, over WebSocket, until Ctrl-C.

    \b
    duologue simulate elevenlabs --transcript "what time is it"
    duologue simulate elevenlabs --backend local
    """
    from duologue.simulators.elevenlabs.server import ElevenLabsSimulator

    serve_speech(ElevenLabsSimulator, options, transcripts, "ELEVENLABS_API_KEY")
