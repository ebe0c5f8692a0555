"""``duologue simulate vonage``."""

from __future__ import annotations

import click

from duologue.cli.simulate.phone import PhoneOptions, phone_options, run_simulator


@click.command()
@phone_options
def vonage(options: PhoneOptions) -> None:
    """Vonage: calls to the app at APP_URL, and the REST interface, until Ctrl-C.

    \b
    duologue simulate vonage --call --say question.wav --out heard.wav
    duologue simulate vonage https://talk.example.org
    """
    from duologue.simulators.telephone.service import VonageSimulator

    run_simulator(VonageSimulator, options, "VONAGE_SIGNATURE_SECRET")
