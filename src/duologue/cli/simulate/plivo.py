"""``duologue simulate plivo``."""

from __future__ import annotations

import click

from duologue.cli.simulate.phone import PhoneOptions, phone_options, run_simulator


@click.command()
@phone_options
def plivo(options: PhoneOptions) -> None:
    """Plivo: calls to the app at APP_URL, and the REST interface, until Ctrl-C.

    \b
    duologue simulate plivo --call --say question.wav --out heard.wav
    duologue simulate plivo https://talk.example.org
    """
    from duologue.simulators.telephone.service import PlivoSimulator

    run_simulator(PlivoSimulator, options, "PLIVO_AUTH_TOKEN")
